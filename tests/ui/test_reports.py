from __future__ import annotations

from clas_core.atlas.preflight import Fertility, Preflight
from clas_core.text.report import check_corpus
from clas_core.ui.parts.reports import MOST, corpus_markup, preflight_markup

SEEN = Preflight(
    source="<b>owner</b>/name", revision=None, gated=False, download=0, device="cpu",
    free=8 * 10**9, architecture="LlamaForCausalLM", parameters=135_000_000, widths=(64, 64),
    weights=10**9, working=10**8, hidden_size=32, context=2048, dtype="float32",
)  # fmt: skip


def test_a_text_is_shown_as_text(tmp_path):
    (tmp_path / "mine.tsv").write_text("en\tar\nA <i>cat</i>.\tقطة.\n", "utf-8")
    shown = corpus_markup(check_corpus(tmp_path / "mine.tsv"))
    assert "mine: 2 languages, 1 sentence in each" in shown
    assert "A &lt;i&gt;cat&lt;/i&gt;." in shown
    assert '<div lang="ar" dir="rtl">' in shown


def test_tokens_stand_beside_their_language(tmp_path):
    (tmp_path / "mine.tsv").write_text("en\tsw\nA cat.\tPaka.\n", "utf-8")
    fertility = [Fertility("en", 0.25, 1.0, 0), Fertility("sw", 0.5, 1.96, 0)]
    shown = corpus_markup(check_corpus(tmp_path / "mine.tsv"), fertility)
    assert "Swahili<small>2.0 × the tokens of English" in shown
    without = [Fertility("sw", 0.5, None, 0)]
    assert "0.50 tokens a letter" in corpus_markup(check_corpus(tmp_path / "mine.tsv"), without)


def test_problems_are_listed_up_to_a_number(tmp_path):
    rows = "".join(f"{n}.\n" for n in range(40))  # one column short in every row
    (tmp_path / "bad.tsv").write_text("en\tsw\n" + rows, "utf-8")
    report = check_corpus(tmp_path / "bad.tsv")
    assert not report.ok
    assert corpus_markup(report).count('class="note"') == min(MOST, len(report.problems))


def test_a_model_is_told_with_its_verdict():
    shown = preflight_markup(SEEN)
    assert "can be measured and steered" in shown
    assert "&lt;b&gt;owner&lt;/b&gt;" in shown
    assert "LlamaForCausalLM" in shown
    refused = preflight_markup(Preflight("x", None, False, 0, "cpu", 0, reason="It is no model."))
    assert '<p class="note" role="status">It is no model.</p>' in refused
    assert "can be measured" not in refused
