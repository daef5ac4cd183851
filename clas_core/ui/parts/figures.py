"""Every figure of the app: data in, Plotly figure out, no model inside.

Colours of text, grid and background are left to the page, so that dark mode can set them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from plotly import graph_objects as go
from torch import Tensor

from ...atlas.selection import CATEGORIES, PARTIAL, SHARED, SPECIFIC
from ...evaluation.judging.statistics import Interval
from ...evaluation.telling.labels import as_label
from ...evaluation.telling.numbers import is_share, scaled
from ...text.languages import get_language

CATEGORY_COLOURS = (
    "#A7A7A7",
    "#D55E00",
    "#56B4E9",
    "#0072B2",
)  # Okabe-Ito; rare in grey
CATEGORY_NAMES = ("rarely used", "one language only", "some languages", "shared")
_NEAR = 0.06  # of the map's span: names of languages whose middles are nearer would collide
_MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}


def map_figure(
    before: Tensor,
    after: Tensor,
    labels: Sequence[str],
    groups: Sequence[int],
    texts: Sequence[str],
    english: Sequence[str],
    selected: int | None = None,
) -> go.Figure:
    """Sentences on the map: solid where steering put them, a shadow where they were.

    before, after [n, 2]: coordinates in one frozen layout. labels, groups, texts, english [n]:
    language, number of the parallel sentence, the sentence and its English. `selected`: the group
    whose translations are joined by lines. Trace k < languages holds language k's sentences;
    then follow the shadows, the paths of the centroids, the parallels, their rings, and last the
    languages' names.
    """
    figure = _blank()
    languages = list(dict.fromkeys(labels))
    rows = {code: [i for i, label in enumerate(labels) if label == code] for code in languages}
    for code in languages:
        language, mine = get_language(code), rows[code]
        figure.add_scatter(
            x=_numbers(after[mine, 0]),
            y=_numbers(after[mine, 1]),
            name=as_label(language.native),
            mode="markers",
            marker=_marker(code, 8, 0.85),
            ids=[f"{code}{groups[i]}" for i in mine],
            customdata=[groups[i] for i in mine],
            text=[_hover(texts[i], english[i], code) for i in mine],
            hovertemplate="%{text}<extra></extra>",
        )
    centres = {code: after[rows[code]].mean(0) for code in languages}
    figure.add_scatter(
        x=_numbers(before[:, 0]),
        y=_numbers(before[:, 1]),
        name="before steering",
        mode="markers",
        marker={"size": 5, "opacity": 0.25, "color": [get_language(c).colour for c in labels]},
        hoverinfo="skip",
        showlegend=False,
    )
    start = {code: before[rows[code]].mean(0) for code in languages}
    figure.add_scatter(
        x=[v for c in languages for v in (start[c][0].item(), centres[c][0].item(), None)],
        y=[v for c in languages for v in (start[c][1].item(), centres[c][1].item(), None)],
        name="paths",
        mode="lines",
        line={"width": 1.5, "color": "#7F7F7F", "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    chosen = [i for i, group in enumerate(groups) if group == selected]
    figure.add_scatter(**_parallels(after, chosen, labels))
    figure.add_scatter(
        x=_numbers(after[chosen, 0]),
        y=_numbers(after[chosen, 1]),
        name="rings",
        mode="markers",
        marker={"size": 14, "symbol": "circle-open", "color": "#E69F00", "line": {"width": 2}},
        hoverinfo="skip",
        showlegend=False,
    )
    names = _name_places(after, list(rows.values()))
    apart = _lie_apart(after, list(rows.values()))
    figure.add_scatter(
        x=_numbers(names[:, 0]),
        y=_numbers(names[:, 1]),
        name="names",
        mode="text",
        textposition="middle left",
        text=[
            f"<b>{as_label(get_language(code).native)}</b>" if alone else ""
            for code, alone in zip(languages, apart)
        ],
        hoverinfo="skip",
        showlegend=False,
    )
    # A fixed window, so that the map stands still while points glide over it.
    both = torch.cat([before, after])
    low, high = both.amin(0), both.amax(0)
    edge = 0.07 * (high - low)
    for axis, name in enumerate(("xaxis", "yaxis")):
        window = [round((low - edge)[axis].item(), 3), round((high + edge)[axis].item(), 3)]
        figure.update_layout({name: {"visible": False, "range": window}})
    figure.update_layout(
        margin={**_MARGIN, "t": 48},
        legend={"orientation": "h", "y": 0, "yanchor": "top", "itemsizing": "constant"},
        dragmode="pan",
        hovermode="closest",
    )
    return figure


def map_start(before: Tensor, labels: Sequence[str]) -> list[dict[str, object]]:
    """Where the moving traces of `map_figure` begin: the sentences and the names, unsteered."""
    languages = list(dict.fromkeys(labels))
    rows = [[i for i, label in enumerate(labels) if label == code] for code in languages]
    start: list[dict[str, object]] = [
        {"trace": k, "x": _numbers(before[mine, 0]), "y": _numbers(before[mine, 1])}
        for k, mine in enumerate(rows)
    ]
    places = _name_places(before, rows)
    names = {"trace": len(rows) + 4, "x": _numbers(places[:, 0]), "y": _numbers(places[:, 1])}
    return [*start, names]


def category_bars(counts: Tensor, bridge: tuple[int, int], chosen: int | None = None) -> go.Figure:
    """Stacked bars of counts [layers, 4] of the categories, with the bridge layers shaded.

    Layers are drawn from 1; `bridge` (half-open) and `chosen` count from 0.
    """
    figure = _blank()
    layers = list(range(1, len(counts) + 1))
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    for category in (SHARED, PARTIAL, SPECIFIC, 0):
        figure.add_bar(
            x=layers,
            y=_numbers(100 * shares[:, category]),
            name=CATEGORY_NAMES[category],
            marker={"color": CATEGORY_COLOURS[category], "line": {"width": 0}},
            customdata=counts[:, category].tolist(),
            hovertemplate=f"Layer %{{x}} of {len(counts)}: %{{customdata}} neurons, %{{y:.1f}} %"
            "<extra>%{fullData.name}</extra>",
        )
    figure.add_vrect(
        x0=bridge[0] + 0.5,
        x1=bridge[1] + 0.5,
        fillcolor="#E69F00",
        opacity=0.18,
        line_width=0,
        layer="below",
    )
    figure.add_annotation(
        x=(bridge[0] + bridge[1] + 1) / 2,
        y=1.0,
        yref="paper",
        yanchor="bottom",
        text="bridge",
        showarrow=False,
    )
    if chosen is not None:
        figure.add_annotation(
            x=chosen + 1, y=0, yref="paper", yanchor="top", yshift=-14, text="▲", showarrow=False
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.25,
        showlegend=False,
        margin={**_MARGIN, "t": 26},
    )
    figure.update_xaxes(
        title="layer, from 1",
        dtick=1 if len(layers) <= 16 else None,
        showgrid=False,
        automargin=True,
    )
    figure.update_yaxes(range=[0, 100], ticksuffix=" %", fixedrange=True, automargin=True)
    return figure


def overlap_heatmap(overlap: Tensor, languages: Sequence[str]) -> go.Figure:
    """Jaccard overlap [languages, languages] of the sets of active neurons; a language with itself
    is left out, or the scale would be all its own."""
    names = [as_label(get_language(code).native) for code in languages]
    figure = _blank()
    figure.add_heatmap(
        z=[
            [None if x == y else round(v, 3) for x, v in enumerate(row)]
            for y, row in enumerate(overlap.tolist())
        ],
        x=[as_label(code) for code in languages],
        y=names,
        customdata=[names] * len(names),
        colorscale="Cividis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickformat": ".0%"},
        hovertemplate="%{y} and %{customdata}: %{z:.0%} of active neurons in common<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, dtick=1)
    figure.update_xaxes(tickangle=0, showgrid=False, automargin=True, dtick=1)
    return figure


def layer_mosaic(category: Tensor, chosen: int | None = None) -> go.Figure:
    """One layer's neurons [neurons] as tiles coloured by category, in reading order."""
    count = len(category)
    width = next(w for w in range(1, count + 1) if w * w >= 2 * count)
    height = -(-count // width)
    cells = [category.tolist()[row * width : (row + 1) * width] for row in range(height)]
    steps = [
        [edge / 4, colour]
        for index, colour in enumerate(CATEGORY_COLOURS)
        for edge in (index, index + 1)
    ]
    figure = _blank()
    figure.add_heatmap(
        z=[row + [None] * (width - len(row)) for row in cells],
        customdata=[[row * width + column for column in range(width)] for row in range(height)],
        text=[[CATEGORY_NAMES[value] for value in row] for row in cells],
        zmin=-0.5,
        zmax=3.5,
        colorscale=steps,
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="Neuron %{customdata}: %{text}<extra></extra>",
    )
    if chosen is not None:
        row, column = divmod(chosen, width)
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"width": 3, "color": "#E69F00"},
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure


