from __future__ import annotations

import argparse

import pytest

from clas_core.shell.cli import _parser
from clas_core.shell.options import language_codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("en,sw", ["en", "sw"]),
        (" en, sw ", ["en", "sw"]),
        ("eng_Latn,por-BR", ["en", "pt-BR"]),
        ("zho-TW", ["zh-Hant"]),
    ],
)
def test_a_list_of_languages_in_any_spelling(text, codes):
    assert language_codes(text) == codes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("en,,sw", "'' is not a language code such as en"),
        ("en;sw", "'en;sw' is not a language code"),
        ("", "'' is not a language code"),
        ("en, en", "names a language twice"),
        ("en,eng_Latn", "are the same language, English"),
    ],
)
def test_what_is_no_list_of_languages(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        language_codes(text)


@pytest.mark.parametrize(
    "command",
    [
        ["measure", "--out", "x"],
        ["import", "vectors", "x", "--out", "x"],
        ["evaluate", "--out", "x"],
        ["sweep", "--grid", "alpha=1", "--out", "x"],
    ],
)
def test_every_command_reads_it_alike(command, capsys):
    read = _parser().parse_args([*command, "--languages", "en, swh_Latn"])
    assert read.languages == ["en", "sw"]
    with pytest.raises(SystemExit):
        _parser().parse_args([*command, "--languages", "en;sw"])
    assert "'en;sw' is not a language code" in capsys.readouterr().err
