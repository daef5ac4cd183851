"""Folders that stay within a budget of bytes: files that were used least recently go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path


def mark_used(path: Path) -> None:
    """Let `path` count as used now, which is what its time of modification stands for."""
    now = time.time_ns()
    with suppress(OSError):  # it made room a moment ago, or may only be read
        os.utime(path, ns=(now, now))


def make_room(folders: Sequence[Path], most: int, needed: Collection[Path] = ()) -> None:
    """Delete files below `folders` until they take `most` bytes together.

    `needed` stay, and so does the last used one, whatever they take. Folders that become empty go.
    """
    files = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        with suppress(OSError):  # another process made room
            if path.is_file():
                facts = path.stat()
                files.append((facts.st_mtime_ns, facts.st_size, path))
    files.sort(reverse=True)
    total = 0
    for place, (_, size, path) in enumerate(files):
        total += size
        if total <= most or place == 0 or path in needed:
            continue
        total -= size
        with suppress(OSError):
            path.unlink()
            if path.parent not in folders:
                path.parent.rmdir()  # which fails unless it is empty


def drop_halves(folder: Path, age: float = 3600.0) -> None:
    """Delete what Gradio began to write into `folder` over `age` seconds ago, and couldn't end.

    An upload is a file at its top until it is whole, and moves into a folder of its own then.
    """
    for path in folder.glob("tmp*"):
        with suppress(OSError):  # it became whole
            if path.is_file() and time.time() - path.stat().st_mtime >= age:
                path.unlink()


def keep_within(folder: Path, most: int, every: float = 30.0) -> None:
    """From now on make room in the `folder` of uploads, every so many seconds, for as long as the
    page runs."""

    def watch() -> None:
        while folder.is_dir():
            drop_halves(folder)
            make_room([folder], most)
            time.sleep(every)

    threading.Thread(target=watch, name="make-room", daemon=True).start()
