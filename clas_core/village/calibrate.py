"""What steering does to the village's model, setting by setting: the page opens with the answer.

A setting's *gain* is the change of log p(true answer), in nats an item, over village-QA and
village-NLI: far more sensitive than a score of answers right or wrong. Test items stay unseen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import torch

from ..atlas import Atlas
from ..evaluation.choices import log_likelihoods
from ..methods import CLAS, Method, RandomControl
from ..models import LanguageModel
from ..neurons import select
from ..plan import steered
from .evaluate import score_stories
from .grammar import Grammar
from .tasks import NLIItem, QAItem, nli_items, qa_items

LANGUAGES = ("en", "hi", "tr", "th", "sw")  # English must keep what it knows; the others may gain
STRENGTHS = (-1.0, -0.5, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setting:
    """What CLAS leaves to the user, but for the strength: the grid is over these."""

    tau: float
    shared_from: int
    beta: float
    gamma: float
    layers: tuple[int, int]

    def method(self, alpha: float) -> CLAS:
        return CLAS(alpha, self.beta, self.gamma, self.layers)


# What the page opens with: not the best setting (see the table for that), but one at which the
# strength slider goes the whole way from nothing to see to text falling apart.
OPENING = Setting(tau=0.1, shared_from=6, beta=2.0, gamma=0.0, layers=(6, 8))


def grid(num_layers: int) -> Iterator[Setting]:
    """The settings that are tried, gentle ones first. beta >= 1 >= gamma, as in the paper."""
    bridges = ((num_layers - num_layers // 4, num_layers), (num_layers // 2, num_layers))
    shapes = ((1.2, 0.8), (1.5, 0.5), (2.0, 0.0))
    for (beta, gamma), tau, m, layers in itertools.product(shapes, (0.1, 0.2), (6, 12), bridges):
        yield Setting(tau, m, beta, gamma, layers)


class Gauge:
    """Measures methods on the same validation items."""

    def __init__(self, lm: LanguageModel, atlas: Atlas, items: int, codes: Sequence[str]):
        self.lm, self.atlas, self.codes = lm, atlas, tuple(codes)
        chosen: list[QAItem | NLIItem] = []
        chosen += qa_items("validation", items)
        chosen += nli_items("validation", items)
        self._prompts = {code: [i.render(Grammar.load(code)) for i in chosen] for code in codes}
        self._before = {code: self._log_p(code) for code in codes}

    def gains(self, setting: Setting, method: Method) -> torch.Tensor:
        """Each item's gain under `method` at the setting's thresholds. [languages, items]"""
        selection = select(self.atlas, tau=setting.tau, shared_from=setting.shared_from)
        rows = []
        for code in self.codes:
            with steered(self.lm, method.plan(self.atlas, selection, code)):
                rows.append(self._log_p(code) - self._before[code])
        return torch.stack(rows)

    def parses(self, setting: Setting, alpha: float, count: int) -> float:
        """Share of told sentences that the grammar knows, at strength `alpha`, over languages."""
        selection = select(self.atlas, tau=setting.tau, shared_from=setting.shared_from)
        shares = []
        for code in self.codes:
            plan = setting.method(alpha).plan(self.atlas, selection, code)
            with steered(self.lm, plan):
                shares.append(score_stories(self.lm, code, count, "validation")["parses"])
        return mean(shares)

    def _log_p(self, code: str) -> torch.Tensor:
        prompts = self._prompts[code]
        return log_likelihoods(self.lm, [p.text for p in prompts], [p.answer for p in prompts])


def calibrate(
    lm: LanguageModel, atlas: Atlas, items: int = 30, stories: int = 8, progress: Progress = print
) -> dict[str, Any]:
    """Try the grid at full strength, then follow `OPENING` over the strengths.

    `best` is the setting with the highest mean gain. `collapse` is the first strength above 0 at
    which the true answer is less than half as likely as unsteered (geometric mean), None if there
    is none. Everything measured is in the result, as plain data; `opening` are fields of a recipe.
    """
    gauge = Gauge(lm, atlas, items, LANGUAGES)
    settings = list(grid(lm.num_layers))
    table = []
    for done, setting in enumerate(settings):
        table.append(asdict(setting) | _summary(gauge.gains(setting, setting.method(1.0)), gauge))
        progress(done + 1, len(settings))
    unsteered = gauge.parses(OPENING, 0.0, stories)
    strengths = []
    for alpha in STRENGTHS:
        method = OPENING.method(alpha)
        strengths.append(
            {"alpha": alpha, "parses": round(gauge.parses(OPENING, alpha, stories), 4)}
            | _summary(gauge.gains(OPENING, method), gauge)
            | {"control": _summary(gauge.gains(OPENING, RandomControl(method)), gauge)}
        )
    collapse = [s["alpha"] for s in strengths if s["alpha"] > 0 and s["gain"] < -math.log(2)]
    return {
        "items": 2 * items,
        "opening": asdict(OPENING),
        "best": max(table, key=lambda row: row["gain"]),
        "collapse": min(collapse, default=None),
        "unsteered_parses": round(unsteered, 4),
        "strengths": strengths,
        "table": table,
    }


def verdict(found: Mapping[str, Any]) -> str:
    """Whether CLAS helped, in two plain sentences, from what `calibrate` found."""
    best = found["best"]
    full = next(row for row in found["strengths"] if row["alpha"] == 1.0)
    helped = best["gain"] > 2 * best["error"]
    return (
        f"Does it help this model? On {found['items']} unseen questions a language, "
        f"{'the best' if helped else 'none'} of {len(found['table'])} settings gained more than "
        f"chance would: at full strength the best changed the log-probability of the true answer "
        f"by {_signed(best['gain'])} nats (standard error {best['error']:.3f}), the setting this "
        f"page opens with by {_signed(full['gain'])}, and the same numbers on random neurons by "
        f"{_signed(full['control']['gain'])}."
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _summary(gains: torch.Tensor, gauge: Gauge) -> dict[str, Any]:
    """Mean gain of each language and of all, with its standard error, in nats an item."""
    by_item = gains.mean(0)  # languages share their items, so items are the sample
    return {
        "gain": round(float(by_item.mean()), 4),
        "error": round(float(by_item.std() / len(by_item) ** 0.5), 4),
        "gains": {code: round(float(row.mean()), 4) for code, row in zip(gauge.codes, gains)},
    }
