"""Write a Space of Hugging Face from a checkout: what would be sent, and then sending it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
import yaml
from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    SpaceHardware,
    Volume,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # the parent of all that can go wrong between here and the hub
    LocalTokenNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import ClasError

ROOT = Path(__file__).resolve().parents[2]
SENT = ("app.py", "LICENSE", "pyproject.toml", "clas_core", "assets", "spaces_config")
STORE = "/data"  # where a bucket is mounted
_PRELOADED = "config.json,model.safetensors,tokenizer.json"


@dataclass(frozen=True)
class Place:
    """A kind of Space. `torch`: what it can run of it; `requires`: what it needs besides."""

    sdk: str
    hardware: SpaceHardware
    costs: str
    torch: str = ""
    requires: tuple[str, ...] = ()
    dockerfile: str = ""


PLACES: Mapping[str, Place] = {
    "zerogpu": Place(
        "gradio",
        SpaceHardware.ZERO_A10G,
        "nothing; two ZeroGPU Spaces are free for a personal account, and each visitor spends "
        "seconds of their own daily quota",
        torch="torch>=2.8,<2.12",
        requires=("spaces>=0.40", "mcp>=1.21,<2"),
    ),
    "cpu": Place(
        "gradio",
        SpaceHardware.CPU_BASIC,
        "a paid plan of Hugging Face, which CPU Spaces need",
        requires=("mcp>=1.21,<2",),
    ),
    "docker": Place(
        "docker",
        SpaceHardware.CPU_BASIC,
        "a paid plan of Hugging Face, which CPU Spaces need",
        dockerfile="spaces_config/docker/Dockerfile",
    ),
}


@dataclass(frozen=True)
class Space:
    """What a Space would be: its files, by their names in it."""

    name: str
    place: str
    files: Mapping[str, Path | bytes]
    card: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Of all files."""
        sizes = (len(one) if isinstance(one, bytes) else one.stat().st_size for one in self._all)
        return sum(sizes)

    @property
    def _all(self) -> Sequence[Path | bytes]:
        return list(self.files.values())


def plan_space(name: str, place: str, root: Path = ROOT) -> Space:
    """The Space `name`, OWNER/NAME, as it would be written. Nothing is sent, or asked of the hub.

    Raises ClasError for a bad name, and away from a checkout.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ClasError(f"{name!r} can't be a Space's name: write OWNER/NAME.") from error
    if name.count("/") != 1:
        raise ClasError(f"{name!r} names no owner: write OWNER/NAME.")
    if place not in PLACES:
        raise ClasError(f"There is no place {place!r}: choose one of {', '.join(PLACES)}.")
    if missing := [one for one in (*SENT, "README.md") if not (root / one).exists()]:
        raise ClasError(f"Publish from a checkout: {', '.join(missing)} isn't in {root}.")
    files: dict[str, Path | bytes] = {
        path.relative_to(root).as_posix(): path for one in SENT for path in _files(root / one)
    }
    readme = (root / "README.md").read_text("utf-8")
    _, head, body = readme.split("---\n", 2)
    card = _card(yaml.safe_load(head), place, root)
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    files["README.md"] = f"---\n{text}---\n{body}".encode()
    wanted = (root / "requirements.txt").read_text("utf-8")
    files["requirements.txt"] = _requirements(wanted, PLACES[place]).encode()
    if PLACES[place].dockerfile:
        files["Dockerfile"] = root / PLACES[place].dockerfile
    return Space(name, place, files, card)


def _files(path: Path) -> Iterator[Path]:
    """The file, or all files of the folder that belong to it."""
    if path.is_file():
        yield path
        return
    for one in sorted(path.rglob("*")):
        hidden = any(part.startswith((".", "__pycache__")) for part in one.relative_to(path).parts)
        if one.is_file() and not hidden:
            yield one


def _card(head: Mapping[str, Any], place: str, root: Path) -> dict[str, Any]:
    """The front matter, with the profile's models: linked, and fetched while the Space is built."""
    profile = tomlkit.parse((root / "spaces_config" / f"{place}.toml").read_text("utf-8")).unwrap()
    pinned = [name.partition("@")[::2] for name in profile["models"] if "@" in name]
    card = {**head, "models": [model for model, _ in pinned]}
    if PLACES[place].sdk == "docker":
        for name in ("sdk_version", "python_version", "app_file"):
            card.pop(name, None)
        return {**card, "sdk": "docker", "app_port": profile["port"]}
    if profile.get("gpu"):  # all are opened at the start
        card["preload_from_hub"] = [f"{model} {_PRELOADED} {commit}" for model, commit in pinned]
        card["startup_duration_timeout"] = "1h"
    return card


