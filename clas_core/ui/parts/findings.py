"""The Measure tab's *What was found on real models*."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...evaluation.telling.numbers import signed
from ...evaluation.telling.paper import PUBLISHED
from ...evaluation.telling.real import RealModel, real_headline
from ...paths import ASSETS
from .gains import in_words
from .markup import line, table

FINDINGS = ASSETS / "findings"


def findings_markup(found: Sequence[RealModel], village: str = "") -> str:
    """The headline, what the village and the paper say, and a table for each model, folded.

    `village`: the embedded model's answer in a few words. Empty without any study.
    """
    if not found:
        return ""
    paper = ", ".join(f"{one.benchmark} {one.model} {signed(one.gain)}" for one in PUBLISHED)
    beside = f"The paper, in points on larger models: {paper}."
    if village:
        beside = f"The village: {in_words(village)}. {beside}"
    tables = "".join(
        f"<details><summary>{escape(one.name)}</summary>"
        + '<div class="wide" tabindex="0" role="region" '
        + f'aria-label="What was found on {escape(one.name)}">'
        + table(
            ["Tried", "Steered", "Beside"],
            [[escape(row.what), escape(row.steered), escape(row.beside)] for row in one.rows],
        )
        + f"</div>{line(one.about, 'quiet')}"
        + f'<p class="quiet"><code>{escape(str(one.data["command"]))}</code></p></details>'
        for one in found
    )
    return (
        '<h3 class="section-title">What was found on real models</h3>'
        f"{line(real_headline(found))}{line(beside, 'quiet')}{tables}"
    )
