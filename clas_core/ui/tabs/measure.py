"""The Measure tab: does steering help this model in these languages, and how sure is that?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...evaluation.judging.conditions import BASELINES, CONTROL_IS
from ...evaluation.tasks import KINDS
from ...evaluation.telling.figures import (
    finding_figure,
    gains_figure,
    sweep_caption,
    sweep_heatmap,
)
from ...evaluation.telling.real import read_findings
from ...evaluation.telling.verdict import headline
from ...model.prompts import is_chat_model
from ...paths import CantWrite
from ...steering.recipe import Recipe
from ...text.languages import get_language
from ..behind import inputs
from ..behind.downloads import Downloads
from ..behind.outcome import Outcome
from ..behind.shelf import Shelf
from ..behind.standing import keys_of, standing, words_of
from ..behind.stops import Run
from ..behind.studio import Studio
from ..behind.trial import CONTROLS, Asked, Trial
from ..parts.components import figure_value, plotly_panel, stamp, stamp_value
from ..parts.controls import Controls, named
from ..parts.figures import means_figure
from ..parts.findings import FINDINGS, findings_markup
from ..parts.gains import rho_markup, summary_markup, tables, verdict_markup
from ..parts.markup import about, markup, title
from ..parts.stoppable import Stoppable

ABOUT = f"""One lucky sentence proves nothing. Here the same questions are put to the model left
alone, steered by the settings at the side, by other published methods, merely asked in words to
use the language, and under {CONTROLS} random controls ({CONTROL_IS}).

