from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from gradio.utils import diff
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_tokenizer, tiny_model
from tiny_studio import examples, made_up_corpus, tiny_studio

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.running.layout import Layout
from clas_core.running.request import Request
from clas_core.running.separation import separation_of
from clas_core.running.states import hidden_states
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind import mapper
from clas_core.ui.behind import studio as studio_module
from clas_core.ui.behind.choice import Choice
from clas_core.ui.behind.firing import peaks
from clas_core.ui.behind.inputs import METHODS
from clas_core.ui.behind.kept import nbytes_of
from clas_core.ui.behind.profile import Profile
from clas_core.ui.behind.studio import Studio, steering_only
from clas_core.ui.parts.components import result_value
from clas_core.ui.parts.markup import in_language, title
from clas_core.ui.tabs import map, neurons


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


def recipe(studio, **changes):
    return studio.recipe({**studio.defaults(), "prompt": "Anna sees a boat.", **changes})


def last_view(studio, made, control=False):
    *_, view = studio.steer(made, control, threading.Event())
    return view


def text_of(pane):
    return "".join(text for text, *_ in pane["spans"])


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_both_panes_and_what_steering_did(studio):
    view = last_view(studio, recipe(studio, strength=1.5))
    assert [pane["kind"] for pane in view["panes"]] == ["unsteered", "steered"]
    assert view["state"] == "done"
    assert view["measured"].endswith("nats.")
    assert "nats" not in view["sentence"]
    assert len(view["strip"]["kl"]) == len(view["strip"]["tokens"]) == 40
    assert json.dumps(view)


def test_off_means_equal_panes_also_when_sampling(studio):
    view = last_view(studio, recipe(studio, strength=0, temperature=1.0), control=True)
    texts = {text_of(pane) for pane in view["panes"]}
    assert len(texts) == 1
    assert not any(differs for pane in view["panes"] for _, differs, _ in pane["spans"])
    assert max(view["strip"]["kl"]) == 0


def test_the_control_is_a_third_pane(studio):
    view = last_view(studio, recipe(studio, strength=2, gamma=0), control=True)
    assert [pane["kind"] for pane in view["panes"]] == ["unsteered", "steered", "control"]
    assert any(name.startswith("Mean shift") for name, _, _ in view["facts"])


def test_every_frame_is_a_beginning_of_the_final_text(studio):
    """As Gradio sends it: the first frame whole, then what changed."""
    made = recipe(studio, strength=2, temperature=1)
    shown, frames = None, []
    for view in studio.steer(made, True, threading.Event()):
        value = result_value(view)
        if shown is None:
            shown = value
        else:
            for action, path, change in diff(shown, value):
                assert path == []  # one string has no places within it to get wrong
                shown = shown + change if action == "append" else change
        assert shown == value
        frames.append([text_of(pane) for pane in json.loads(shown)["panes"]])
    assert len(frames) > 2
    for frame in frames:
        assert all(last.startswith(text) for text, last in zip(frame, frames[-1]))


def test_stop_ends_at_the_next_token_and_still_measures(studio):
    stop = threading.Event()
    views_ = studio.steer(recipe(studio), False, stop)
    next(views_)
    next(views_)
    stop.set()
    view = list(views_)[-1]
    assert view["state"] == "stopped"
    assert view["sentence"]
    assert len(view["strip"]["kl"]) < 5


def test_stop_before_the_start_generates_nothing(studio):
    stop = threading.Event()
    stop.set()
    assert list(studio.steer(recipe(studio), False, stop)) == []


def test_a_closed_tab_leaves_nothing_behind(studio):
    views_ = studio.steer(recipe(studio), False, threading.Event())
    next(views_)
    next(views_)
    assert studio.gate._answers == 1
    views_.close()
    assert studio.gate._answers == 0
    wait_until(lambda: studio.decoder.rows == 0)


def together(studio, made):
    """The last views of these recipes, asked for at once by as many visitors."""
    with ThreadPoolExecutor(len(made)) as visitors:
        return list(visitors.map(partial(last_view, studio), made))