def _blank() -> go.Figure:
    return go.Figure(layout={"template": "none", "margin": _MARGIN})


def _marker(code: str, size: int, opacity: float) -> dict[str, object]:
    language = get_language(code)
    return {
        "color": language.colour,
        "symbol": language.symbol,
        "size": size,
        "opacity": opacity,
        "line": {"width": 0.6, "color": "rgba(255,255,255,0.8)"},
    }


def _parallels(after: Tensor, chosen: Sequence[int], labels: Sequence[str]) -> dict[str, object]:
    """Lines from the anchor's sentence to each translation."""
    anchor = next((i for i in chosen if labels[i] == "en"), chosen[0] if chosen else 0)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for i in chosen:
        xs += [after[anchor, 0].item(), after[i, 0].item(), None]
        ys += [after[anchor, 1].item(), after[i, 1].item(), None]
    return {
        "x": xs,
        "y": ys,
        "name": "parallels",
        "mode": "lines",
        "line": {"width": 1.5, "color": "#E69F00"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def means_figure(means: Sequence[dict[str, Any]], labels: Sequence[str], name: str) -> go.Figure:
    """A row a task, named by `labels`: the mean gain of the method `name` as a dot with its
    interval, among those of random neurons and of other methods; zero is marked. `means`: as
    `Outcome.means`."""
    figure = _blank()
    rows = [as_label(label) for label in labels]
    metric = means[0]["metric"]
    controls = [(row, one) for row, mean in zip(rows, means) for one in mean["controls"]]
    figure.add_scatter(
        x=[scaled(one.gain.estimate, metric) for _, one in controls],
        y=[row for row, _ in controls],
        name="random neurons",
        mode="markers",
        marker={"size": 11, "color": "#A7A7A7", "line": {"width": 1, "color": "#6f6f6a"}},
        hovertemplate="%{y}<br>%{x:+.2f}<extra>%{fullData.name}</extra>",
    )
    others = [
        (row, as_label(other), scaled(one.gain.estimate, metric), other == _best_other(mean))
        for row, mean in zip(rows, means)
        for other, one in mean["others"].items()
        if not one.identity
    ]
    figure.add_scatter(
        x=[gain for _, _, gain, _ in others],
        y=[row for row, *_ in others],
        customdata=[other for _, other, *_ in others],
        text=[other if best else "" for _, other, _, best in others],
        textposition="middle left",
        name="other methods",
        mode="markers+text",
        marker={"size": 10, "symbol": "diamond-open", "color": "#0072B2", "line": {"width": 2}},
        hovertemplate="%{y}<br>%{x:+.2f}<extra>%{customdata}</extra>",
    )
    steered = [mean["steered"].gain for mean in means]
    known = [gain if gain.is_known else Interval(gain.estimate, *(gain.estimate,) * 2)
             for gain in steered]  # fmt: skip
    figure.add_scatter(
        x=[scaled(gain.estimate, metric) for gain in steered],
        y=rows,
        name=as_label(name),
        mode="markers",
        marker={"size": 15, "color": "#D55E00"},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [scaled(gain.high - gain.estimate, metric) for gain in known],
            "arrayminus": [scaled(gain.estimate - gain.low, metric) for gain in known],
            "thickness": 2.5,
            "color": "#D55E00",
        },
        hovertemplate="%{y}<br>%{x:+.2f}<extra>%{fullData.name}</extra>",
    )
    figure.add_vline(x=0, line_width=2, line_color="#7F7F7F")
    unit = "points" if is_share(metric) else metric
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, hovermode="closest",
        margin={**_MARGIN, "t": 34},
    )  # fmt: skip
    figure.update_xaxes(title=as_label(f"mean gain, {unit}"), zeroline=False, automargin=True)
    figure.update_yaxes(showticklabels=False, range=[len(rows) - 0.6, -0.9], showgrid=False)
    for row in rows:  # above its line, which leaves a phone the whole width
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=row, yshift=16, text=row, showarrow=False
        )
    return figure