Every number is a gain over the model left alone on the very same items, in points where the score
is a share. The small print is where the true gain lies with 95 % certainty; fewer than six texts
have none. Under settings without any effect, a language would turn bold in fewer than one of 20
tables (Holm's correction over the languages); the mean and English, which stands apart as the
language that must not lose, are tested on their own.

Settings that were chosen on the items they are reported on always look good. So there are two
kinds of items: validation items to try things out on, as often as you like, and test items for
settings that were chosen on the others. Look at these once: who chooses by them has none left."""

TRY = "Try these settings (validation items)"
CHOOSE = "Choose strength and layers, then report (validation, then test items)"
FEW = ("en", "sw", "th", "hi", "tr")
Updates = dict[Any, Any]


@dataclass
class MeasureTab:
    """`take` asks for the setting that was chosen, which `outcome` holds."""

    languages: gr.Dropdown
    tasks: gr.CheckboxGroup
    outcome: gr.State
    take: gr.Button
    results: _Results
    finding: _Finding

    def renew(self, studio: Studio) -> Updates:
        """Updates for another model."""
        return {
            self.languages: gr.update(choices=_codes(studio), value=_first(studio)),
            self.tasks: gr.update(value=_ticked(studio)),
            **self.results.show(studio.measured),
            **self.finding.show(studio.measured),
            self.results.stamp: _opening_stamp(studio),
        }


def chosen_setting(outcome: Outcome | None) -> Recipe | None:
    """What the sweep of a measurement suggests, if it had one."""
    if outcome is None or outcome.ranking is None:
        return None
    return outcome.ranking.tried[outcome.ranking.suggested].recipe


def steering_of(recipe: Recipe) -> dict[str, Any]:
    """The fields of a chosen setting that steer, without those that it leaves open."""
    names = ("method", "alpha", "beta", "gamma", "tau", "specific", "layers", "shared_from")
    values = {name: getattr(recipe, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def build_measure(shelf: Shelf, controls: Controls, prompt: gr.Textbox) -> MeasureTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    studio, key = shelf.first, controls.key
    local = "local" in studio.profile.models
    finding = _Finding(studio.measured)
    village = headline(studio.measured.comparison) if studio.measured else ""
    markup(findings_markup(read_findings(FINDINGS), village), elem_id="real-findings")
    about(ABOUT)
    markup('<h3 class="section-title">Measure it yourself</h3>')
    with gr.Row(elem_classes="two"):
        with gr.Column(min_width=280):
            tasks = gr.CheckboxGroup(
                [(f"{name}: {kind.about}", name) for name, kind in KINDS.items()
                 if kind.needs != "files" or local],
                value=_ticked(studio), label="Tasks", elem_id="measure-tasks",
            )  # fmt: skip
            folder = gr.Textbox(
                label="Folder of a benchmark's files", visible=local, max_lines=1,
                info="for xnli, xquad, xcopa and belebele, as published", elem_id="measure-folder",
            )  # fmt: skip
            shots = gr.Slider(
                0, 5, 0, step=1, label="Solved examples before a benchmark's items", visible=local,
                info="They show what an answer looks like; in a chat they are turns before it",
                elem_id="measure-shots",
            )  # fmt: skip
        with gr.Column(min_width=280):
            languages = gr.Dropdown(
                _codes(studio), value=_first(studio), multiselect=True, label="Languages",
                elem_id="measure-languages",
            )  # fmt: skip
            baselines = gr.CheckboxGroup(
                [(inputs.METHODS[name][0], name) for name in BASELINES],
                value=["IntMu", "DiffMean"], label="Beside the method at the side",
                elem_id="measure-baselines",
            )  # fmt: skip
            items = gr.Slider(
                20, 200, 60, step=20, label="Items of each task and language",
                info="More items show smaller gains, and take longer", elem_id="measure-items",
            )  # fmt: skip
            how = gr.Radio([TRY, CHOOSE], value=TRY, label="What for", elem_id="measure-how")
    with gr.Row(elem_id="measure-actions"):
        start = gr.Button("Measure", variant="primary", elem_id="measure")
        cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="measure-cancel")
    downloads = Downloads(studio.profile.disk_mb * 10**6, studio.measured)
    gr.set_static_paths([downloads.folder])  # else Gradio deletes its copies after a day
    results = _Results(studio.measured, _opening_stamp(studio), downloads)

    def measure(
        run: Run, names: Any, where: Any, few: Any, codes: Any, others: Any, count: Any,
        purpose: Any, text: str, key: Any, *values: Any,
    ) -> Iterator[Updates]:  # fmt: skip
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            asked = Asked(
                _texts(names), _texts(codes), _texts(others),
                inputs.whole("The number of items", count, (20, 200)), purpose == CHOOSE,
                where if local and isinstance(where, str) else "",
                inputs.whole("The number of solved examples", few, (0, 5)),
            )  # fmt: skip
            trial = Trial(studio, recipe, asked)
        except ClasError as error:
            yield {results.progress: _sorry(error)}
            return
        trial.start()
        made_for = [keys_of(studio, recipe)["measure"]]
        yield {
            results.plots: gr.update(visible=False),
            results.table: "",
            results.stamp: stamp_value(standing(*made_for, words=_for(studio, recipe))),
        }
        try:
            drawn = 0
            while not trial.finished.wait(0.4):
                if run.stop.is_set():
                    trial.cancel()
                update: Updates = {results.progress: _progress(trial)}
                if len(trial.differences) != drawn:
                    drawn = len(trial.differences)
                    update[results.table] = tables(list(trial.differences.values()), False)
                yield update
        finally:
            trial.cancel()  # the tab was closed; no harm to one that is done
        if trial.error is not None:
            yield {results.progress: _sorry(trial.error)}
        elif trial.outcome is None:
            said = f'<p class="quiet" role="status">{escape(trial.stage)}.</p>'
            yield {results.progress: said}
        else:
            chosen = chosen_setting(trial.outcome)
            if chosen is not None:  # what was asked for gave this, and it holds for this
                recipe = dataclasses.replace(recipe, **steering_of(chosen))
                made_for.append(keys_of(studio, recipe)["measure"])
            said = stamp_value(standing(*made_for, words=_for(studio, recipe)))
            shown = {**results.show(trial.outcome), **finding.show(trial.outcome)}
            yield {**shown, results.stamp: said}

    Stoppable(start, cancel).on(
        start.click, measure,
        [tasks, folder, shots, languages, baselines, items, how, prompt, key, *controls.all],
        [*results.all, *finding.all], concurrency_limit=8, concurrency_id="measure",
    )  # fmt: skip
    return MeasureTab(languages, tasks, results.outcome, results.take, results, finding)


class _Finding:
    """What was found, before anything else: a sentence and a picture. It says what it is of, so
    that it holds whatever is set now."""

    def __init__(self, measured: Outcome | None) -> None:
        with gr.Column(elem_id="finding", visible=measured is not None) as self.box:
            self.summary = markup(elem_id="finding-summary")
            with gr.Column(elem_classes="figure-card"):
                self.dots = plotly_panel(height=230, elem_id="finding-dots")
        self.summary.value, self.dots.value = _found(measured)

    @property
    def all(self) -> list[Any]:
        return [self.box, self.summary, self.dots]

    def show(self, outcome: Outcome | None) -> Updates:
        """Updates that show `outcome`, or nothing."""
        summary, dots = _found(outcome)
        visible = gr.update(visible=outcome is not None)
        return {self.box: visible, self.summary: summary, self.dots: dots}


def _found(outcome: Outcome | None) -> tuple[str, str | None]:
    if outcome is None:
        return "", None
    name, means = outcome.comparison.conditions[0], outcome.means
    if not means:
        return summary_markup(outcome), None
    labels = [KINDS[mean["task"].partition(",")[0]].about for mean in means]
    drawn = means_figure(means, labels, name)
    return summary_markup(outcome), figure_value(drawn, f"Mean gain of {name} and random neurons.")


def _ticked(studio: Studio) -> list[str]:
    """The tasks that the open model can do: the village's for who was brought up there, else those
    on the text that it was measured on. A model that chats answers, and doesn't go on."""
    if studio.choice.model == "village":
        return ["village-nli", "village-qa"]
    left_out = ("forcing", "from-nothing") if is_chat_model(studio.lm) else ()
    return [name for name, kind in KINDS.items() if kind.needs == "corpus" and name not in left_out]


class _Results:
    """Where a measurement is shown: sentences, tables, plots, files."""

    def __init__(
        self, measured: Outcome | None, made_for: str | None, downloads: Downloads
    ) -> None:
        """`measured`: what to open with, which is `made_for` some settings."""
        self._downloads = downloads
        self.outcome = gr.State(measured)
        self.stamp = stamp("measure", "Something else is set now: press Measure.", made_for)
        with gr.Column(elem_id="measure-results"):
            self._build(measured, downloads)
        first = _values(measured, 0)
        self.gains.value, self.finding.value = first[0], first[1]
        self.heat.value = _heat(measured)
        self.shown.input(
            lambda number, outcome: _values(outcome, number),
            [self.shown, self.outcome],
            [self.gains, self.finding, self.rho],
            show_progress="hidden",
        )

    def _build(self, measured: Outcome | None, downloads: Downloads) -> None:
        known = measured is not None
        self.progress = markup(
            verdict_markup(measured) if measured else "", elem_id="measure-progress"
        )
        self.table = markup(_tables(measured), elem_id="measure-table")
        with gr.Column(visible=known, elem_id="measure-plots") as self.plots:
            self.shown = gr.Radio(
                _choices(measured), value=0, label="Show", visible=len(_choices(measured)) > 1,
                elem_id="measure-shown",
            )  # fmt: skip
            with gr.Column(elem_classes="figure-card"):
                markup(
                    title(
                        "Gains by language",
                        "with the range that holds the true gain with 95 % certainty",
                    )
                )
                self.gains = plotly_panel(height=360, elem_id="measure-gains")
            with gr.Column(elem_classes="figure-card"):
                below = "each dot a language under a method"
                markup(title("Do gains go with languages drawing apart?", below))
                self.finding = plotly_panel(height=340, elem_id="measure-finding")
                self.rho = markup(_values(measured, 0)[2], elem_id="measure-rho")
            with gr.Column(elem_classes="figure-card", visible=_swept(measured)) as self.sweep:
                self.swept = markup(_swept_title(measured))
                self.heat = plotly_panel(height=280, elem_id="measure-heat")
                self.take = gr.Button("Use the suggested setting", size="sm")
            with gr.Row(elem_id="measure-files"):
                paths = downloads.of(measured) if measured else [None] * 4
                labels = ("Table as CSV", "Data as JSON", "Table as LaTeX", "Report as HTML")
                self.buttons = [
                    gr.DownloadButton(label, value=path, size="sm")
                    for label, path in zip(labels, paths)
                ]

    @property
    def all(self) -> list[Any]:
        return [
            *(self.outcome, self.progress, self.table, self.plots, self.shown, self.gains),
            *(self.finding, self.rho, self.sweep, self.swept, self.heat, self.stamp),
            *self.buttons,
        ]

    def show(self, outcome: Outcome | None) -> Updates:
        """Updates that show `outcome`, or nothing."""
        choices = _choices(outcome)
        gains, finding, rho = _values(outcome, 0)
        said = verdict_markup(outcome) if outcome else ""
        paths: list[str | None] = [None] * len(self.buttons)
        try:
            if outcome is not None:
                paths = [*self._downloads.of(outcome)]
        except CantWrite as error:
            said += _sorry(error)
        return {
            self.outcome: outcome,
            self.progress: said,
            self.table: _tables(outcome),
            self.plots: gr.update(visible=outcome is not None),
            self.shown: gr.update(choices=choices, value=0, visible=len(choices) > 1),
            self.gains: gains,
            self.finding: finding,
            self.rho: rho,
            self.sweep: gr.update(visible=_swept(outcome)),
            self.swept: _swept_title(outcome),
            self.heat: _heat(outcome),
            **{button: gr.update(value=path) for button, path in zip(self.buttons, paths)},
        }


def _opening_stamp(studio: Studio) -> str | None:
    """What the stored measurement is for: the settings that the page opens with."""
    if studio.measured is None:
        return None
    best = studio.values_of_steering(studio.suggested or studio.opening)
    recipe = studio.recipe({**studio.defaults(), **best, "language": inputs.AUTO, "prompt": ""})
    return stamp_value(standing(keys_of(studio, recipe)["measure"], words=_for(studio, recipe)))


def _for(studio: Studio, recipe: Recipe) -> str:
    return f"For {words_of(studio, recipe)}."


def _values(outcome: Outcome | None, number: Any) -> tuple[Any, Any, str]:
    """Of one task the figure of gains, that of the finding, and what it says."""
    if outcome is None or not isinstance(number, int) or number >= len(outcome.measures):
        return None, None, ""
    task, metric = outcome.measures[number]
    gains = figure_value(
        gains_figure(outcome.comparison, task, metric), "Gains; the table has the numbers."
    )
    found = outcome.finding(task, metric)
    if found is None:
        return gains, None, '<p class="quiet">Too few languages or methods to tell.</p>'
    drawn = figure_value(finding_figure(found), "Change of separation against gain.")
    return gains, drawn, rho_markup(found)


def _heat(outcome: Outcome | None) -> Any:
    if outcome is None or outcome.ranking is None:
        return None
    figure = sweep_heatmap(outcome.ranking, outcome.num_layers)
    best = outcome.ranking.tried[outcome.ranking.suggested]
    return figure_value(figure, f"Gain by strength and layers. Suggested: {best.name}.")


def _swept_title(outcome: Outcome | None) -> str:
    if outcome is None or outcome.ranking is None:
        return ""
    below = (
        f"{sweep_caption(outcome.ranking)}. Mean gain on validation items, in log p(true answer) "
        "where a task has one; orange: the suggested setting, grey: the best"
    )
    return title("How strength and layers were chosen", below)


def _swept(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.ranking is not None


def _tables(outcome: Outcome | None) -> str:
    return tables(list(outcome.comparison.differences), True) if outcome else ""


def _choices(outcome: Outcome | None) -> list[tuple[str, int]]:
    measures = outcome.measures if outcome else []
    return [(f"{task}, {metric}", number) for number, (task, metric) in enumerate(measures)]


def _codes(studio: Studio) -> list[tuple[str, str]]:
    return [(f"{get_language(code).name} ({code})", code) for code in studio.codes]


def _first(studio: Studio) -> list[str]:
    few = [code for code in FEW if code in studio.codes]
    return few if len(few) > 1 else list(studio.codes[:5])


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value for value in values or () if isinstance(value, str))


def _sorry(error: ClasError) -> str:
    return f'<p class="note" role="alert">{escape(str(error))}</p>'


def _progress(trial: Trial) -> str:
    stage, left = escape(trial.stage), trial.seconds_left
    if not trial.total:
        return f'<p class="quiet" role="status">{stage} …</p><progress></progress>'
    soon = "" if left is None else f", about {max(1, round(left))} s left"
    if left is not None and left > 90:
        soon = f", about {round(left / 60)} minutes left"
    return (
        f'<p class="quiet" role="status">{stage}: {trial.done} of {trial.total}{soon}</p>'
        f'<progress max="{trial.total}" value="{trial.done}" aria-label="measured"></progress>'
    )
