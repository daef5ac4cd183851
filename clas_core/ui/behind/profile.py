"""A profile: what differs between a laptop, a Space and a workshop."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit  # reads TOML on Python 3.10 too
from tomlkit.exceptions import ParseError

from ...errors import ClasError

PROFILES = Path(__file__).resolve().parents[3] / "spaces_config"


@dataclass(frozen=True)
class Profile:
    """`threads` 0 measures which number is quickest. `map_sentences` are per language.

    `models` are the patterns of the models that visitors may open, as `check_allowed` reads them.
    `uploads`: megabytes of a visitor's own text, 0 for none. `shelf`, `shelf_gb`: how many models
    besides the first stay open, and how much memory all of them may take together. `cache_mb`:
    megabytes of memory for what is computed on the way, such as plans and maps. `disk_mb`:
    megabytes on disk for measurements and own texts that are kept, as many for what visitors
    bring, and as many for what they may take away. What was used least recently makes room.
    `queue`: how many answers may wait for their turn.
    `mcp`: whether programs find the page's endpoint as a tool too. `gpu`: whether models run on
    one that is lent for a call at a time (ZeroGPU of Hugging Face). `endpoints`: addresses of two
    servers that write the first model's texts, unsteered and baked; none for the model itself.
    """

    model: str = "village"
    corpus: str = "village"
    models: tuple[str, ...] = ("*", "local")
    uploads: int = 20
    shelf: int = 4
    shelf_gb: int = 16
    cache_mb: int = 1000
    disk_mb: int = 1000
    host: str = "127.0.0.1"
    port: int = 7860
    threads: int = 0
    map_sentences: int = 50
    max_new_tokens: int = 120
    queue: int = 200
    mcp: bool = False
    gpu: bool = False
    endpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            right = type(value) is wanted
            if right and isinstance(value, tuple):
                right = all(isinstance(entry, str) for entry in value)
            if not right:
                raise ClasError(f"{field.name} in the profile must be {_NAMES[wanted]}.")
            if isinstance(value, int) and value < 0:
                raise ClasError(f"{field.name} in the profile must not be negative.")
        if len(self.endpoints) not in (0, 2):
            raise ClasError("endpoints are two addresses: of the unsteered and the baked model.")
        if self.endpoints and self.gpu:
            raise ClasError("Where a GPU is lent for a call at a time, there are no endpoints.")


_NAMES = {
    str: "text",
    int: "a whole number",
    tuple: "a list of texts",
    bool: "true or false",
}


def default_profile() -> str:
    """`CLAS_PROFILE` if set; on a Hugging Face Space "zerogpu" where it has that, else "cpu"; else
    "local"."""
    if chosen := os.environ.get("CLAS_PROFILE"):
        return chosen
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
        return "zerogpu"
    return "cpu" if "SPACE_ID" in os.environ else "local"


def read_profile(name: str) -> Profile:
    """The profile `spaces_config/<name>.toml`, or the file `name` itself."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    try:
        values: dict[str, Any] = tomlkit.parse(path.read_text("utf-8")).unwrap()
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in PROFILES.glob("*.toml")))
        raise ClasError(f"There is no profile {name!r}; choose one of: {names}.") from error
    except (OSError, UnicodeDecodeError, ParseError) as error:
        raise ClasError(f"The profile {path.name} can't be read: {error}.") from error
    known = {field.name for field in dataclasses.fields(Profile)}
    if unknown := sorted(set(values) - known):
        raise ClasError(
            f"The profile {path.name} names {', '.join(unknown)}; a profile has "
            f"{', '.join(sorted(known))}."
        )
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Profile(**{**values, **lists})