def _requirements(text: str, place: Place) -> str:
    if place.torch:
        text = re.sub(r"^torch\b.*$", place.torch, text, flags=re.M)
    return text.rstrip("\n") + "".join(f"\n{one}" for one in place.requires) + "\n"


def send(
    space: Space, *, private: bool = False, bucket: str | None = None, api: HfApi | None = None
) -> str:
    """Make the Space, or bring one up to date, in one commit; its address.

    Files of an earlier version that are no longer there go. bucket: one whose storage outlives
    restarts, OWNER/NAME, is mounted and holds all that is kept. Raises ClasError with what the hub
    says against it.
    """
    api, place = api or HfApi(), PLACES[space.place]
    try:
        made = api.create_repo(
            space.name,
            repo_type="space",
            space_sdk=place.sdk,
            space_hardware=place.hardware,
            private=private or None,  # else as the owner has it
            exist_ok=True,
        )
        there = set(api.list_repo_files(space.name, repo_type="space")) - {".gitattributes"}
        operations: list[CommitOperation] = [
            CommitOperationAdd(name, content) for name, content in space.files.items()
        ]
        operations += [CommitOperationDelete(name) for name in sorted(there - set(space.files))]
        if bucket:
            volume = Volume(type="bucket", source=bucket, mount_path=STORE)
            api.set_space_volumes(space.name, [volume])
            api.add_space_variable(space.name, "CLAS_CACHE", f"{STORE}/clas")
        api.create_commit(
            space.name, operations, commit_message="Publish CLAS Studio", repo_type="space"
        )
    except LocalTokenNotFoundError as error:
        raise ClasError("Log in to the hub first: hf auth login.") from error
    except HfHubHTTPError as error:
        raise ClasError(f"The hub refuses: {_said(error)}") from error
    except (HTTPError, OSError) as error:
        raise ClasError(f"The hub can't be reached: {error}") from error
    return str(made)


def _said(error: HfHubHTTPError) -> str:
    """The hub's own words, in one line."""
    text = error.server_message or str(error).strip().rpartition("\n")[2]
    return f"{text.rstrip('.')}." if text else f"status {error.response.status_code}."


def add_command(commands: Any) -> None:
    """Add `publish` to the shell's commands."""
    text = "write a Space of Hugging Face; shows what would be sent, until you say --send"
    parser = commands.add_parser("publish", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=_publish)
    parser.add_argument("space", metavar="OWNER/NAME")
    parser.add_argument("--place", choices=PLACES, default="zerogpu", help="default: zerogpu")
    parser.add_argument("--send", action="store_true", help="do it; you must be logged in")
    parser.add_argument("--private", action="store_true", help="for you and those you let in")
    text = "OWNER/NAME of a bucket of yours, in which what is measured outlives a restart"
    parser.add_argument("--bucket", help=text)


def _publish(arguments: argparse.Namespace) -> None:
    space = plan_space(arguments.space, arguments.place)
    place = PLACES[space.place]
    print(f"{space.name}: a {place.sdk} Space on {place.hardware.value}")
    print(f"costs: {place.costs}")
    print(f"sends: {len(space.files)} files, {space.nbytes / 1e6:.1f} MB, in one commit")
    if arguments.bucket:
        print(f"keeps: what is measured, in the bucket {arguments.bucket}, mounted at {STORE}")
    if not arguments.send:
        print(yaml.safe_dump(dict(space.card), sort_keys=False, allow_unicode=True).rstrip())
        print("Nothing was sent: add --send.")
        return
    print(send(space, private=arguments.private, bucket=arguments.bucket))
