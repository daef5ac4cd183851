"""The rules of the house: which room may import which. The files are read, no code is run.

Every import counts: those inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = "clas_core"

BOTTOM = ("errors", "paths", "version")  # every room may import these
ENGINE = ("text", "model", "atlas", "steering", "running")
EVALUATION = ("evaluation.judging", "evaluation.telling", "evaluation.tasks")
LIBRARY = (*ENGINE, *EVALUATION, "evaluation")
PAGE = ("ui.behind", "ui.parts", "ui.tabs")
# Room: what it may import beside itself and the bottom. A name may be a room or a single module.
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(BOTTOM, ()),
    "text": (),
    "model": (),
    "atlas": ENGINE[:2],
    "steering": ENGINE[:3],
    "running": ENGINE[:4],
    "village": ("text",),
    "evaluation.judging": ENGINE,
    "evaluation.telling": (*ENGINE, "evaluation.judging"),
    "evaluation.tasks": (*ENGINE, "evaluation.judging.items", "village"),
    "evaluation": (*ENGINE, *EVALUATION),  # what joins the three
    "shell": LIBRARY,
    "ui": (),
    "ui.behind": (*LIBRARY, "village"),
    "ui.parts": (*LIBRARY, "ui.behind"),
    "ui.tabs": (*LIBRARY, "ui.behind", "ui.parts"),
    "studies": (*LIBRARY, "village", "shell", *PAGE),
    "__main__": ("shell",),
    "": (*LIBRARY, "ui.tabs.notebook"),  # the public names: clas_core/__init__.py
}
# What else some outside package may be imported by: the rooms.
ONLY_IN: Mapping[str, tuple[str, ...]] = {"gradio": ("ui.parts", "ui.tabs")}

# Imports (from, to) that may close a circle, each with the reason why.
MAY_CLOSE_A_CIRCLE: Mapping[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Import:
    """`source` imports `target` at `place` (file:line). Modules of the house without its name."""

    source: str
    target: str
    place: str
    inside: bool  # whether `target` is a module of the house, not of another package


def modules_of(folder: Path) -> dict[str, Path]:
    """Every module below `folder` by its dotted name, "" for the package itself."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(folder: Path) -> Iterator[Import]:
    """Every import of every module of the package in `folder`."""
    modules = modules_of(folder)
    for source, path in modules.items():
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            place = f"{path.relative_to(folder.parent)}:{getattr(node, 'lineno', 0)}"
            for name in _names(node, f"{folder.name}.{package}".rstrip(".")):
                top, _, rest = name.partition(".")
                inside = top == folder.name
                target = _module_of(rest, modules) if inside else name
                if not (inside and target == source):
                    yield Import(source, target, place, inside)


def _names(node: ast.AST, package: str) -> Iterator[str]:
    """The full dotted names that a statement in `package` imports, none if it is no import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = [*above, node.module] if node.level else [node.module]
        yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)


def _module_of(name: str, modules: Mapping[str, Path]) -> str:
    """The module in which the dotted `name` is found: itself, or what is left of its last dots."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def room_of(module: str) -> str | None:
    """The room of `MAY_IMPORT` that a module is in; None if it is in none."""
    room = module
    while room and room not in MAY_IMPORT:
        room = room.rpartition(".")[0]
    return room if room or not module else None


def complaint(one: Import) -> str | None:
    """What is wrong with an import, naming file, line and rule; None if nothing is."""
    room = room_of(one.source)
    if room is None:
        return f"{one.place}: {one.source} is in no room of the house"
    if not one.inside:
        allowed = ONLY_IN.get(one.target.partition(".")[0])
        if allowed is None or room in allowed:
            return None
        return f"{one.place}: {room} imports {one.target}; only {' and '.join(allowed)} may"
    allowed = (room, *MAY_IMPORT[room], *BOTTOM)
    if one.target in allowed or room_of(one.target) in allowed:
        return None
    rule = ", ".join([*MAY_IMPORT[room], *BOTTOM])
    return f"{one.place}: {room or HOUSE} imports {one.target or HOUSE}; it may import only {rule}"


