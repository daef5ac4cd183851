"""What is known before a model is opened, as markup: of its text, and of itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...atlas.preflight import Fertility, Preflight
from ...text.languages import get_language
from ...text.report import CorpusReport
from .markup import in_language, table, title

MOST = 16  # problems, and languages of a preview, that anyone reads


def corpus_markup(report: CorpusReport, fertility: Sequence[Fertility] = ()) -> str:
    """What the text holds, what is wrong with it, and how it begins.

    With `fertility`, also how many tokens a model makes of each language.
    """
    languages = len(report.languages)
    sizes = sorted(set(report.counts.values()))
    each = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else 0
    word = "sentence" if sizes == [1] else "sentences"
    heading = title("The text", f"{report.name}: {languages} languages, {each} {word} in each")
    return heading + _sentences(report.problems) + _preview(report, fertility)


def preflight_markup(seen: Preflight) -> str:
    """What the model is, what it needs, and what may get in the way."""
    verdict = seen.reason or "This model can be measured and steered."
    kind = "note" if seen.reason else "quiet"
    rows = [(escape(name), escape(text)) for name, text in seen.rows if text != seen.reason]
    return (
        title("The model")
        + f'<p class="{kind}" role="status">{escape(verdict)}</p>'
        + _sentences(seen.warnings)
        + table(("", ""), rows)
    )


def _preview(report: CorpusReport, fertility: Sequence[Fertility]) -> str:
    tokens = {one.language: _tokens(one) for one in fertility}
    rows = report.preview(2 if len(report.languages) <= 6 else 1)
    items = "".join(
        f"<li><span>{escape(get_language(code).name)}{tokens.get(code, '')}</span>"
        f"{in_language(' '.join(filter(None, lines)), code)}</li>"
        for code, *lines in rows[:MOST]
    )
    more = f'<p class="quiet">and {len(rows) - MOST} more languages</p>' if len(rows) > MOST else ""
    return f'<ul class="parallels">{items}</ul>{more}'


def _tokens(one: Fertility) -> str:
    if one.against_english is None:
        return f"<small>{one.tokens_per_character:.2f} tokens a letter</small>"
    return f"<small>{one.against_english:.1f} × the tokens of English</small>"


def _sentences(sentences: tuple[str, ...]) -> str:
    shown = "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in sentences[:MOST])
    more = len(sentences) - MOST
    return shown + (f'<p class="quiet">and {more} more of these</p>' if more > 0 else "")
