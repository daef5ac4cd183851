"""The commands of `python -m clas_core`."""
