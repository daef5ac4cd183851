"""The one error that users are meant to read."""

from __future__ import annotations


class ClasError(ValueError):
    """Something the user asked for can't be done; the message says what to do instead."""
