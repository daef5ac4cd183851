"""Text for figures: Plotly reads some tags and entities in every label, name and hover."""

from __future__ import annotations


def as_label(text: str) -> str:
    """`text` so that Plotly shows just these characters.

    Not `html.escape`, as Plotly knows no entity for quotes. For what comes from a file, a model or
    a visitor; a figure's own `<br>` and `<b>` are put round it.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
