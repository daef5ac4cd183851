from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from clas_core.evaluation.judging.statistics import Interval
from clas_core.evaluation.telling.labels import as_label
from clas_core.text.languages import get_language
from clas_core.ui.parts import figures

LABELS = ["en"] * 3 + ["sw"] * 3
GROUPS = [0, 1, 2] * 2
BEFORE = torch.arange(12.0).reshape(6, 2)
AFTER = BEFORE + torch.tensor([0.5, -0.5])


def draw(**changes):
    texts = ["a", "b", "<b>c</b>", "x", "y", "z"]
    return figures.map_figure(BEFORE, AFTER, LABELS, GROUPS, texts, texts[:3] * 2, **changes)


def test_map_has_a_trace_a_language_in_its_colour_and_shape():
    english, swahili = draw().data[:2]
    assert (english.name, swahili.name) == ("English", "Kiswahili")
    assert swahili.marker.color == get_language("sw").colour
    assert swahili.marker.symbol == get_language("sw").symbol
    assert list(english.x) == AFTER[:3, 0].tolist()
    assert list(swahili.y) == AFTER[3:, 1].tolist()
    assert list(swahili.customdata) == [0, 1, 2]


def test_map_start_names_traces_of_the_figure():
    figure = draw()
    starts = figures.map_start(BEFORE, LABELS)
    assert [figure.data[item["trace"]].name for item in starts] == [
        "English",
        "Kiswahili",
        "names",
    ]
    assert all(len(item["x"]) == len(figure.data[item["trace"]].x) for item in starts)
    assert starts[1]["x"] == BEFORE[3:, 0].tolist()


def test_hover_shows_the_sentence_with_its_english_as_text():
    english, swahili = draw().data[:2]
    assert english.text[2].startswith("<b>&lt;b&gt;c&lt;/b&gt;</b>")
    assert swahili.text[1] == "<b>y</b><br>b<br><i>Swahili</i>"


def test_the_window_holds_both_ends_of_the_move():
    layout = draw().layout
    both = torch.cat([BEFORE, AFTER])
    for axis, (low, high) in ((0, layout.xaxis.range), (1, layout.yaxis.range)):
        assert low < both[:, axis].min()
        assert high > both[:, axis].max()


def test_parallels_join_the_translations_of_one_sentence():
    lines, rings = draw(selected=1).data[-3:-1]
    assert (lines.name, rings.name) == ("parallels", "rings")
    assert list(rings.x) == AFTER[[1, 4], 0].tolist()
    assert list(lines.x) == [AFTER[1, 0], AFTER[1, 0], None, AFTER[1, 0], AFTER[4, 0], None]
    assert not draw().data[-2].x


def test_names_are_pushed_apart():
    places = figures._spread(torch.tensor([[0.0, 0.0], [0.01, 0.0], [1.0, 1.0]]))
    assert (places[0, 1] - places[1, 1]).abs() >= 0.054
    assert torch.allclose(places[2], torch.tensor([1.0, 1.0]))
    assert torch.isfinite(figures._spread(torch.zeros(3, 2))).all()


def test_bars_show_shares_and_the_bridge():
    figure = figures.category_bars(torch.tensor([[1, 1, 1, 1], [0, 2, 0, 6]]), (1, 2), chosen=0)
    by_name = {bar.name: list(bar.y) for bar in figure.data}
    assert by_name["shared"] == [25.0, 75.0]
    assert by_name["one language only"] == [25.0, 25.0]
    (band,) = figure.layout.shapes
    assert (band.x0, band.x1) == (1.5, 2.5)


def test_bars_of_an_empty_layer_are_zero():
    figure = figures.category_bars(torch.zeros(1, 4, dtype=torch.int64), (0, 1))
    assert all(list(bar.y) == [0.0] for bar in figure.data)


def test_heatmap_is_the_matrix():
    figure = figures.overlap_heatmap(torch.tensor([[1.0, 0.25], [0.25, 1.0]]), ["en", "th"])
    assert [list(row) for row in figure.data[0].z] == [[None, 0.25], [0.25, None]]
    assert list(figure.data[0].x) == ["en", "th"]
    assert list(figure.data[0].y) == ["English", "ไทย"]


def test_mosaic_has_a_tile_a_neuron_and_frames_the_chosen_one():
    category = torch.tensor([0, 1, 2, 3, 3, 2, 1])
    figure = figures.layer_mosaic(category, chosen=5)
    tiles = [v for row in figure.data[0].z for v in row if v is not None]
    assert tiles == category.tolist()
    numbers = [v for row in figure.data[0].customdata for v in row]
    assert numbers[:7] == list(range(7))
    (frame,) = figure.layout.shapes
    width = len(figure.data[0].z[0])
    assert (frame.x0 + 0.5, frame.y0 + 0.5) == (5 % width, 5 // width)


def test_labels_are_text_to_plotly():
    assert as_label('<b>"a" & b</b>') == '&lt;b&gt;"a" &amp; b&lt;/b&gt;'
    names = draw().data[-1].text
    assert names[0] == "<b>English</b>"


def test_names_stand_only_where_a_language_lies_apart():
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [9.0, 9.0], [9.1, 9.0]])
    labels, groups = ["en", "en", "de", "de", "th", "th"], [0, 1] * 3
    figure = figures.map_figure(points, points, labels, groups, ["x"] * 6, ["x"] * 6)
    names = next(trace for trace in figure.data if trace.name == "names")
    assert [bool(text) for text in names.text] == [False, False, True]


def test_layers_are_drawn_with_what_steering_reaches():
    figure = figures.layers_figure([(0.3, 0.1), (0.1, 0.6), (0.2, 0.4)], at=1, reach=2)
    assert [list(trace.y) for trace in figure.data] == [[0.3, 0.1, 0.2], [0.1, 0.6, 0.4]]
    band, line = figure.layout.shapes
    assert (band.x0, band.x1, line.x0) == (1.5, 2.5, 1)


def test_a_gain_is_a_dot_among_those_of_random_neurons():
    def mean(estimate, low, high, identity=False):
        return SimpleNamespace(gain=Interval(estimate, low, high), identity=identity)

    means = [
        {"metric": "accuracy", "steered": mean(0.01, -0.01, 0.03),
         "controls": [mean(0.0, 0, 0), mean(-0.02, 0, 0)],
         "others": {"LAPE": mean(0.0, 0, 0, True), "DiffMean": mean(0.1, 0, 0.2),
                    "IntMu": mean(-0.01, 0, 0)}},
        {"metric": "accuracy", "steered": mean(0.02, math.nan, math.nan), "controls": [],
         "others": {}},
    ]  # fmt: skip
    figure = figures.means_figure(means, ["a task", "another"], "CLAS")
    controls, others, steered = figure.data
    assert list(controls.x) == [0.0, -2.0]
    assert (list(others.x), list(others.text)) == ([10.0, -1.0], ["DiffMean", ""])  # no LAPE
    assert list(others.customdata) == ["DiffMean", "IntMu"]
    assert [note.text for note in figure.layout.annotations] == ["a task", "another"]
    assert list(steered.x) == [1.0, 2.0]
    assert list(steered.error_x.array) == pytest.approx([2.0, 0.0])
    assert any(shape.x0 == shape.x1 == 0 for shape in figure.layout.shapes)
