"""The Model tab: which model and which text the page is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ...atlas.preflight import inspect
from ...errors import ClasError
from ...paths import CantWrite
from ...text.languages import get_language
from ..behind.choice import Choice, parse_model
from ..behind.library import Library
from ..behind.shelf import Job, Shelf
from ..behind.stops import Run
from ..behind.studio import Studio
from ..parts.markup import about, markup, title, warn
from ..parts.reports import corpus_markup, preflight_markup
from ..parts.stoppable import Stoppable

ABOUT = """Everything on this page is about one model, and about sentences in several languages on
which its neurons were measured. Here you choose both. Check says beforehand whether the model can
be steered, how much memory it needs and how well it reads your languages. Measuring runs every
sentence through the model once; what was measured is kept, so that the same choice opens at once
the next time. Then all tabs show the model you chose, to you alone."""
IMPORT = """LAPE's neuron files (a list of neuron numbers for each language and layer) take the part
of the measured language-specific neurons; vectors (a tensor of layers by size for each language)
take that of the means that DiffMean shifts by. They must be of the model that is open now."""
OWN = "own"
TEXTS = {
    "village": "Village stories, 12 languages",
    "everyday": "Everyday sentences, 16 languages",
}
FORMS = "Your own: one .tsv, .csv or .jsonl with all languages, or a file each (en.txt, sw.txt, …)"


@dataclass
class ModelTab:
    """`ready` holds the key of what was opened, or None, after each of the `openings`. Whether the
    page shows it then is for the page to say in `progress`.

    `refresh`: the arguments of the event that lists anew what there is, for the page to call when
    the tab opens.
    """

    ready: gr.State
    progress: gr.HTML
    model: gr.Dropdown
    text: gr.Radio
    languages: gr.Dropdown
    openings: list[Any]
    open_after: Callable[[Any], Any]
    refresh: dict[str, Any]


def build_model(shelf: Shelf, library: Library, key: gr.State) -> ModelTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    first = shelf.first.choice
    about(ABOUT)
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="figure-card", min_width=280, elem_id="choose"):
            before = gr.Dropdown(
                library.choices(), value=None, label="Measured before: opens at once",
                visible=len(library.choices()) > 1, elem_id="before",
            )  # fmt: skip
            model = gr.Dropdown(
                library.models(), value=first.title, label="Model", info=_model_help(shelf),
                allow_custom_value=True, elem_id="model",
            )  # fmt: skip
            text = gr.Radio(
                _texts(shelf), value=first.name, label="Parallel text", elem_id="text",
                info=FORMS if shelf.profile.uploads else None,
            )  # fmt: skip
            files = gr.File(
                file_count="multiple", type="filepath", visible=False, elem_id="files",
                label=f"Your files, up to {shelf.profile.uploads} MB", height=130,
            )  # fmt: skip
            languages = gr.Dropdown(
                _codes(first.corpus.languages), value=[], multiselect=True, label="Languages",
                info="Empty: all of them", elem_id="languages",
            )  # fmt: skip
            with gr.Row(elem_id="open-actions"):
                open_ = gr.Button("Measure and open", variant="primary", elem_id="open")
                cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
                check = gr.Button("Check first", elem_id="check")
            progress = markup(elem_id="progress")
            with gr.Accordion(
                "Use neurons or vectors that others found", open=False, elem_id="import",
                visible=bool(shelf.profile.uploads),
            ):  # fmt: skip
                gr.Markdown(IMPORT, elem_classes="summary")
                published = gr.File(
                    type="filepath", label="Neurons or vectors", height=110, elem_id="published"
                )
                codes = gr.Textbox(
                    label="Languages of a file of neurons, in its order", elem_id="codes",
                    placeholder="en zh fr es vi id ja",
                )  # fmt: skip
                use = gr.Button("Use them with the open model", size="sm", elem_id="use")
        with gr.Column(elem_classes="figure-card", min_width=280, elem_id="report-card"):
            report = markup(_invitation(), elem_id="report")
    ready = gr.State(None)
    asked = [model, text, files, languages]

    def show_text(name: Any, paths: Any) -> tuple[Any, Any, str]:
        """Its languages to choose from, and what there is to say about it."""
        shown = gr.update(visible=name == OWN)
        if name == OWN and not paths:
            return shown, gr.update(choices=[], value=[]), _invitation()
        try:
            found = library.report(name, paths)
        except ClasError as error:
            return shown, gr.update(choices=[], value=[]), sorry(error)
        return shown, gr.update(choices=_codes(found.languages), value=[]), corpus_markup(found)

    gr.on(
        [text.input, files.change], show_text, [text, files], [files, languages, report],
        show_progress="hidden",
    )  # fmt: skip

    def look(name: Any, which: Any, paths: Any, codes: Any) -> Iterator[str]:
        try:
            source, revision = parse_model(name)
            revision = shelf.check(source, revision)
            words = f"Looking at {escape(source)} …"
            yield f'<p class="quiet" role="status">{words}</p>'
            found = library.report(which, paths)
            corpus = library.read(which, paths).subset(codes or None) if found.ok else None
            seen = inspect(source, revision=revision, corpus=corpus)
            yield preflight_markup(seen) + corpus_markup(found, seen.languages)
        except ClasError as error:
            yield sorry(error)

    check.click(
        look, asked, report, show_progress="hidden", concurrency_limit=2, trigger_mode="always_last"
    )

    def open_it(
        run: Run, name: Any, which: Any, paths: Any, codes: Any
    ) -> Iterator[tuple[str, Any]]:
        try:
            yield from wait(run, library.choose(name, which, paths, codes))
        except ClasError as error:
            yield sorry(error), None

    def open_again(run: Run, entry: Any) -> Iterator[tuple[str, Any]]:
        try:
            yield from wait(run, library.choice(entry))
        except ClasError as error:
            yield sorry(error), None

    def wait(run: Run, choice: Choice) -> Iterator[tuple[str, Any]]:
        job = shelf.open(choice)
        try:
            while not job.result.done() and not run.stop.wait(0.3):
                yield _progress(job), None
            if run.stop.is_set():
                yield '<p class="quiet" role="status">Cancelled; nothing was changed.</p>', None
                return
            studio = job.result.result()
        finally:
            shelf.leave(job)
        try:
            library.keep(choice)
        except CantWrite as error:
            warn(f"{error} The text is open all the same, but not kept for another day.")
        yield _progress(job), studio.key

    def use_published(key: Any, path: Any, listed: Any) -> tuple[str, Any]:
        try:
            studio = library.import_published(key, path, listed)
        except ClasError as error:
            return sorry(error), None
        return "", studio.key

    work = Stoppable(open_, cancel)

    def opening(trigger: Callable[..., Any], task: Callable[..., Any], inputs: list[Any]) -> Any:
        limits = {"concurrency_limit": 16, "concurrency_id": "open"}
        return work.on(trigger, task, inputs, [progress, ready], **limits)

    def refresh() -> tuple[Any, Any]:
        known = library.choices()
        return (
            gr.update(choices=known, value=None, visible=len(known) > 1),
            gr.update(choices=library.models()),
        )

    return ModelTab(
        ready,
        progress,
        model,
        text,
        languages,
        [
            opening(open_.click, open_it, asked),
            opening(before.input, open_again, [before]),
            use.click(
                use_published, [key, published, codes], [progress, ready], show_progress="hidden"
            ),
        ],
        lambda event: opening(event.then, open_it, asked),
        {
            "fn": refresh,
            "inputs": None,
            "outputs": [before, model],
            "show_progress": "hidden",
            "queue": False,
        },
    )


def _model_help(shelf: Shelf) -> str:
    if "*" not in shelf.profile.models:
        return "This place has a short list; on your own computer any model will do"
    return (
        "Choose one, paste a Hugging Face id (owner/name@revision), or the path of a directory or "
        "a GGUF file"
    )


def _texts(shelf: Shelf) -> list[tuple[str, str]]:
    own = [("My own files", OWN)] if shelf.profile.uploads else []
    return [*((label, name) for name, label in TEXTS.items()), *own]


def _codes(languages: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{get_language(code).name} ({code})", code) for code in languages]


def _invitation() -> str:
    return title("What to expect") + (
        '<p class="quiet">Check first shows here what the model is, whether it fits this machine '
        "and how it reads each language.</p>"
    )


def sorry(error: ClasError) -> str:
    """Why nothing was opened."""
    return f'<p class="note" role="alert">{escape(str(error))}</p>'


def _progress(job: Job) -> str:
    if not job.total:
        return f'<p class="quiet" role="status">{escape(job.stage)} …</p><progress></progress>'
    left = _duration(job.seconds_left)
    words = f"{job.done} of {job.total} sentences measured{left}"
    return (
        f'<p class="quiet" role="status">{words}</p>'
        f'<progress max="{job.total}" value="{job.done}" aria-label="measured"></progress>'
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f", about {max(1, round(seconds))} s left"
    return f", about {round(seconds / 60)} minutes left"


def opened(studio: Studio) -> str:
    """What is said once all tabs do show it."""
    return f'<p class="quiet" role="status">All tabs show {escape(studio.choice.title)} now.</p>'
