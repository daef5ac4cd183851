"""The figures of a measurement: data in, Plotly figure out, no model inside.

Colours of text, grid and background are left to the page, so that dark mode can set them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

from plotly import graph_objects as go

from ...steering.methods import bridge_layers
from ...text.languages import OKABE_ITO, get_language
from ..judging.comparison import Comparison, Difference
from ..judging.conditions import CONTROL
from ..judging.finding import Finding
from ..judging.items import LOWER_IS_BETTER
from ..judging.statistics import Interval
from ..judging.sweep import Ranking, Tried
from .labels import as_label
from .numbers import bounds, is_share, name_of, number, scaled

_MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}
_GREY = "#A7A7A7"


def gains_figure(comparison: Comparison, task: str, metric: str) -> go.Figure:
    """Each condition's gain in each language, with its interval; random controls in grey, open
    circles where the plan changes nothing."""
    figure = _blank()
    grid = comparison.grid(task, metric).rename(columns=lambda code: as_label(name_of(code)))
    colours = iter(OKABE_ITO * len(grid))
    controls = [name for name in grid.index if name.startswith(CONTROL)]
    for condition, row in grid.iterrows():
        cells = row.dropna()
        control = condition in controls
        figure.add_scatter(
            x=list(cells.index),
            y=[scaled(cell.gain.estimate, metric) for cell in cells],
            error_y=_error([cell.gain for cell in cells], metric),
            name=CONTROL.strip() if control else as_label(_name(condition, cells)),
            legendgroup=CONTROL.strip() if control else condition,
            showlegend=condition not in controls[1:],
            mode="markers",
            marker={
                "size": 6 if control else 9,
                "color": _GREY if control else next(colours),
                "symbol": ["circle-open" if cell.identity else "circle" for cell in cells],
            },
            text=[describe(cell) for cell in cells],
            hovertemplate="%{text}<extra>%{fullData.name}, %{x}</extra>",
        )
    figure.add_hline(y=0, line={"width": 1, "color": _GREY})
    figure.update_layout(
        scattermode="group", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    )
    figure.update_yaxes(title=as_label(f"gain in {metric}{_unit(metric)}"), automargin=True)
    figure.update_xaxes(categoryorder="array", categoryarray=list(grid.columns), automargin=True)
    return figure


def sweep_caption(sweep: Ranking) -> str:
    """How many of the settings that were tried `sweep_heatmap` draws, and which."""
    tried, drawn = len(sweep.tried), len(sweep.drawn)
    if drawn == tried:
        return f"All {tried} settings that were tried"
    return (
        f"{drawn} of the {tried} settings that were tried: those that differ from the suggested "
        "one in strength and layers alone"
    )


def sweep_heatmap(sweep: Ranking, num_layers: int) -> go.Figure:
    """Gain by strength and layers, all else as in the suggested setting; settings not tried are
    blank."""
    shown = sweep.drawn
    strengths = sorted({one.recipe.alpha for one in shown})
    layers = sorted({_layers(one, num_layers) for one in shown})
    found = {(_layers(one, num_layers), one.recipe.alpha): one for one in shown}
    cells = [[found.get((where, alpha)) for alpha in strengths] for where in layers]
    # Weak settings differ little and strong ones break down: these are all as dark.
    sizes = sorted(abs(one.gain.estimate) for one in shown)
    most = sizes[len(sizes) // 2] or sizes[-1] or 1.0
    figure = _blank()
    figure.add_heatmap(
        x=[f"{alpha:g}" for alpha in strengths],
        y=[f"{first + 1} to {end}" if end - first > 1 else str(end) for first, end in layers],
        z=[[None if one is None else one.gain.estimate for one in row] for row in cells],
        text=[["" if one is None else _interval(one.gain) for one in row] for row in cells],
        texttemplate="%{text}",
        hovertemplate="strength %{x}, layers %{y}: %{text}<extra></extra>",
        colorscale="RdBu",
        zmid=0,
        zmin=-most,
        zmax=most,
        xgap=2,
        ygap=2,
        colorbar={"thickness": 10, "outlinewidth": 0, "title": "gain"},
    )
    for place, colour in ((sweep.best, _GREY), (sweep.suggested, "#E69F00")):
        one = sweep.tried[place]
        if one in shown:
            column = strengths.index(one.recipe.alpha)
            line = layers.index(_layers(one, num_layers))
            figure.add_shape(
                type="rect",
                x0=column - 0.5,
                x1=column + 0.5,
                y0=line - 0.5,
                y1=line + 0.5,
                line={"width": 3, "color": colour},
            )
    figure.update_xaxes(title="strength alpha", type="category", showgrid=False, automargin=True)
    figure.update_yaxes(title="layers, from 1", type="category", showgrid=False, automargin=True)
    return figure


def finding_figure(finding: Finding) -> go.Figure:
    """Change of separation against gain, a point a language and setting."""
    gains = [scaled(point.gain, finding.metric) for point in finding.points]
    # Turned so that more is better, whatever the metric.
    title = f"gain in {as_label(finding.metric)}{' (points)' if is_share(finding.metric) else ''}"
    return _shifts_figure(finding, gains, title, finding.gain)


def retrieval_figure(finding: Finding) -> go.Figure:
    """Change of separation against change of retrieval: apart with its meaning, or without?"""
    changes = [100 * point.retrieval for point in finding.points]
    title = "change of retrieval (points)"
    return _shifts_figure(finding, changes, title, finding.retrieval)


def describe(cell: Difference) -> str:
    """A difference in one line."""
    if cell.identity:
        return f"the plan changes nothing, {cell.items} items"
    gain = cell.gain

    def write(value: float) -> str:
        return number(scaled(value, cell.metric), cell.metric)

    return (
        f"{write(cell.before)} to {write(cell.after)}: {write(gain.estimate)} "
        f"{bounds(gain, write)}, p {cell.p_holm:.3f}, {cell.items} items"
    )


def _name(condition: str, cells: Iterable[Difference]) -> str:
    return f"{condition} (changes nothing)" if all(c.identity for c in cells) else condition


def _shifts_figure(
    finding: Finding, heights: Sequence[float], title: str, rho: Interval
) -> go.Figure:
    figure = _blank()
    for code in dict.fromkeys(point.language for point in finding.points):
        language = get_language(code)
        mine = [(p, y) for p, y in zip(finding.points, heights) if p.language == code]
        figure.add_scatter(
            x=[point.separation for point, _ in mine],
            y=[height for _, height in mine],
            name=as_label(language.name),
            mode="markers+text",
            text=[as_label(code)] * len(mine),
            textposition="top center",
            customdata=[as_label(point.condition) for point, _ in mine],
            hovertemplate="%{customdata}: %{x:+.4f}, %{y:+.2f}<extra>%{fullData.name}</extra>",
            marker={"size": 8, "color": language.colour, "symbol": language.symbol},
        )
    figure.add_hline(y=0, line={"width": 1, "color": _GREY})
    figure.add_vline(x=0, line={"width": 1, "color": _GREY})
    figure.add_annotation(
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        text="nothing moved or nothing changed: no correlation"
        if isnan(rho.estimate)
        else f"Spearman's rho {rho.estimate:+.2f} {bounds(rho, '{:+.2f}'.format)}",
    )
    figure.update_layout(showlegend=False, margin={**_MARGIN, "t": 28})
    figure.update_xaxes(title="change of separation (silhouette)", automargin=True)
    figure.update_yaxes(title=title, automargin=True)
    return figure


def _blank() -> go.Figure:
    return go.Figure(layout={"template": "none", "margin": _MARGIN})


def _layers(one: Tried, num_layers: int) -> tuple[int, int]:
    return one.recipe.layers or bridge_layers(num_layers)


def _interval(gain: Interval) -> str:
    return f"{gain.estimate:+.3f}<br>{bounds(gain, '{:+.3f}'.format)}"


def _error(gains: Sequence[Interval], metric: str) -> dict[str, object]:
    """Error bars; none where there is no interval."""
    above = [scaled(g.high - g.estimate, metric) if g.is_known else None for g in gains]
    below = [scaled(g.estimate - g.low, metric) if g.is_known else None for g in gains]
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1,
        "width": 0,
    }


def _unit(metric: str) -> str:
    if metric in LOWER_IS_BETTER:
        return " (less is better)"
    return " (points)" if is_share(metric) else ""
