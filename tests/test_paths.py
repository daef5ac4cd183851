from __future__ import annotations

import pytest

from clas_core.paths import CantWrite, replacing


def test_a_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as scratch:
        scratch.write_text("first")
        assert not path.exists()
    with replacing(path) as scratch:
        scratch.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_an_error_changes_nothing(tmp_path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("kept")
    with pytest.raises(UnicodeEncodeError), replacing(path) as scratch:
        scratch.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_directory_replaces_only_an_empty_one(tmp_path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "old").write_text("kept")
    with replacing(empty) as scratch:
        scratch.mkdir()
        (scratch / "file").write_text("there")
    assert (empty / "file").read_text() == "there"
    with pytest.raises(CantWrite, match="not empty"), replacing(full) as scratch:
        scratch.mkdir()
    assert (full / "old").read_text() == "kept"
