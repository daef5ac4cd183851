"""What the repository says about itself is true: README, requirements, profiles."""

import re
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.slow
def test_readme_example_runs(tmp_path, monkeypatch):
    """The code of the README as it stands there, in one namespace."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    unsteered, steered = names["step"].texts
    assert unsteered.strip()
    assert steered.strip()


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)`", README))
def test_readme_names_real_targets(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_readme_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
