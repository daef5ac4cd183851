from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.text.tables import read_csv, read_jsonl, read_tsv

# Neither control characters nor halves of characters; not blank, and the last cell ends no file.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(str.strip)
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def read(raw):
    assert raw.errors == ()
    return {column.code: list(column.lines) for column in raw.columns}


@given(ROWS)
def test_tsv_gives_back_what_was_written(tmp_path_factory, rows):
    lines = ["en\tsw", *("\t".join(row) for row in rows)]
    path = write(tmp_path_factory.mktemp("tsv") / "a.tsv", "\n".join(lines) + "\n")
    assert read(read_tsv(path)) == {"en": [r[0] for r in rows], "sw": [r[1] for r in rows]}


@given(ROWS)
def test_jsonl_gives_back_what_was_written(tmp_path_factory, rows):
    objects = [{"en": one, "sw": other} for one, other in rows]
    for wrap in (lambda row: row, lambda row: {"translation": row}):
        text = "\n".join(json.dumps(wrap(row), ensure_ascii=False) for row in objects)
        path = write(tmp_path_factory.mktemp("jsonl") / "a.jsonl", text)
        assert read(read_jsonl(path)) == {"en": [r[0] for r in rows], "sw": [r[1] for r in rows]}


@given(ROWS, st.sampled_from(",;"))
def test_csv_gives_back_what_was_written(tmp_path_factory, rows, delimiter):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([("en", "sw"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", out.getvalue())
    assert read(read_csv(path)) == {"en": [r[0] for r in rows], "sw": [r[1] for r in rows]}


def test_csv_cells_may_hold_anything(tmp_path):
    text = '"en",sw\r\n"One, ""two""\r\nand a\ttab.",Moja.\r\n\r\nTwo.,Mbili.\r\n,\r\n'
    raw = read_csv(write(tmp_path / "a.csv", "\ufeff" + text))
    assert read(raw) == {"en": ['One, "two"\nand a\ttab.', "Two."], "sw": ["Moja.", "Mbili."]}
    assert list(raw.columns[0].numbers) == [2, 5]


def test_tsv_keeps_quotation_marks_and_odd_line_separators(tmp_path):
    text = 'en\tsw\n"One" ″\tMo\u2028ja.\x85\n \n\t\n\n'
    assert read(read_tsv(write(tmp_path / "a.tsv", text))) == {
        "en": ['"One" ″'],
        "sw": ["Mo\u2028ja.\x85"],
    }


def test_text_is_not_normalised(tmp_path):
    decomposed = "An\u0303o"
    path = write(tmp_path / "a.tsv", f"en\tes\n Year. \t{decomposed}\n")
    assert read(read_tsv(path)) == {"en": [" Year. "], "es": [decomposed]}


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_other_newlines(tmp_path, newline):
    path = write(tmp_path / "a.tsv", newline.join(["\ufeffen\tsw", "One.\tMoja.", ""]))
    assert read(read_tsv(path)) == {"en": ["One."], "sw": ["Moja."]}


def test_every_bad_row_is_named_up_to_five(tmp_path):
    raw = read_tsv(write(tmp_path / "a.tsv", "en\tsw\n" + "One.\tMoja.\tUn.\n" * 7))
    assert raw.errors[0] == (
        "a.tsv, line 2: 3 columns, but the first row names 2 languages; separate the sentences by "
        "one tab each."
    )
    assert len(raw.errors) == 6
    assert raw.errors[-1] == "2 more lines have such a problem."


@pytest.mark.parametrize(
    ("reader", "name", "text", "message"),
    [
        (read_csv, "a.csv", 'en,sw\nOne,"Moja', r"line 2: not valid CSV"),
        (read_csv, "a.csv", "en,en\nOne,Moja", "names a language twice"),
        (read_jsonl, "a.jsonl", "[" * 100_000, "a.jsonl, line 1: "),
        (read_jsonl, "a.jsonl", "[1]", "line 1: expected an object of texts"),
        (read_csv, "a.csv", "en,sw\nOne, two,Moja", "in quotation marks"),
    ],
)
def test_refusals(tmp_path, reader, name, text, message):
    with pytest.raises(ClasError, match=message):
        raise ClasError(*reader(write(tmp_path / name, text)).errors)
