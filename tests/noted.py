"""A worker's setup that leaves a note wherever it is opened, for tests that end what runs there.

A module of its own, as other processes import it.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from clas_core.evaluation.judging.workers import WorkerSetup
from clas_core.model.architecture import LanguageModel


@dataclass(frozen=True, eq=False)
class Noted(WorkerSetup):
    """Notes the node's id in `folder`. On the node that `folder`/doomed names it never opens; with
    a number in `folder`/crashes, so many processes end themselves instead of opening."""

    folder: Path = Path()

    def open(self) -> LanguageModel:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"node-{node}").touch()
        if (doomed := self.folder / "doomed").exists() and doomed.read_text() == node:
            time.sleep(600)
        if (crashes := self.folder / "crashes").exists():
            crashed = self.folder / f"crash-{os.getpid()}"
            if len(list(self.folder.glob("crash-*"))) < int(crashes.read_text()):
                crashed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().open()

    @property
    def nodes(self) -> set[str]:
        """Where it was opened so far."""
        return {path.name.removeprefix("node-") for path in self.folder.glob("node-*")}