def test_what_is_asked_together_is_what_is_answered_alone(studio):
    prompts = [text for code in ("en", "sw", "hi", "th") for text in examples(code)]
    made = [
        recipe(studio, prompt=text, strength=2 - k / 8, seed=k, temperature=0.7 * (k % 2))
        for k, text in enumerate(prompts)
    ]
    alone = [last_view(studio, one) for one in made[::4]]
    found = together(tiny_studio(), made)
    for view, wanted in zip(found[::4], alone):
        assert [text_of(pane) for pane in view["panes"]] == [
            text_of(pane) for pane in wanted["panes"]
        ]
        assert view["panes"][0].get("asked") == wanted["panes"][0].get("asked")
        assert view["strip"]["kl"] == pytest.approx(wanted["strip"]["kl"], abs=1e-4)
        assert view["parting"]["after"] == wanted["parting"]["after"]


def test_what_was_asked_before_is_answered_at_once(monkeypatch):
    """By anyone, whole, and without the model; what is asked otherwise isn't."""
    studio = tiny_studio()
    made = recipe(studio, temperature=1.0, seed=3)
    first = last_view(studio, made)
    monkeypatch.setattr(studio.decoder, "submit", None)
    again = recipe(studio, temperature=1.0, seed=3)
    assert list(studio.steer(again, False, threading.Event())) == [json.loads(json.dumps(first))]
    others = {"seed": 4}, {"temperature": 0.5}, {"strength": 0.6}, {"length": 7}, {"prompt": "A b."}
    for change in others:
        with pytest.raises(TypeError):
            last_view(studio, recipe(studio, **{"temperature": 1.0, "seed": 3, **change}))
    with pytest.raises(TypeError):
        last_view(studio, made, control=True)


def test_an_answer_s_end_stops_nothing_else(studio):
    """What comes behind it may have the same event."""
    stop = threading.Event()
    list(studio.steer(recipe(studio, seed=21), False, stop))
    gc.collect()
    assert not stop.is_set()


def test_a_stopped_answer_is_not_kept_for_others(studio):
    made = recipe(studio, prompt="The dog sees the moon.", seed=11)
    stop = threading.Event()
    views_ = studio.steer(made, False, stop)
    next(views_)
    next(views_)
    stop.set()
    assert list(views_)[-1]["state"] == "stopped"
    assert last_view(studio, made)["state"] == "done"


def test_kept_answers_stay_within_their_bytes():
    studio = tiny_studio(Profile(cache_mb=0))
    for seed in range(3):
        last_view(studio, recipe(studio, temperature=1.0, seed=seed))
    assert studio.kept.nbytes == nbytes_of([value for value, _ in studio.kept._entries.values()])
    assert len(studio.kept._entries) == 1


def test_who_waits_is_told_for_how_long_and_who_comes_too_late_gets_a_sentence(monkeypatch):
    monkeypatch.setattr(studio_module, "ROWS", 6)
    monkeypatch.setattr(studio_module, "PATIENCE", 0.01)
    studio = tiny_studio(Profile(queue=2))
    plans = [studio.plan(recipe(studio, strength=k)) for k in (0.5, 1, 1.5)]
    others = [studio.decoder.submit(Request("Anna", plans, 200), name) for name in ("one", "two")]
    for other in others:
        next(other)
    made = recipe(studio, seed=5)
    views_ = studio.steer(made, False, threading.Event(), owner="me")
    next(views_)
    told = next(views_)["sentence"]
    assert re.fullmatch(r"(You are next|\d+ requests? before yours), about \d+ s\.", told)
    others.append(studio.decoder.submit(Request("Anna", plans, 200), "three"))
    with pytest.raises(ClasError, match="requests are waiting, which takes about"):
        list(studio.steer(recipe(studio, seed=6), False, threading.Event(), owner="late"))
    for other in others:
        other.stop()
    assert list(views_)[-1]["state"] == "done"


@pytest.mark.parametrize("prompt", ["", "  ", "a" * 2001, "word " * 300])
def test_bad_prompts_get_a_sentence_and_the_page_goes_on(studio, prompt):
    with pytest.raises(ClasError):
        list(studio.steer(recipe(studio, prompt=prompt), False, threading.Event()))
    assert last_view(studio, recipe(studio))["state"] == "done"


def test_equal_steering_is_one_plan(studio):
    plan = studio.plan(recipe(studio))
    assert studio.plan(recipe(studio, prompt="القط يرى القمر", seed=3, temperature=1)) is plan
    assert studio.plan(recipe(studio, strength=0.55)) is not plan
    assert steering_only(recipe(studio, seed=4), "sw") == steering_only(recipe(studio), "sw")


def test_the_controls_permutation_follows_the_seed(studio):
    one = studio.plan(recipe(studio, gamma=0, seed=0), True)
    two = studio.plan(recipe(studio, gamma=0, seed=1), True)
    assert not torch.equal(one.layers[2].scale, two.layers[2].scale)


