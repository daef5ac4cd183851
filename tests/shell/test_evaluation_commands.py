"""The shell's evaluate, sweep and report, on the tiny model and a task on parallel text."""

import csv
import json

import pytest
from tiny import SENTENCES

from clas_core.evaluation.judging.items import Test, Validation
from clas_core.evaluation.judging.results import Results
from clas_core.evaluation.judging.sweep import load_chosen
from clas_core.evaluation.marks import Marks
from clas_core.shell.cli import main
from clas_core.text.raw import read_json

SETTINGS = ["--tau", "0.3", "--shared-from", "2", "--beta", "2", "--gamma", "-1", "--layers", "1-3"]


@pytest.fixture(scope="module")
def common(tmp_path_factory, tokenizer, tiny_lm):
    folder = tmp_path_factory.mktemp("shell")
    tiny_lm.model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "text").mkdir()
    for code, lines in SENTENCES.items():
        # Three times the sentences, so that both splits have some.
        more = [f"{line} {n}." for n in range(3) for line in lines]
        (folder / "text" / f"{code}.txt").write_text("\n".join(more), encoding="utf-8")
    options = ["--model", str(folder / "model"), "--corpus", str(folder / "text")]
    atlas = folder / "atlas.safetensors"
    assert main(["measure", *options, "--out", str(atlas)]) == 0
    source = str(folder / "text")
    tasks = ["--tasks", f"bits-per-byte={source}", f"retrieval={source}"]
    return [*options, "--atlas", str(atlas), *tasks, "--items", "4"]


def test_from_sweep_to_report(common, tmp_path, capsys):
    """Choose on validation items, report on test items, in every form."""
    chosen, swept = tmp_path / "chosen.json", tmp_path / "sweep.json"
    grid = ["--grid", "alpha=0.5,1", "layers=1-3,2-3"]
    files = ["--out", str(chosen), "--results", str(swept), "--log", str(tmp_path / "log")]
    capsys.readouterr()
    assert main(["sweep", *common, *SETTINGS, *grid, *files, "--finding", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [line["setting"] for line in table][:2] == [
        "alpha=0.5 layers=1-3",
        "alpha=0.5 layers=2-3",
    ]
    (suggested,) = [number for number, line in enumerate(table) if line["suggested"]]
    (one,) = load_chosen(chosen)
    setting = (one.setting.alpha, one.setting.layers)
    assert setting == [(a, ls) for a in (0.5, 1.0) for ls in ((1, 3), (2, 3))][suggested]
    assert len(Results.load(swept, Validation).about["shifts"]) == 4 * 3

    results = tmp_path / "results.json"
    options = [*common, "--chosen", str(chosen), "--controls", "1", "--out", str(results)]
    assert main(["evaluate", *options]) == 0
    assert "bits-per-byte, bits_per_byte" in capsys.readouterr().out
    assert Results.load(results, Test).conditions == ("unsteered", "CLAS", "random control 0")

    out = {form: tmp_path / f"out.{form}" for form in ("csv", "latex", "html")}
    forms = [text for form, path in out.items() for text in (f"--{form}", str(path))]
    assert main(["report", str(results), "--sweep", str(swept), *forms]) == 0
    text = {form: path.read_text("utf-8") for form, path in out.items()}
    lines = [line for line in text["csv"].splitlines() if not line.startswith("#")]
    assert {line["condition"] for line in csv.DictReader(lines)} == {"CLAS", "random control 0"}
    assert "\\toprule" in text["latex"]
    assert "The sweep" in text["html"]
    assert "drawing apart?" not in text["html"]  # three languages are too few to tell

    refused = [
        (["report", str(results), "--sweep", str(swept)], "by --html"),
        (["sweep", *common, *grid, "--out", str(chosen), "--finding"], "by --results"),
        (["evaluate", *options, "--model", "village"], "leave --model out"),
        (["evaluate", *options, "--baselines"], "choose the baselines' too"),
    ]
    for line, sentence in refused:
        assert main(line) == 1
        assert sentence in capsys.readouterr().err


def test_a_log_is_gone_on_with(common, tmp_path, capsys, monkeypatch):
    """The second run measures nothing, and says the same."""
    options = [*common, *SETTINGS, "--controls", "0", "--log", str(tmp_path / "log"), "--json"]
    capsys.readouterr()
    assert main(["evaluate", *options, "--out", str(tmp_path / "one.json")]) == 0
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("clas_core.evaluation.judging.engine.predict", None)
    assert main(["evaluate", *options, "--out", str(tmp_path / "two.json")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == first
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert main(["evaluate", *options, "--beta", "3", "--out", str(tmp_path / "x.json")]) == 1
    assert "a measurement with other conditions" in capsys.readouterr().err


def test_baselines(common, tmp_path, capsys):
    out = ["--out", str(tmp_path / "results.json")]
    options = ["--languages", "en,sw", "--baselines", "--controls", "1"]
    assert main(["evaluate", *common, *SETTINGS, *options, *out]) == 0
    text = capsys.readouterr().out
    for condition in (
        "unsteered",
        "CLAS",
        "IntMu",
        "LAPE",
        "LanguageArithmetic",
        "DiffMean",
        "random control 0",
    ):
        assert f"\n{condition}" in text
    assert text.splitlines()[0].split()[-2:] == ["en", "sw"]


@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("evaluate", ["--tasks", "nothing"], "There is no task 'nothing'"),
        ("evaluate", ["--languages", "xx"], "No task has the language 'xx'"),
        ("evaluate", ["--chosen", "{text}"], "holds no chosen settings"),
        ("sweep", ["--grid", "alpha"], "is no list of values"),
        ("sweep", ["--grid", "alpha=a"], "can't be read"),
        ("sweep", ["--grid", "seed=1"], "can't change 'seed'"),
        ("sweep", ["--grid", "alpha=0"], "None of these settings changes anything"),
        ("evaluate", ["--workers", "0"], "at least one worker"),
    ],
)
def test_refusals_are_one_sentence(common, tmp_path, capsys, command, options, sentence):
    (tmp_path / "text").write_text("{}")
    options = [option.format(text=tmp_path / "text") for option in options]
    assert main([command, *common, "--out", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clas: ")
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_results_of_another_kind_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("{}")
    assert main(["report", str(tmp_path / "file")]) == 1
    assert "holds no results" in capsys.readouterr().err


def test_marks(common, tmp_path, capsys):
    """The method that the goal has, or the one that is named; as a table, JSON and file."""
    out = tmp_path / "marks.json"
    own = common[: common.index("--tasks")]
    few = [*own, "--languages", "sw", "--prompts", "2", "--strengths", "0.5,4"]
    assert main(["marks", *few, "--goal", "write", "--out", str(out)]) == 0
    head, *rows, sentence = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "strength"
    assert [row.split()[0] for row in rows] == ["0", "0.5", "4"]
    found = Marks.from_dict(read_json(out))
    assert sentence == found.sentence
    assert found.method["method"] == "DiffMean"
    assert main(["marks", *few, "--goal", "help", "--method", "IntMu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"]["method"] == "IntMu"
    assert main(["marks", *few, "--goal", "fly"]) == 1
    assert "There is no goal 'fly'" in capsys.readouterr().err
