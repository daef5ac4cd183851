"""How scores and languages are written: shares in percent and points, all else as it is."""

from __future__ import annotations

from collections.abc import Callable

from ...text.languages import get_language
from ..judging.comparison import MEAN
from ..judging.statistics import Interval

_NOT_SHARES = frozenset({"bits_per_byte", "log_p"})


def is_share(metric: str) -> bool:
    """Whether a score of this metric is a share of something right."""
    return metric not in _NOT_SHARES


def scaled(value: float, metric: str) -> float:
    """Shares in percent, all else as it is."""
    return 100 * value if is_share(metric) else value


def number(value: float, metric: str) -> str:
    """A score that is scaled already: two digits for percent, three for all else."""
    return f"{value:.{2 if is_share(metric) else 3}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a minus as long as a plus; what rounds to 0 has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def name_of(code: str) -> str:
    """A column's heading: a language's name, or the mean's."""
    return MEAN if code == MEAN else get_language(code).name


def bounds(interval: Interval, write: Callable[[float], str]) -> str:
    """An interval's bounds in brackets, each by `write`; words where it has none."""
    if not interval.is_known:
        return "[no interval]"
    return f"[{write(interval.low)}, {write(interval.high)}]"