@pytest.mark.slow
def test_map_scores_are_of_the_full_space(studio):
    plan = studio.plan(recipe(studio, strength=2, beta=3, gamma=0))
    result = studio.mapper.compute(plan, 3)
    for steering, score in ((None, result.scores[0]), (plan, result.scores[1])):
        states = hidden_states(studio.lm, studio.mapper.corpus, steering)
        expected = separation_of(states.at(3), states.labels, states.groups, "en")
        assert math.isclose(score.silhouette, expected.silhouette, abs_tol=1e-5)
        assert score.retrieval == pytest.approx(expected.retrieval, abs=1e-5)
    again = studio.mapper.compute(plan, 3)
    assert again is result


@pytest.mark.slow
def test_the_layout_is_frozen(studio):
    maps = [studio.mapper.compute(studio.plan(recipe(studio, strength=s)), 3) for s in (0, 1, 2)]
    assert torch.equal(maps[0].before, maps[0].after)
    assert torch.equal(maps[0].before, maps[1].before)
    assert torch.equal(maps[1].before, maps[2].before)


@pytest.mark.slow
def test_layers_below_the_bridge_do_not_move(studio):
    result = studio.mapper.compute(studio.plan(recipe(studio, strength=2, beta=3)), 1)
    assert torch.equal(result.before, result.after)
    assert result.scores[0] == result.scores[1]


def test_umap_waits_for_the_first_map_of_which_there_is_a_sketch_first(monkeypatch):
    """A page of which nobody asks a map does without its quarter of a gigabyte."""
    warmed, go_on = [], threading.Event()
    monkeypatch.setattr(mapper, "compile_loops", lambda: None)
    monkeypatch.setattr(Layout, "warm", lambda: (go_on.wait(30), warmed.append(1)))
    monkeypatch.setattr(Layout, "fit", lambda points: Layout(points[:, :2], points))
    studio = tiny_studio()
    studio.warm_up().join(timeout=30)
    assert studio.mapper.begun
    assert studio.mapper.ready.is_set()
    assert not warmed
    plan = studio.plan(recipe(studio))
    result = studio.mapper.compute(plan, 3, patient=False)
    assert result.provisional
    go_on.set()
    assert studio.mapper.ready.wait(30)
    monkeypatch.setattr(Layout, "place", lambda layout, points: points[:, :2])
    for _ in range(2):
        assert not studio.mapper.compute(plan, 3, patient=False).provisional
    assert warmed == [1]
    assert result.before.shape == (len(studio.mapper.labels), 2)


def test_loops_are_compiled_once_by_a_process_that_ends(monkeypatch):
    started = []

    class Process:
        def __init__(self, command, **_):
            started.append(command)
            self.left = 2

        def poll(self):
            self.left -= 1
            return None if self.left else 0

        kill = wait = lambda self: None

    monkeypatch.setattr(mapper, "_compiled", threading.Event())
    monkeypatch.setattr(mapper.subprocess, "Popen", Process)
    for _ in range(2):
        mapper.compile_loops()
    ((_, _, code),) = started
    assert code.endswith("Layout.warm()")


@pytest.mark.slow
@pytest.mark.parametrize(("true", "drawn", "said"), [(0.1, -0.1, True), (0.1, 0.1, False)])
def test_a_note_where_picture_and_scores_disagree(studio, true, drawn, said):
    result = studio.mapper.compute(studio.plan(recipe(studio, strength=0)), 3)
    moved = dataclasses.replace(result.scores[0], silhouette=result.scores[0].silhouette + true)
    changed = dataclasses.replace(result, scores=(result.scores[0], moved), picture=(0.0, drawn))
    assert ("Trust the scores" in changed.note) == said


@pytest.mark.slow
def test_the_table_of_scores_has_before_after_and_change(studio):
    result = studio.mapper.compute(studio.plan(recipe(studio, strength=0)), 3)
    html = map._scores(*result.scores, "English")
    assert html.count("<tr>") == 5
    assert '<span class="">0</span>' in html


def test_neurons_follow_the_thresholds(studio):
    neurons.views(studio, recipe(studio), 1, 0)
    shown = neurons.views(studio, recipe(studio, tau=0.37, shared_from=5), 1, 0)
    bars = json.loads(shown[0])["data"]
    rare = next(bar for bar in bars if bar["name"] == "rarely used")
    counts = studio.selection(recipe(studio, tau=0.37, shared_from=5)).counts()
    assert rare["customdata"] == counts[:, 0].tolist()


