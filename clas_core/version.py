"""The version of this package, which results carry with them."""

__version__ = "0.1.0"
