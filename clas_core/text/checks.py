"""What makes parallel text unusable (errors), and what is only suspicious (warnings).

Nothing is mended in silence: a sentence is measured as it was given, or refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate, combinations
from statistics import median

from .languages import get_language, is_code
from .raw import Column
from .scripts import letters_of, script_name, script_of

_LONG = 8  # times the median length, and
_LONG_CHARACTERS = 200  # at least this long, is far longer than the others
_PAIRS = 10  # of languages that share sentences are named
_ASKS = re.compile(r"[?？؟;!！]\s*$")  # in Greek by a semicolon
_SURROGATE = re.compile("[\ud800-\udfff]")


def find_errors(name: str, columns: Sequence[Column]) -> list[str]:
    """Why `columns` are no parallel text: a plain sentence for each reason, with its place."""
    if not any(column.lines for column in columns):
        return [f"{name} holds no sentences: give at least one in each language."]
    errors = [
        f"{name}: {column.code[:40]!r} is not a language code; name the languages by codes such as "
        "en or sw, in the first row of a .tsv or .csv or as keys of a .jsonl."
        for column in columns
        if not is_code(column.code)
    ]
    if len({len(column.lines) for column in columns}) > 1:
        errors.append(_unequal(name, columns))
    for column in columns:
        if empty := _where(column, lambda line: not line.strip()):
            verb, them = ("is", "it") if len(empty) == 1 else ("are", "them")
            errors.append(
                f"{name}: {_some(empty, 'sentence')} of {column.code} {verb} empty "
                f"({column.place(empty)}); fill {them} in or remove {them} from every language."
            )
        if broken := _where(column, lambda line: _SURROGATE.search(line) is not None):
            errors.append(
                f"{name}: {column.code} has broken characters ({column.place(broken)}); write the "
                "file as UTF-8 anew."
            )
    return errors


def find_warnings(columns: Sequence[Column]) -> list[str]:
    """What is suspicious in `columns`, a plain sentence for each."""
    warnings = []
    if len(columns) == 1:
        warnings.append(f"Only {columns[0].code} is there; shared neurons need two languages.")
    for column in columns:
        for check in (_foreign, _repeated, _long, _mangled, _decomposed):
            if warning := check(column):
                warnings.append(f"{column.code}: {warning}")
    return [*warnings, *_untranslated(columns)]


def likely_gap(longer: Sequence[str], shorter: Sequence[str]) -> int:
    """Which of the sentences of `longer` has no partner in `shorter`, one sentence less.

    The place where pairing them up before it, and shifted by one after it, differs least in
    length, numbers and closing mark: the idea of Gale and Church (1993), for one known gap.
    """
    share = (sum(map(len, longer)) + 1) / (sum(map(len, shorter)) + 1)

    def differ(one: str, other: str) -> float:
        cost = abs(math.log((len(one) + 5) / (len(other) * share + 5)))
        cost += re.findall(r"\d+", one) != re.findall(r"\d+", other)
        return cost + 0.5 * ((_ASKS.search(one) is None) != (_ASKS.search(other) is None))

    kept = [0.0, *accumulate(differ(one, other) for one, other in zip(longer, shorter))]
    moved = [0.0, *accumulate(differ(one, other) for one, other in zip(longer[1:], shorter))]
    return min(range(len(longer)), key=lambda k: kept[k] + moved[-1] - moved[k])


def _unequal(name: str, columns: Sequence[Column]) -> str:
    codes = defaultdict(list)
    for column in columns:
        codes[len(column.lines)].append(column)
    ranked = sorted(codes.items(), key=lambda item: -len(item[1]))
    counts = ", ".join(
        f"{count} in {', '.join(column.code for column in group[:5])}"
        + f" and {len(group) - 5} more" * (len(group) > 5)
        for count, group in ranked
    )
    usual, model = ranked[0][0], ranked[0][1][0]
    hints = []
    for count, group in ranked[1:]:
        if abs(count - usual) == 1 and min(count, usual):
            column = group[0]
            pair = (column, model) if count > usual else (model, column)
            place = pair[0].place([likely_gap(pair[0].lines, pair[1].lines)])
            what = "has one too many" if count > usual else "lacks one"
            hints.append(f"; {column.code} perhaps {what} near {place}")
    return (
        f"{name}: parallel text needs the same number of sentences in every language, but there "
        f"are {counts}{''.join(hints)}."
    )


def _foreign(column: Column) -> str | None:
    """Sentences without a letter of the language's own script."""
    script = get_language(column.code).script
    own = letters_of(script)
    if own is None:
        return None
    odd = _where(column, lambda line: not own.search(line) and any(map(script_of, line)))
    if not odd:
        return None
    found = Counter(filter(None, map(script_of, "".join(column.lines[i] for i in odd))))
    other = script_name(found.most_common(1)[0][0])
    if 2 * len(odd) > len(column.lines):
        return (
            f"most sentences are in {other} script, not {script_name(script)}; is the code right?"
        )
    return (
        f"{_some(odd, 'sentence')} in {other} script, not {script_name(script)} "
        f"({column.place(odd)}); translated?"
    )


