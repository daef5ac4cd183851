"""What was found on real models, from the files that `clas_core.studies real` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ClasError
from ...text.raw import read_json
from ..judging.comparison import SIGNIFICANCE
from ..judging.conditions import CONTROL, controls_of
from ..judging.statistics import holm
from .numbers import signed

FORMAT = "clas-real-1"
_LIKELIHOOD, _RETRIEVAL = "bits-per-byte", "retrieval"


@dataclass(frozen=True)
class Row:
    """A line of a model's table: what was tried, what it did, and random neurons or nothing."""

    what: str
    steered: str
    beside: str


@dataclass(frozen=True)
class RealModel:
    """One model's study. `data` is the file's content."""

    data: Mapping[str, Any]

    @staticmethod
    def load(path: str | Path) -> RealModel:
        """Read a file. Raises ClasError for anything else than `clas_core.studies real` wrote."""
        data = read_json(path)
        try:
            if data["format"] != FORMAT:
                raise ValueError
            found = RealModel(data)
            assert found.rows
            assert found.about
            return found
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise ClasError(
                f"{path} holds no study of a real model: take a file that "
                "`python -m clas_core.studies real` wrote."
            ) from error

    @property
    def name(self) -> str:
        """The model's name without its owner."""
        return str(self.data["model"]).rpartition("/")[2]

    @property
    def shown(self) -> int:
        """What the paper's direction did to the likelihood of real text: 1 better by more than
        chance, -1 worse, 0 neither."""
        return int(self._gains(_LIKELIHOOD)["CLAS"]["shown"])

    @property
    def helped(self) -> list[str]:
        """The methods that made real text likelier, by more than chance."""
        return _claimed(self._methods(_LIKELIHOOD))

    @property
    def beyond(self) -> list[str]:
        """Of those the ones that did so beyond each of their own random controls."""
        bits = self._gains(_LIKELIHOOD)
        cells = {name: bits[name].get("beyond") for name in self.helped}
        return [
            name
            for name in _claimed({name: cell for name, cell in cells.items() if cell})
            if all(bits[name]["gain"] < bits[one]["gain"] for one in controls_of(name, bits))
        ]

    @property
    def about(self) -> str:
        """Where the model is from, its licence, weights and size, what it was measured on, and
        when. The weights go by their fingerprint, which tells copies of them apart."""
        data = self.data
        others = len(data["languages"]) - 1
        made = f", {data['made']}" if data["made"] else ""
        licence = f", {data['licence']}" if data["licence"] else ""
        judged = data["sizes"]["judged"]
        return (
            f"{data['model']}{licence}{made}, weights {data['weights']}; "
            f"{data['layers']} layers of {data['neurons']} neurons; "
            f"English and {others} languages, {judged} to {2 * judged} sentences each; "
            f"{data['date']}."
        )

    @property
    def rows(self) -> list[Row]:
        """The table."""
        gains = [self._curve_row(), *self._gain_rows()]
        return [*self._forcing_rows(), *gains, self._apart_row(), self._neuron_row()]

    def _gains(self, task: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.data["gains"][task]
        return found

    def _methods(self, task: str) -> dict[str, Any]:
        return {n: one for n, one in self._gains(task).items() if not n.startswith(CONTROL)}

    def _forcing_rows(self) -> list[Row]:
        found = []
        for told in self.data["forcing"].values():
            mean = told["steered"]["mean"]
            setting = _named(told["setting"])
            controls = [one["mean"]["language"]["share"] for one in told["controls"].values()]
            before = mean["language"]["unsteered"]
            each = ", ".join(
                f"{code} {100 * one['language']:.0f}"
                for code, one in told["steered"]["languages"].items()
            )
            found.append(
                Row(
                    f"English beginnings told on in another language: {setting}",
                    f"{_percent(mean['language'])} in the language ({each}), "
                    f"quality {100 * mean['quality']['share']:.0f} of 100",
                    f"random {100 * max(controls):.0f} %, unsteered {100 * before:.0f} %",
                )
            )
        return found

    def _curve_row(self) -> Row:
        """CLAS both ways, on the sentences that settings were chosen on."""
        tried = [one for one in self.data["tried"] if one["setting"]["method"] == "CLAS"]
        steps = ", ".join(
            f"{signed(-one['estimate'], 3)} at {signed(one['setting']['alpha'])}" for one in tried
        )
        return Row("CLAS both ways, on sentences for choosing", f"{steps} bits a byte", "")

    def _gain_rows(self) -> list[Row]:
        bits, pairs = self._gains(_LIKELIHOOD), self._gains(_RETRIEVAL)
        found = []
        for name, one in self._methods(_LIKELIHOOD).items():
            found.append(
                Row(
                    ("The paper's direction: " if name == "CLAS" else "") + _named(one["setting"]),
                    f"{signed(one['gain'], 3)}{_bounds(one, 3)} bits a byte (less is better); "
                    f"translations found {_points(pairs[name])}",
                    self._beside(name, bits, pairs),
                )
            )
        return found

    def _beside(self, name: str, bits: Mapping[str, Any], pairs: Mapping[str, Any]) -> str:
        """A method's own random controls, and how far it went beyond their mean."""
        past, past_pairs = bits[name].get("beyond"), pairs[name].get("beyond")
        controls = controls_of(name, bits)
        if not (past and past_pairs and controls):
            return ""
        random = _span([bits[one]["gain"] for one in controls], 3)
        random_pairs = _span([100 * pairs[one]["gain"] for one in controls], 1)
        return (
            f"random {random}, beyond it {signed(past['gain'], 3)}{_bounds(past, 3)}; "
            f"translations random {random_pairs}, beyond it {_points(past_pairs)}"
        )

    def _apart_row(self) -> Row:
        rho = next(o["rho"] for o in self.data["apart"] if o["task"] == _LIKELIHOOD)
        estimate = "none" if rho["estimate"] is None else signed(rho["estimate"])
        return Row(
            "Do likelihood gains go with languages drawing apart? Spearman's ρ",
            f"{estimate}{_bounds(rho, 2)}",
            "the paper: yes",
        )

    def _neuron_row(self) -> Row:
        counts = self.data["categories"]["layers"]
        names, total = self.data["categories"]["names"], sum(map(sum, counts))
        shares = {n: 100 * sum(layer[k] for layer in counts) / total for k, n in enumerate(names)}
        own = [layer[names.index("specific")] for layer in counts]
        return Row(
            f"Neurons, active from {100 * self.data['categories']['tau']:g} % of tokens on",
            f"{shares['shared']:.0f} % shared by all, {shares['partial']:.0f} % by some, "
            f"{shares['specific']:.1f} % of one language, {shares['dead']:.0f} % rarely used",
            f"most of one language in layer {1 + own.index(max(own))} of {len(counts)}",
        )


def read_findings(folder: str | Path) -> list[RealModel]:
    """All studies in a folder, by file name. Raises ClasError for a file that is none."""
    return [RealModel.load(path) for path in sorted(Path(folder).glob("*.json"))]


def real_headline(found: Sequence[RealModel]) -> str:
    """Whether the paper's direction helped the likelihood of real text, which methods did, and
    which of them beyond their random controls."""
    count = len(found)
    better, worse = (sum(one.shown == sign for one in found) for sign in (1, -1))
    on = "one real model" if count == 1 else f"{count} real models"
    if worse == count:
        where = "all" if count > 1 else "it"
        said = f"it made real text less likely on {where}, even at its best strength"
    elif not better and not worse:
        said = "even at its best strength it made real text neither likelier nor less likely"
    else:
        said = f"it made real text likelier on {better} of {count}, less likely on {worse}"
    everywhere = [
        name
        for name in found[0].helped
        if all(name in one.helped for one in found) and name != "CLAS"
    ]
    beyond = [name for name in everywhere if all(name in one.beyond for one in found)]
    rest = [name for name in everywhere if name not in beyond]
    where, not_surely = ("all of them", "not on all of them") if count > 1 else ("it", "not surely")
    more = ""
    if beyond:
        more += (
            f" Real text got likelier on {where} by {', '.join(beyond)}, more than under "
            f"{_own(beyond)} random controls (the same numbers on random neurons, a random shift "
            "as long)."
        )
    if rest:
        more += (
            f" {'It' if beyond else 'Real text'} got likelier on {where} by {', '.join(rest)}"
            f"{' too' if beyond else ''}, but {not_surely} more than under {_own(rest)} random "
            "controls."
        )
    return (
        f"The paper's direction (shared neurons up, language-specific ones down) was tried on "
        f"{on} in {len(found[0].data['languages']) - 1} languages: {said}.{more}"
    )


def findings_markdown(found: Sequence[RealModel]) -> str:
    """The headline and a table for each model, for the README; nothing for none."""
    if not found:
        return ""
    parts = [real_headline(found)]
    for one in found:
        lines = [f"| {one.name} | steered | beside |", "|---|---|---|"]
        lines += [f"| {row.what} | {row.steered} | {row.beside} |" for row in one.rows]
        parts += ["\n".join(lines), f"{one.about} `{one.data['command']}`"]
    return "\n\n".join(parts)


def _claimed(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of several methods that did better by more than chance, so many being tried."""
    p = holm([one["p"] for one in cells.values()]) if cells else ()
    return [
        n for (n, one), own in zip(cells.items(), p) if one["shown"] > 0 and own <= SIGNIFICANCE
    ]


def _own(methods: Sequence[str]) -> str:
    return "its" if len(methods) == 1 else "their"


def _points(one: Mapping[str, Any]) -> str:
    """A share's gain in percentage points, with its bounds."""
    scaled = {k: one[k] if one[k] is None else 100 * one[k] for k in ("gain", "low", "high")}
    return f"{signed(scaled['gain'], 1)}{_bounds(scaled, 1)} points"


def _named(setting: Mapping[str, Any]) -> str:
    """A setting in a few words: the method, its strength and where it acts."""
    text = f"{setting['method']} at {signed(setting['alpha']).lstrip('+')}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if setting.get("k"):
        text += f", {setting['k']} neurons"
    if setting.get("layers"):
        first, end = setting["layers"]
        text += f", layers {first + 1} to {end}"
    return text


def _percent(share: Mapping[str, Any]) -> str:
    text = f"{100 * share['share']:.0f} %"
    if share["low"] is None:
        return text
    return f"{text} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def _bounds(one: Mapping[str, Any], digits: int) -> str:
    if one["low"] is None:
        return ""
    return f" [{signed(one['low'], digits)}, {signed(one['high'], digits)}]"


def _span(values: Sequence[float], digits: int) -> str:
    return f"{signed(min(values), digits)} to {signed(max(values), digits)}"