@pytest.mark.slow
def test_a_very_wide_layer_is_shown_in_parts():
    """Experts have neurons by the ten thousand; the tiles are those about the chosen one."""
    lm = load(tiny_model("qwen2_moe", moe_intermediate_size=5000), make_tokenizer())
    corpus = made_up_corpus().subset(("en", "sw"), 2)
    wide = Studio(lm, Choice("owner/wide", None, "x", corpus), Atlas.measure(lm, corpus))
    shown = neurons.views(wide, recipe(wide), 2, 17_000)
    tiles = json.loads(shown[2])["data"][0]
    numbers = [number for row in tiles["customdata"] for number in row]
    kinds = [kind for row in tiles["z"] for kind in row if kind is not None]
    assert min(numbers) == 16_384
    assert kinds == wide.selection(recipe(wide)).category[1, 16_384:].tolist()
    assert "here 16384 to 20023" in shown[3]
    assert "neuron 17000, of expert 3" in shown[4]


@pytest.mark.parametrize("bad", [math.nan, None, "x"])
def test_neuron_numbers_are_checked(studio, bad):
    with pytest.raises(ClasError, match="must be a whole number"):
        neurons._chosen(studio, 1, bad)


def test_a_layer_or_neuron_that_is_not_there_is_said_to_be_another(studio):
    assert neurons._chosen(studio, 2, 5) == (2, 5, "")
    assert neurons._chosen(studio, 99, -1) == (
        3,
        0,
        "Layer 1 to 3 are there: this is 3. Neuron 0 to 63 are there: this is 0.",
    )


def test_texts_are_escaped(studio):
    assert "<script>" not in title("<script>") + in_language("<script>", "ar")
    assert 'dir="rtl"' in in_language("a", "ar")


def test_links_come_back_as_settings(studio):
    made = recipe(studio, strength=1.25, tau=0.3, method="DiffMean", language="ar")
    values = studio.values_of(Recipe.from_query(made.to_query()))
    assert studio.recipe(values) == made
    for query in ("alpha=nan", "method=Magic", "nonsense=1", "target=xx"):
        with pytest.raises(ClasError):
            studio.values_of(Recipe.from_query(query))


def test_a_source_is_shown_where_it_is_the_methods_own(studio):
    """English by name, and by default; or a language that this method makes no use of."""
    for query in ("method=LAPE&source=en", "method=DiffMean&source=eng_Latn", "source=en"):
        wanted = Recipe.from_query(query)
        made = studio.recipe(studio.values_of(wanted))
        assert made.steering == dataclasses.replace(wanted, layers=made.layers).steering
    for query in ("method=LAPE&source=es", "method=LanguageArithmetic&source=en"):
        wanted = Recipe.from_query(query)
        assert studio.recipe(studio.values_of(wanted)).source == wanted.source
    with pytest.raises(ClasError, match="away from must be one of"):
        studio.values_of(Recipe.from_query("method=LAPE&source=fi"))


FLOAT = st.floats(-10, 10)
LINKS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["auto", "float32"]),
        "method": st.sampled_from(list(METHODS)) | st.just("RandomControl"),
        "alpha": FLOAT,
        "beta": FLOAT,
        "gamma": FLOAT,
        "lam": st.just(1.0) | FLOAT,
        "source": st.sampled_from([None, "en", "es"]),
        "tau": st.floats(0, 1),
        "tau_mode": st.sampled_from(["absolute", "quantile"]),
        "shared_from": st.none() | st.integers(2, 20),
        "specific": st.sampled_from(["any", "target", "others"]),
        "layers": st.none() | st.tuples(st.integers(0, 2), st.integers(3, 4)),
        "target": st.sampled_from(["en", "sw", "ja"]),
        "prompt": st.text(st.characters(codec="utf-8")) | st.just("a" * 2001),
        "chat": st.sampled_from(["auto", "on", "off"]),
        "temperature": st.floats(0, 10),
        "max_new_tokens": st.integers(1, 300),
        "seed": st.integers(0, 2**40),
    },
)
IN_WORDS = {  # what the page calls a field of a recipe
    "alpha": "Strength",
    "beta": "Beta",
    "gamma": "Gamma",
    "tau": "activation threshold",
    "shared_from": "Shared from",
    "layers": "bridge layer",
    "method": "The method",
    "target": "The language",
    "max_new_tokens": "Length",
    "temperature": "Temperature",
    "seed": "The seed",
}


