"""Small pieces of text and tables. Everything that is put in is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from ...text.languages import get_language


def about(text: str) -> gr.HTML:
    """The *What am I looking at?* of a tab; a blank line in `text` parts paragraphs."""
    return markup(about_markup(text))


def about_markup(text: str) -> str:
    """A folded explanation; empty lines in `text` part its paragraphs."""
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    body = "".join(f"<p>{escape(part)}</p>" for part in parts if part)
    return f'<details class="about"><summary>What am I looking at?</summary>{body}</details>'


def markup(value: str = "", **options: Any) -> gr.HTML:
    """Markup of our own making, in our own style."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **options)


def warn(error: object, head: str = "Warning") -> None:
    """A notice in the corner, which Gradio would read as markup."""
    gr.Warning(escape(str(error)), title=head)


def line(text: object, kind: str = "") -> str:
    """A paragraph of one sentence, of the style sheet's class `kind`."""
    return f'<p class="{kind}">{escape(str(text))}</p>'


def title(text: str, below: str = "") -> str:
    """A heading of a figure, with a line in small `below` it."""
    more = f"<p>{escape(below)}</p>" if below else ""
    return f'<div class="figure-title"><h3>{escape(text)}</h3>{more}</div>'


def in_language(text: str, code: str, tag: str = "div") -> str:
    """`text` marked up with its language and direction."""
    direction = "rtl" if get_language(code).rtl else "ltr"
    return f'<{tag} lang="{escape(code)}" dir="{direction}">{escape(text)}</{tag}>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are markup already; the first of each row is its heading."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<table class="plain"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