def _best_other(mean: dict[str, Any]) -> str | None:
    """The other method that gains most, if that is beyond the interval of the one in question."""
    gains = {name: one.gain.estimate for name, one in mean["others"].items()}
    best = max(gains, key=gains.__getitem__, default=None)
    return best if best and gains[best] > mean["steered"].gain.high else None


def layers_figure(scores: Sequence[tuple[float, float]], at: int, reach: int) -> go.Figure:
    """Two scores over the layers: [layers + 1] pairs of how far languages are split (silhouette)
    and how many translations are found (retrieval). `at`: the layer that is shown. `reach`: the
    first layer whose states steering moves."""
    figure = _blank()
    layers = list(range(len(scores)))
    lines = (("split by language", 0, "#D55E00"), ("mixed by meaning", 1, "#0072B2"))
    for name, place, colour in lines:
        figure.add_scatter(
            x=layers,
            y=[round(pair[place], 3) for pair in scores],
            customdata=layers,
            name=name,
            mode="lines+markers",
            line={"width": 2.5, "color": colour, "dash": "dot" if place == 0 else "solid"},
            marker={"size": 7, "color": colour},
            hovertemplate="Layer %{x}: %{y:.2f}<extra>%{fullData.name}</extra>",
        )
    figure.add_vrect(
        x0=reach - 0.5, x1=len(scores) - 0.5, fillcolor="#E69F00", opacity=0.14, line_width=0,
        layer="below",
    )  # fmt: skip
    figure.add_vline(x=at, line_width=2, line_color="#7F7F7F")
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, hovermode="closest",
        margin={**_MARGIN, "t": 30},
    )  # fmt: skip
    figure.update_xaxes(
        title="layer", dtick=1 if len(layers) <= 16 else None, showgrid=False, automargin=True,
        range=[-0.5, len(layers) - 0.5],
    )  # fmt: skip
    figure.update_yaxes(range=[min(0, *(p[0] for p in scores)) - 0.05, 1], automargin=True)
    return figure