@settings(max_examples=300)
@given(LINKS)
def test_the_page_shows_a_link_as_it_is_or_names_the_field_it_cannot_show(studio, fields):
    wanted = Recipe(**fields)
    try:
        shown = studio.recipe(studio.values_of(Recipe.from_query(wanted.to_query())))
    except ClasError as error:
        said = str(error)
        names = [name for name in fields if name in said or IN_WORDS.get(name, "?") in said]
        assert names
        plain = {name: value for name, value in fields.items() if name not in names}
        assert plain != fields
    else:
        for name, value in fields.items():
            if name == "source":  # None stands for the method's own
                assert _steered_from(shown) == _steered_from(wanted)
            else:
                assert value is None or value == getattr(shown, name) or name == "chat"
        assert studio.render(shown) if shown.prompt.strip() else True


def _steered_from(recipe):
    return getattr(recipe.steering, "source", None)


@pytest.mark.parametrize(
    ("query", "own"), [("alpha=1", True), ("model=other", False), ("corpus=everyday", False)]
)
def test_a_recipe_is_of_one_model_and_text(studio, query, own):
    assert studio.is_of(Recipe.from_query(query)) == own


def test_every_method_says_what_it_does(studio):
    for method in METHODS:
        made = recipe(studio, method=method)
        assert studio.summary(made).endswith(".")
        assert f" of {studio.num_layers}" in studio.summary(made)  # layers count from 1
        studio.plan(made)


@pytest.mark.slow
def test_a_bad_start_is_one_sentence():
    app = Path(__file__).resolve().parents[2] / "app.py"
    done = subprocess.run(
        [sys.executable, str(app), "--profile", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("There is no profile 'nowhere'")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_page_that_is_stopped_leaves_no_files(tmp_path, stop):
    """By Ctrl+C, or as a container is."""
    app = Path(__file__).resolve().parents[2] / "app.py"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch), "CLAS_CACHE": str(tmp_path / "cache")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-u", str(app), "--port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as page:
        assert any("http://" in line for line in page.stdout)
        assert [*scratch.glob("clas-*")]
        page.send_signal(stop)
        _, said = page.communicate(timeout=60)
    assert [*scratch.glob("clas-*")] == []
    assert page.returncode in (0, 130)  # at rest, or on its way there
    assert "Traceback" not in said


@pytest.mark.slow
def test_work_behind_the_page_ends_with_it():
    """A thread that the interpreter's end tears out of a forward aborts the process."""
    code = """
import threading, torch
from clas_core.ui.behind.gate import Gate
from clas_core.ui.behind.threads import run_behind
layer, gate, begun = torch.nn.Linear(2000, 2000), Gate(), threading.Event()
def work():
    while True:
        layer(torch.ones(500, 2000, requires_grad=True))
        begun.set()
        gate.give_way()
run_behind("work", work)
begun.wait()
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_stored_layouts_are_used_where_they_fit(studio, tmp_path, monkeypatch):
    studio.mapper.save_layouts(tmp_path)
    monkeypatch.setattr(mapper, "LAYOUTS", tmp_path)
    points = studio.mapper.layout(3).points
    assert torch.equal(mapper._stored(3, points).points, points)
    assert mapper._stored(3, points + 1) is None
    assert mapper._stored(99, points) is None


def test_sentences_that_fire_a_neuron_most_are_those_with_its_highest_value(studio):
    """Against one text at a time."""
    layer, neuron = 1, 5
    found = studio.most_fired(layer, neuron)
    texts = studio.mapper.texts
    alone = [peaks(studio.lm, [text], layer)[0, neuron].item() for text in texts]
    assert [one.value for one in found] == pytest.approx(sorted(alone, reverse=True)[:5], abs=1e-4)
    assert all(alone[texts.index(one.text)] == pytest.approx(one.value, abs=1e-4) for one in found)
    assert one_token(studio, layer, neuron) == pytest.approx(alone[0], abs=1e-4)


def one_token(studio, layer: int, neuron: int) -> float:
    """The neuron's highest value in the first sentence, read with a hook of our own."""
    seen = []
    mlp = studio.lm.model.model.layers[layer].mlp.down_proj
    hook = mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = studio.lm.encode([studio.mapper.texts[0]])
    with torch.inference_mode():
        studio.lm.model(**batch.inputs)
    hook.remove()
    return seen[0][0, batch.content[0].bool(), neuron].max().item()
