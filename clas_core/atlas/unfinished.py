"""Sums on disk while they are added up, so that a measurement cut short goes on from there.

The first process writes the file that was asked for, the second one the same name with .1 behind
it, and so on. Each says which batches it has summed, so whoever comes next, in however many
processes, puts together what there is and takes what is left.
"""

from __future__ import annotations

import glob
import logging
import re
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ClasError
from ..paths import CantWrite, replacing
from .processes import Processes

SAVE_EVERY = 30.0  # seconds between two writings


class CantResume(ClasError):
    """The file to resume from is another measurement's, or broken."""


class Unfinished:
    """One process's sums on disk, under a label that says of which measurement they are.

    `sums` are the tensors to be filled, by name, and `batches` is how many the measurement has.
    """

    def __init__(
        self, path: Path, label: str, processes: Processes, sums: dict[str, Tensor], batches: int
    ) -> None:
        self._first, self._label, self._processes = path, label, processes
        rank = processes.rank
        self._path = path if rank == 0 else path.with_name(f"{path.name}.{rank}")
        self._sums, self._batches = sums, batches
        self._summed = torch.zeros(batches, dtype=torch.bool)  # by this process and its file
        self._saved = time.monotonic()

    def resume(self) -> list[int]:
        """Go on from what earlier processes left: the batches left to do, of all processes.

        What they summed becomes the first process's. Raises CantResume if it can't.
        """
        summed = self._processes.first(self._collect)
        return (~summed).nonzero().flatten().tolist()

    def add(self, batch: int) -> None:
        """Note that `sums` hold this batch too; write them if that is long ago."""
        self._summed[batch] = True
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.keep()

    def keep(self) -> None:
        """Write the sums, whole or not at all: a full disk is told of, and measuring goes on."""
        try:
            self._save()
        except CantWrite as error:
            logging.getLogger(__name__).warning("%s What is measured isn't kept yet.", error)
            self._saved = time.monotonic()

    def _save(self) -> None:
        with replacing(self._path) as scratch:
            save_file({**self._sums, "batches": self._summed}, scratch, {"label": self._label})
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove this process's file, for nothing is unfinished any more."""
        self._path.unlink(missing_ok=True)

    def _collect(self) -> Tensor:
        """Put all files together in the first one; the batches that it then has.

        A run killed between writing that and removing the others leaves batches in two files: of
        such a pair the first counts.
        """
        files = unfinished_files(self._first)
        for path in files:
            self._take(path)
        if others := [path for path in files if path != self._first]:
            self._save()
            for path in others:
                path.unlink()
        return self._summed

    def _take(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                label = (file.metadata() or {}).get("label")
                if label != self._label:
                    raise CantResume(
                        f"{path} is of another measurement: remove it, or choose another file to "
                        "resume from."
                    )
                summed = file.get_tensor("batches")
                if (summed & self._summed).any():
                    return
                for name, tensor in self._sums.items():
                    tensor += file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CantResume(f"Can't resume from {path}: {error}") from error
        self._summed |= summed


def unfinished_files(path: Path) -> list[Path]:
    """The files of all processes that there are for `path`, the first process's first."""
    found = {0: path} if path.exists() else {}
    for other in path.parent.glob(f"{glob.escape(path.name)}.*"):
        if match := re.fullmatch(r"\d+", other.name[len(path.name) + 1 :]):
            found[int(match[0])] = other
    return [found[rank] for rank in sorted(found)]
