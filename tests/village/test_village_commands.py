"""`python -m clas_core.village`: what a reader of the grammars and a trainer of the model type."""

import json
from collections import Counter

import pytest

from clas_core.village import __main__ as village
from clas_core.village import train
from clas_core.village.corpus import write_corpus
from clas_core.village.grammar import CODES


def test_check_says_what_is_fine_and_what_is_not(capsys):
    assert village.main(["check", "en"]) == 0
    assert capsys.readouterr().out == "en: fine\n"
    assert village.main(["check", "xx"]) == 1
    assert "does not speak 'xx'" in capsys.readouterr().out


def test_samples_are_sentences_to_read(capsys):
    assert village.main(["samples", "en", "--each", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 50
    assert not [line for line in lines if "{" in line or "[" in line]
    assert village.main(["samples", "xx"]) == 1
    assert "does not speak 'xx'" in capsys.readouterr().err


def test_the_model_goes_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    def train_stages(stages, run):
        (run / "model").mkdir(parents=True)
        (run / "model" / "config.json").write_text("{}")
        return run / "model"

    monkeypatch.setattr(village, "train_stages", train_stages)
    run, out = tmp_path / "run", tmp_path / "out"
    assert village.main(["model", "--preset", "mini", "--run", str(run), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "settings.json"}
    stages = json.loads((out / "settings.json").read_text())
    assert [train.Settings(**stage) for stage in stages] == list(train.PRESETS["mini"])
    assert str(out) in capsys.readouterr().out


@pytest.mark.slow
def test_the_corpus_has_a_column_a_language_and_no_sentence_twice(tmp_path):
    write_corpus(tmp_path / "few.tsv", 34)
    head, *rows = (tmp_path / "few.tsv").read_text("utf-8").splitlines()
    assert head.split("\t") == list(CODES)
    assert len(rows) == 34
    assert {len(row.split("\t")) for row in rows} == {len(CODES)}
    assert max(Counter(row.split("\t")[0] for row in rows).values()) == 1
