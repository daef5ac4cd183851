"""What the paper reports, to be read beside one's own numbers (arXiv 2601.16390).

Its models and benchmarks are others than most that are measured here: beside, not against.
"""

from __future__ import annotations

from dataclasses import dataclass

from .numbers import is_share, signed


@dataclass(frozen=True)
class Published:
    """The mean gain over languages that the paper gives for CLAS, in points."""

    benchmark: str
    metric: str
    model: str
    gain: float


PUBLISHED = (
    Published("XNLI", "accuracy", "Llama-3.1-8B", 1.93),
    Published("XNLI", "accuracy", "Qwen2.5-7B", 0.45),
    Published("XQuAD", "F1", "Llama-3.1-8B", 0.94),
    Published("XQuAD", "F1", "Qwen2.5-7B", 1.10),
)
# Our tasks and metrics that ask what a benchmark of the paper asks.
_ALIKE = {
    ("village-nli", "accuracy"): "XNLI",
    ("xnli", "accuracy"): "XNLI",
    ("village-qa", "f1"): "XQuAD",
    ("xquad", "f1"): "XQuAD",
}


def worth_showing(task: str, metric: str, before: float) -> float:
    """The gain that items must be able to show before "no gain" means anything, as large as
    `before`, the unsteered score, is: the largest that the paper reports, on the benchmark most
    like this task, else on any. Scores that are no shares have to change by as large a share of
    `before`."""
    largest = max(one.gain for one in published_for(task, metric) or PUBLISHED) / 100
    return largest if is_share(metric) else largest * abs(before)


def published_for(task: str, metric: str) -> tuple[Published, ...]:
    """The paper's numbers on the benchmark that is most like this task; none for most tasks."""
    kind = task.partition(",")[0]  # without "3 examples"
    benchmark = _ALIKE.get((kind, metric))
    return tuple(one for one in PUBLISHED if one.benchmark == benchmark)


def paper_sentence(task: str, metric: str) -> str:
    """What the paper found on the benchmark that is most like this task; empty if none is."""
    found = published_for(task, metric)
    if not found:
        return ""
    said = ", ".join(f"{one.model} {signed(one.gain)}" for one in found)
    first = found[0]
    return f"The paper, in the mean of {first.benchmark}'s languages ({first.metric}): {said}."