def circle(imports: list[Import], allowed: Mapping[tuple[str, str], str]) -> str | None:
    """The first circle of modules that import each other, one place a line; None without one."""
    graph: dict[str, set[str]] = {}
    places: dict[tuple[str, str], str] = {}
    for one in imports:
        if one.inside and (one.source, one.target) not in allowed:
            graph.setdefault(one.source, set()).add(one.target)
            places[one.source, one.target] = one.place
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        around = error.args[1][::-1]  # each imports the next
        steps = [f"{places[a, b]}: {a} imports {b}" for a, b in pairwise(around)]
        return "A circle:\n" + "\n".join(steps)
    return None


@pytest.fixture(scope="module")
def house() -> list[Import]:
    """All imports of the house as it stands."""
    return list(imports_of(ROOT / HOUSE))


def test_every_module_is_in_a_room():
    modules = modules_of(ROOT / HOUSE)
    assert len(modules) > 100
    assert [name for name in modules if room_of(name) is None] == []


def test_every_room_is_there():
    """So that a rule about a room that was renamed does not go on holding nothing."""
    named = {*MAY_IMPORT, *(one for allowed in MAY_IMPORT.values() for one in allowed)}
    assert named - set(modules_of(ROOT / HOUSE)) == set()


def test_imports_run_down_only(house):
    assert list(filter(None, map(complaint, house))) == []


def test_no_modules_import_each_other(house):
    found = circle(house, MAY_CLOSE_A_CIRCLE)
    assert found is None, found


def test_exceptions_are_needed(house):
    """Each of them, when it is left out, closes a circle."""
    for one in MAY_CLOSE_A_CIRCLE:
        others = {pair: why for pair, why in MAY_CLOSE_A_CIRCLE.items() if pair != one}
        assert circle(house, others), f"{one} closes no circle any more: remove it"


def test_modules_are_named_in_one_place_only(house):
    """No import by a computed name, which nobody could check; the public names' is checked."""
    dynamic = [
        one.place
        for one in house
        if one.source and one.target in ("importlib.import_module", "importlib.__import__")
    ]
    assert dynamic == []