def _name_places(points: Tensor, rows: Sequence[list[int]]) -> Tensor:
    """Where each language's name stands [languages, 2]: above the middle of its sentences."""
    places = [torch.stack([points[mine, 0].mean(), points[mine, 1].quantile(0.9)]) for mine in rows]
    return _spread(torch.stack(places))


def _lie_apart(points: Tensor, rows: Sequence[list[int]]) -> list[bool]:
    """Of each language, whether its sentences lie by themselves: elsewhere a name would cover
    points and tell nothing."""
    span = (points.amax(0) - points.amin(0)).clamp(min=1e-6)
    centres = torch.stack([points[mine].mean(0) for mine in rows]) / span
    away = torch.cdist(centres, centres)
    away.fill_diagonal_(torch.inf)
    widths = torch.stack([(points[mine] / span).std(0, correction=0).norm() for mine in rows])
    return (away.amin(1) > widths.clamp(min=_NEAR)).tolist()


def _spread(centres: Tensor, width: float = 0.16, height: float = 0.055) -> Tensor:
    """Names [n, 2] pushed apart, up and down, where they would lie on each other.

    width, height: of a name, as shares of the span of all.
    """
    low, high = centres.amin(0), centres.amax(0)
    span = (high - low).clamp(min=1e-6)
    places = ((centres - low) / span).tolist()
    for _ in range(60):
        moved = False
        for i, one in enumerate(places):
            for other in places[i + 1 :]:
                overlap = height - abs(one[1] - other[1])
                if abs(one[0] - other[0]) < width and overlap > 1e-4:
                    step = overlap / 2 if one[1] >= other[1] else -overlap / 2
                    one[1], other[1], moved = one[1] + step, other[1] - step, True
        if not moved:
            break
    return torch.tensor(places) * span + low


def _hover(text: str, english: str, code: str) -> str:
    name = get_language(code).name
    lines = [f"<b>{as_label(text)}</b>"] + ([as_label(english)] if code != "en" else [])
    return "<br>".join([*lines, f"<i>{as_label(name)}</i>"])


def _numbers(column: Tensor) -> list[float]:
    return [round(value, 3) for value in column.tolist()]


assert len(CATEGORIES) == len(CATEGORY_NAMES)  # drawn in the order of `neurons.CATEGORIES`
