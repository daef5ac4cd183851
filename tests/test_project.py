"""What the repository says about itself is true: README, requirements, profiles."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from clas_core.text.corpus import ParallelCorpus
from clas_core.version import __version__

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def _requirements(lines):
    return {line.split("#")[0].strip() for line in lines} - {""}


def test_requirements_are_those_of_the_package():
    """Read as text: Python 3.10 has no TOML reader of its own."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.S | re.M)[1]
    wanted = {re.match(r'\s*"([^"]+)"', line)[1] for line in block.splitlines()}
    assert _requirements((ROOT / "requirements.txt").read_text().splitlines()) == wanted


def test_the_version_is_told_once():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r'^version = "(.*)"$', project, re.M)[1] == __version__


def test_front_matter_is_a_space_card():
    card = yaml.safe_load(README.split("---\n")[1])
    assert card["sdk"] == "gradio"
    assert (ROOT / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60
    assert card["python_version"] in ("3.10", "3.12")


@pytest.fixture
def page():
    """The address of a laptop's page."""
    from clas_core.ui.behind.profile import read_profile
    from clas_core.ui.behind.studio import Studio
    from clas_core.ui.tabs.page import build, launch_options

    studio = Studio.open(read_profile("local"))
    options = {**launch_options(studio), "server_port": None, "quiet": True}
    app = build(studio)
    _, address, _ = app.launch(**options, prevent_thread_lock=True)
    yield address.rstrip("/")
    app.close(verbose=False)


@pytest.mark.slow
def test_readme_example_runs(page, tmp_path, monkeypatch):
    """The code of the README as it stands there, in one namespace, on fewer sentences."""
    monkeypatch.chdir(tmp_path)
    whole = ParallelCorpus.bundled
    monkeypatch.setattr(ParallelCorpus, "bundled", lambda name: whole(name).subset(n=40))
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        block = block.replace("http://127.0.0.1:7860", page)
        exec(compile(block, "README.md", "exec"), names)
    unsteered, steered = names["step"].texts
    assert unsteered.strip()
    assert steered.strip()


@pytest.mark.parametrize("target", re.findall(r"`make ([\w-]+)`", README))
def test_readme_names_real_targets(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_readme_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def _public(body, prefix=""):
    """(name, definition) of all public classes and functions, and of their public methods."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):
                continue
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")


def _undocumented(folder):
    """Modules and public definitions without a docstring, as `file:line name`.

    A method that overrides one of a class of ours may leave it to that one.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(folder.rglob("*.py"))}
    classes = {
        node.name: [ast.unparse(base).split("[")[0] for base in node.bases]
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = [
        (path, name, node) for path, tree in trees.items() for name, node in _public(tree.body)
    ]
    told = {name for _, name, node in found if ast.get_docstring(node)}

    def is_told(name):
        owner, _, method = name.rpartition(".")
        return name in told or any(is_told(f"{base}.{method}") for base in classes.get(owner, ()))

    for path, tree in trees.items():
        if ast.get_docstring(tree) is None:
            yield f"{path.relative_to(folder)}:1 the module"
    for path, name, node in found:
        if not is_told(name):
            yield f"{path.relative_to(folder)}:{node.lineno} {name}"


def test_every_public_definition_says_what_it_does():
    assert "\n".join(_undocumented(ROOT / "clas_core")) == ""


def test_what_says_nothing_is_named(tmp_path):
    (tmp_path / "a.py").write_text(
        '''"""A module."""
class Base:
    """A base."""
    def told(self):
        """It is told."""
    def untold(self): ...
    def _private(self): ...
    def __len__(self): ...
class Heir(Base):
    """An heir."""
    def told(self): ...
    def untold(self): ...
def bare(): ...
''',
        "utf-8",
    )
    (tmp_path / "b.py").write_text("class _Private:\n    def method(self): ...\n", "utf-8")
    assert list(_undocumented(tmp_path)) == [
        "b.py:1 the module",
        "a.py:6 Base.untold",
        "a.py:12 Heir.untold",
        "a.py:13 bare",
    ]