def test_public_names_are_looked_up_where_the_type_checker_finds_them():
    """The table of homes by name says the same as the imports that `mypy` reads."""
    import clas_core

    read = {
        (alias.name, f"{HOUSE}.{node.module}")
        for node in ast.walk(ast.parse((ROOT / HOUSE / "__init__.py").read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    looked_up = {(name, f"{HOUSE}.{home}") for name, home in clas_core._HOME_OF.items()}
    assert looked_up <= read


def test_test_files_share_by_helper_modules():
    """No test file imports another one: what they share lies in a module of its own."""
    shared = [
        one
        for one in imports_of(ROOT / "tests")
        if one.target.rpartition(".")[2].startswith("test_") or one.target.startswith("test_")
    ]
    assert shared == []


# -- the rules themselves: each is broken by some import --------------------------------------
BREAKS = [
    ("errors", "from .text import corpus"),
    ("text/corpus", "from ..model.taps import Taps"),
    ("model/taps", "from ..text import corpus"),
    ("text/corpus", "from ..atlas import atlas"),
    ("atlas/atlas", "from ..steering.plan import SteeringPlan"),
    ("steering/plan", "import clas_core.running.states"),
    ("running/states", "from ..evaluation.judging import items"),
    ("village/world", "from ..model import taps"),
    ("village/world", "from ..evaluation.tasks import village"),
    ("evaluation/judging/engine", "from ..tasks import village"),
    ("evaluation/judging/engine", "from ..telling import tables"),
    ("evaluation/judging/engine", "from ...village import world"),
    ("evaluation/judging/engine", "from .. import whole"),
    ("evaluation/whole", "from ..village import world"),
    ("evaluation/telling/tables", "from ..tasks import village"),
    ("evaluation/telling/tables", "from ...village.world import World"),
    ("evaluation/tasks/village", "from ..judging import engine"),
    ("evaluation/tasks/village", "from ..telling import tables"),
    ("shell/cli", "from ..ui.behind import studio"),
    ("shell/cli", "from ..village import world"),
    ("shell/cli", "import gradio"),
    ("shell/cli", "from ..studies import settings"),
    ("ui/behind/studio", "import gradio as gr"),
    ("ui/behind/studio", "from gradio.themes import Base"),
    ("ui/behind/studio", "from ..parts import text"),
    ("ui/behind/studio", "from ...shell import cli"),
    ("ui/behind/studio", "from ...studies.settings import SEARCH"),
    ("ui/parts/text", "from ..tabs import page"),
    ("running/states", "from ..ui.behind import studio"),
    ("running/states", "from .. import load"),
    ("studies/settings", "import gradio"),
]
HOLDS = [
    ("text/corpus", "from ..errors import ClasError"),
    ("atlas/atlas", "from . import selection"),
    ("running/states", "from ..steering import plan"),
    ("village/world", "from ..text.corpus import ParallelCorpus"),
    ("evaluation/tasks/village", "from ...village import world"),
    ("evaluation/tasks/village", "from ..judging.items import Task"),
    ("evaluation/telling/tables", "from ..judging import engine"),
    ("evaluation/whole", "from .tasks import village"),
    ("shell/cli", "from ..evaluation.telling import tables"),
    ("ui/behind/studio", "from ...village import world"),
    ("ui/parts/text", "import gradio as gr"),
    ("ui/tabs/page", "from ..behind.studio import Studio"),
    ("studies/settings", "from ..ui.behind import studio"),
    ("text/corpus", "import torch"),
]


def build(folder: Path, **files: str) -> Path:
    """A small house with a module in every room, and these lines (path: text) in some of them."""
    house = folder / HOUSE
    plain = [*dict.fromkeys(path for path, _ in [*BREAKS, *HOLDS]), "model/taps", "steering/plan"]
    for path in (*plain, "atlas/selection", "evaluation/judging/items", "ui/tabs/page"):
        file = house / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        for above in file.relative_to(house).parents:
            (house / above / "__init__.py").touch()
    for path, text in files.items():
        (house / f"{path}.py").write_text(text, "utf-8")
    return house


WAYS = ["{}", "def late():\n    {}", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}"]


@pytest.mark.parametrize("way", WAYS, ids=["at the top", "in a function", "for types"])
@pytest.mark.parametrize(("path", "line"), BREAKS)
def test_a_broken_rule_is_named(path, line, way, tmp_path):
    house = build(tmp_path, **{path: way.format(line)})
    (found,) = filter(None, map(complaint, imports_of(house)))
    assert found.startswith(f"{HOUSE}/{path}.py:{len(way.splitlines())}: ")


def test_a_file_outside_the_rooms_is_named(tmp_path):
    house = build(tmp_path)
    (house / "corpora.py").write_text("from .errors import ClasError", "utf-8")
    assert list(filter(None, map(complaint, imports_of(house)))) == [
        f"{HOUSE}/corpora.py:1: corpora is in no room of the house"
    ]


@pytest.mark.parametrize(("path", "line"), HOLDS)
def test_what_is_allowed_is_not_named(path, line, tmp_path):
    assert not list(filter(None, map(complaint, imports_of(build(tmp_path, **{path: line})))))


def test_circles_are_named(tmp_path):
    """Inside a room, and through a function."""
    house = build(
        tmp_path,
        **{
            "atlas/atlas": "from .selection import select",
            "atlas/selection": "def late():\n    from .atlas import Atlas",
        },
    )
    found = circle(list(imports_of(house)), {})
    assert f"{HOUSE}/atlas/atlas.py:1: atlas.atlas imports atlas.selection" in found
    assert f"{HOUSE}/atlas/selection.py:2: atlas.selection imports atlas.atlas" in found
    assert not circle(list(imports_of(house)), {("atlas.selection", "atlas.atlas"): "argued"})


def test_a_straight_line_is_no_circle(tmp_path):
    house = build(tmp_path, **{"atlas/atlas": "from .selection import select"})
    assert circle(list(imports_of(house)), {}) is None