def _repeated(column: Column) -> str | None:
    seen: set[str] = set()
    again = []
    for index, line in enumerate(column.lines):
        if line in seen and line.strip():
            again.append(index)
        seen.add(line)
    if not again:
        return None
    return f"{_some(again, 'sentence')} stood there before ({column.place(again)})."


def _long(column: Column) -> str | None:
    if not column.lines:
        return None
    bar = max(_LONG * median(map(len, column.lines)), _LONG_CHARACTERS)
    if not (odd := _where(column, lambda line: len(line) > bar)):
        return None
    return (
        f"{_some(odd, 'sentence')} far longer than the others ({column.place(odd)}); a line break "
        "missing?"
    )


def _mangled(column: Column) -> str | None:
    if not (odd := _where(column, lambda line: "\ufffd" in line)):
        return None
    return f"characters were lost in an earlier conversion (� in {column.place(odd)})."


def _decomposed(column: Column) -> str | None:
    if not (odd := _where(column, lambda line: not unicodedata.is_normalized("NFC", line))):
        return None
    return (
        f"letters and accents are written apart in {_some(odd, 'sentence')} ({column.place(odd)}); "
        "most models expect them composed (Unicode NFC)."
    )


def _untranslated(columns: Sequence[Column]) -> list[str]:
    """For each two languages, how many sentences are the same text in both; the worst pairs."""
    counts: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], int] = {}
    bases = [_base(column) for column in columns]
    for row in range(min((len(column.lines) for column in columns), default=0)):
        groups: dict[str, list[int]] = defaultdict(list)
        for index, column in enumerate(columns):
            groups[column.lines[row]].append(index)
        for text, group in groups.items():
            if len(group) > 1 and any(map(script_of, text)):
                for pair in combinations(group, 2):
                    if bases[pair[0]] != bases[pair[1]]:
                        counts[pair] += 1
                        first.setdefault(pair, row)
    warnings = []
    for (one, two), count in counts.most_common(_PAIRS):
        some, place = _some(range(count), "sentence"), columns[one].place([first[one, two]])
        warnings.append(
            f"{columns[one].code} and {columns[two].code}: {some} the same in both (from {place} "
            "on); translated?"
        )
    rest = len(counts) - len(warnings)
    return [*warnings, *([f"{rest} more pairs of languages share sentences."] if rest else [])]


def _base(column: Column) -> str:
    """The language without script and region: en of en-GB."""
    return get_language(column.code).code.partition("-")[0]


def _where(column: Column, holds: Callable[[str], bool]) -> list[int]:
    return [index for index, line in enumerate(column.lines) if holds(line)]


def _some(indices: Sequence[int], noun: str) -> str:
    return f"{len(indices)} {noun}{'s' * (len(indices) != 1)}"
