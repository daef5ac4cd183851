"""Files that visitors may take away. They are there as long as the page offers them."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ...paths import CantWrite, writing
from .disk import make_room
from .outcome import Outcome


class Downloads:
    """The files of every measurement, in a folder that goes with the page.

    All but the `lasting` one's make room for newer ones, once they take more than `most` bytes.
    """

    def __init__(self, most: int, lasting: Outcome | None = None) -> None:
        self._scratch = TemporaryDirectory(prefix="clas-downloads-", ignore_cleanup_errors=True)
        self.folder = Path(self._scratch.name)
        self._most = most
        self._lasting = lasting
        self._needed: list[Path] = []
        if lasting is not None:
            self._needed = self._written(lasting)

    def of(self, outcome: Outcome) -> list[str]:
        """Its CSV, JSON, LaTeX and report: their paths, which nobody can guess.

        Raises CantWrite on a full disk, with none of them left there.
        """
        if outcome is self._lasting:
            return [str(path) for path in self._needed]
        paths = self._written(outcome)
        make_room([self.folder], self._most, {*self._needed, *paths})
        return [str(path) for path in paths]

    def _written(self, outcome: Outcome) -> list[Path]:
        folder = self.folder / secrets.token_hex(16)
        try:
            with writing("the files to take away"):
                folder.mkdir()
            return outcome.write(folder)
        except CantWrite:
            shutil.rmtree(folder, ignore_errors=True)
            raise
