"""The Measure tab: does steering help this model in these languages, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ..errors import ClasError
from ..evaluation.comparison import MEAN, Difference
from ..evaluation.figures import finding_figure, gains_figure, scaled
from ..evaluation.finding import Finding
from ..evaluation.items import LOWER_IS_BETTER
from ..evaluation.results import main_measures
from ..evaluation.rows import BASELINES, CONTROL
from ..evaluation.tables import LEVEL, cell_text, score_text
from ..evaluation.tasks import KINDS
from ..languages import get_language
from . import inputs
from .components import figure_value, plotly_panel
from .controls import Controls, named
from .shelf import Shelf
from .stops import Stops
from .studio import Studio
from .text import about, markup, title
from .trial import CONTROLS, Asked, Trial

ABOUT = f"""One lucky sentence proves nothing. Here the same questions are put to the model left
alone, steered by the settings at the side, by other published methods, merely asked in words to
use the language, and with the same numbers on {CONTROLS} random choices of neurons.

Every number is a gain over the model left alone on the very same items, in points where the score
is a share. The small print is where 95 % of resampled gains lie. Bold gains would come by chance in
fewer than one of 20 such tables (Holm's correction over the languages). English stands apart: it
is the language that must not lose.

Settings that were chosen on the items they are reported on always look good. So there are two
kinds of items: validation items to try things out on, as often as you like, and test items, used
once, for strengths that were chosen on the others."""

TRY = "Try these settings (validation items)"
CHOOSE = "Choose strengths, then report (validation, then test items)"
FEW = ("en", "sw", "th", "hi", "tr")


@dataclass
class MeasureTab:
    languages: gr.Dropdown

    def renew(self, studio: Studio) -> dict[Any, Any]:
        """Updates for another model."""
        return {self.languages: gr.update(choices=_codes(studio), value=_first(studio))}


def build_measure(shelf: Shelf, controls: Controls, prompt: gr.Textbox) -> MeasureTab:
    studio, key, stops = shelf.first, controls.key, Stops()
    local = "local" in studio.profile.models
    about(ABOUT)
    with gr.Row(elem_classes="two"):
        with gr.Column(min_width=280):
            tasks = gr.CheckboxGroup(
                [(f"{name}: {kind.about}", name) for name, kind in KINDS.items()
                 if kind.needs != "files" or local],
                value=["village-nli", "village-qa"], label="Tasks", elem_id="measure-tasks",
            )  # fmt: skip
            folder = gr.Textbox(
                label="Folder of a benchmark's files", visible=local, max_lines=1,
                info="for xnli, xquad, xcopa and belebele, as published", elem_id="measure-folder",
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
    progress = markup(elem_id="measure-progress")
    found = markup(elem_id="measure-table")
    with gr.Column(visible=False, elem_id="measure-plots") as plots:
        shown = gr.Radio([], label="Show", elem_id="measure-shown")
        gains = plotly_panel(height=360, elem_id="measure-gains")
        finding = plotly_panel(height=360, elem_id="measure-finding")
        rho = markup(elem_id="measure-rho")
        with gr.Row(elem_id="measure-files"):
            buttons = [
                gr.DownloadButton(label, size="sm")
                for label in ("Table as CSV", "Data as JSON", "Table as LaTeX", "Report as HTML")
            ]
    ticket, trial_of = gr.State(""), gr.State(None)
    swap = [start, cancel]

    def begin() -> tuple[Any, Any, str]:
        return gr.update(visible=False), gr.update(visible=True), stops.issue()

    def end() -> tuple[Any, Any]:
        return gr.update(visible=True), gr.update(visible=False)

    def halt(ticket: str) -> tuple[Any, Any]:
        stops.stop(ticket)
        return end()

    def measure(
        ticket: str, names: Any, where: Any, codes: Any, others: Any, count: Any, purpose: Any,
        text: str, key: Any, *values: Any,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        stop = stops.event(ticket)
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            asked = Asked(
                _texts(names), _texts(codes), _texts(others),
                inputs.whole("The number of items", count, (20, 200)), purpose == CHOOSE,
                where if local and isinstance(where, str) else "",
            )  # fmt: skip
            trial = Trial(studio, recipe, asked)
        except ClasError as error:
            stops.drop(ticket)
            yield {progress: _sorry(error)}
            return
        trial.start()
        yield {plots: gr.update(visible=False), found: ""}
        try:
            drawn = 0
            while not trial.finished.wait(0.4):
                if stop.is_set():
                    trial.cancel()
                update: dict[Any, Any] = {progress: _progress(trial)}
                if len(trial.differences) != drawn:
                    drawn = len(trial.differences)
                    update[found] = _tables(list(trial.differences.values()), False)
                yield update
        finally:
            trial.cancel()  # the tab was closed; no harm to one that is done
            stops.drop(ticket)
        if trial.error is not None:
            yield {progress: _sorry(trial.error)}
        elif trial.comparison is None:
            yield {progress: f'<p class="quiet" role="status">{escape(trial.stage)}.</p>'}
        else:
            yield finished(trial)

    def finished(trial: Trial) -> dict[Any, Any]:
        assert trial.comparison is not None
        comparison = trial.comparison
        measures = main_measures(comparison.measures)
        choices = [(f"{task}, {metric}", number) for number, (task, metric) in enumerate(measures)]
        files = {button: gr.update(value=path) for button, path in zip(buttons, trial.files())}
        return {
            progress: _verdict(trial),
            found: _tables(list(comparison.differences), True),
            plots: gr.update(visible=True),
            shown: gr.update(choices=choices, value=0, visible=len(choices) > 1),
            trial_of: (comparison, trial.findings),
            **draw(0, (comparison, trial.findings)),
            **files,
        }

    def draw(number: Any, of: Any) -> dict[Any, Any]:
        if of is None or not isinstance(number, int):
            return {gains: gr.skip()}
        comparison, findings = of
        measure = main_measures(comparison.measures)[number]
        one = next((f for f in findings if (f.task, f.metric) == measure), None)
        return {
            gains: figure_value(
                gains_figure(comparison, *measure), "Gains by language; the table has the numbers."
            ),
            finding: gr.update(visible=False)
            if one is None
            else gr.update(
                value=figure_value(finding_figure(one), "Separation against gain."), visible=True
            ),
            rho: "" if one is None else _rho(one),
        }

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    outputs = [progress, found, plots, shown, trial_of, gains, finding, rho, *buttons]
    start.click(begin, None, [*swap, ticket], **quiet).then(
        measure,
        [ticket, tasks, folder, languages, baselines, items, how, prompt, key, *controls.all],
        outputs, show_progress="hidden", concurrency_limit=8, concurrency_id="measure",
    ).then(end, None, swap, **quiet)  # fmt: skip
    cancel.click(halt, ticket, swap, **quiet)
    shown.input(draw, [shown, trial_of], [gains, finding, rho], show_progress="hidden")
    return MeasureTab(languages)


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


def _verdict(trial: Trial) -> str:
    """What the table says of the first steered row, in a sentence or two."""
    comparison = trial.comparison
    assert comparison is not None
    row = comparison.rows[0]
    sentences = []
    for task, metric in main_measures(comparison.measures):
        cells = [
            d for d in comparison.differences
            if (d.row, d.task, d.metric) == (row, task, metric) and d.language != MEAN
        ]  # fmt: skip
        sure = [d for d in cells if d.p_holm < LEVEL and d.better]
        better = [get_language(d.language).name for d in sure if d.better > 0]
        worse = [get_language(d.language).name for d in sure if d.better < 0]
        parts = [
            f"{word} in {', '.join(names)}"
            for word, names in (("better", better), ("worse", worse))
            if names
        ]
        say = " and ".join(parts) or "no language changed more than chance would"
        won = comparison.control_wins.get((row, task, metric))
        chance = (
            "" if won is None else f"; random controls do better in {won:.0%}, ties counted half"
        )
        sentences.append(f"{task}: {say}{chance}.")
    kind = "test" if trial.asked.choose else "validation"
    text = f"{escape(row)} on {kind} items. {escape(' '.join(sentences))}"
    return f'<p class="verdict" role="status">{text}</p>'


def _rho(finding: Finding) -> str:
    gain, retrieval = finding.gain, finding.retrieval
    if gain.estimate != gain.estimate:
        return '<p class="quiet">Nothing moved or nothing gained: no correlation to speak of.</p>'

    def said(value: Any) -> str:
        numbers = (value.estimate, value.low, value.high)
        estimate, low, high = (f"{number:+.2f}".replace("-", "−") for number in numbers)
        return f"{estimate} (95 % between {low} and {high})"

    text = (
        f"Spearman's ρ between separation and gain: {said(gain)}; between separation and "
        f"translations found: {said(retrieval)}. The paper reports gains that go with separation."
    )
    return f'<p class="quiet">{text}</p>'


def _tables(differences: list[Difference], whole: bool) -> str:
    measures = main_measures((d.task, d.metric) for d in differences)
    return "".join(_table(differences, *measure, whole) for measure in measures)


def _table(differences: list[Difference], task: str, metric: str, whole: bool) -> str:
    cells = {(d.row, d.language): d for d in differences if (d.task, d.metric) == (task, metric)}
    rows = list(dict.fromkeys(row for row, _ in cells))
    order = {"en": 2, MEAN: 1}
    codes = sorted(dict.fromkeys(code for _, code in cells), key=lambda c: order.get(c, 0))
    names = ["mean" if code == MEAN else get_language(code).name for code in codes]
    head = "".join(
        f'<th scope="col"{_apart(code)}>{escape(name)}</th>' for code, name in zip(codes, names)
    )
    before = "".join(
        f"<td{_apart(code)}>{score_text(cells.get((rows[0], code)))}</td>" for code in codes
    )
    body = "".join(
        f'<tr class="{"control" if row.startswith(CONTROL) else ""}">'
        f'<th scope="row">{escape(row)}</th>'
        + "".join(_cell(cells.get((row, code)), code) for code in codes)
        + "</tr>"
        for row in rows
    )
    count = next(iter(cells.values())).items
    unit = "" if metric in LOWER_IS_BETTER else ", in points"
    least = [
        d.detectable for (row, code), d in cells.items()
        if row == rows[0] and code not in (MEAN, "en") and d.detectable == d.detectable
    ]  # fmt: skip
    note = ""
    if whole and least:
        smallest = scaled(sorted(least)[len(least) // 2], metric)
        note = (
            f'<p class="quiet">So many items show a gain of {smallest:.1f} or more with 80 % '
            "certainty in the middle language; smaller ones would go unseen.</p>"
        )
    return (
        title(f"{task}: {metric}", f"gains over the model left alone{unit}, {count} items")
        + '<div class="wide"><table class="gains"><thead><tr><th></th>'
        + f'{head}</tr></thead><tbody><tr class="before"><th scope="row">left alone</th>{before}'
        + f"</tr>{body}</tbody></table></div>{note}"
    )


def _cell(cell: Difference | None, code: str) -> str:
    if cell is None:
        return f"<td{_apart(code)}>…</td>"
    low, high = (scaled(x, cell.metric) for x in (cell.gain.low, cell.gain.high))
    sure = cell.p_holm < LEVEL
    size = min(1.0, abs(scaled(cell.better, cell.metric)) / 10)
    side = "gain" if cell.better > 0 else "loss"
    style = f' style="--size: {size:.2f}"' if cell.better else ""
    classes = f"{side if cell.better else ''} {'sure' if sure else ''}".strip()
    span = f"{low:+.1f} to {high:+.1f}".replace("-", "−")
    text = cell_text(cell).replace("-", "−")
    return f'<td class="{classes}"{_apart(code, True)}{style}>{text}<small>{span}</small></td>'


def _apart(code: str, has_class: bool = False) -> str:
    if code != "en":
        return ""
    return ' data-apart="yes"' if has_class else ' class="apart"'
