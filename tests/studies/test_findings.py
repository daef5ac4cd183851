"""What was found on real models: the files, and the README that tells it."""

from pathlib import Path

from clas_core.evaluation.telling.real import findings_markdown, read_findings
from clas_core.paths import ASSETS


def test_the_readme_tells_what_is_in_the_files():
    """Word for word what `python -m clas_core.studies findings` prints."""
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert findings_markdown(read_findings(ASSETS / "findings")) in text


def test_the_files_are_small_and_name_no_place():
    for path in (ASSETS / "findings").glob("*.json"):
        text = path.read_text("utf-8")
        assert len(text) < 100_000
        assert "/tmp" not in text
        assert "/home" not in text
