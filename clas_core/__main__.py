"""`python -m clas_core`: the commands, as `clas` has them."""

import sys

from .shell.cli import main

sys.exit(main())
