"""Texts from two servers, in place of the page's own model."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from stand_in import serving
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind.answered import Answered
from clas_core.ui.behind.kept import Kept
from clas_core.ui.behind.profile import Profile, read_profile
from clas_core.ui.behind.served import Served, of_text
from clas_core.ui.behind.standing import asked_in_words, keys_of
from clas_core.ui.behind.surprise import steering

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Recipe(prompt="Anna sees a boat.", max_new_tokens=12)


@pytest.fixture
def pair():
    with serving("left-alone", "baked") as servers:
        yield servers


@pytest.fixture(scope="module")
def local():
    one = tiny_studio()
    one.stored = None
    return one


@pytest.fixture
def studio(local, pair, monkeypatch):
    monkeypatch.setattr(local, "served", Served.open([server.url for server in pair]))
    monkeypatch.setattr(local, "_answered", Answered(Kept(10**7).share(local)))
    return local


def views(studio, recipe=RECIPE, control=False, stop=None):
    return list(studio.calls(steering, studio, recipe, control, stop=stop))


def texts(view):
    return ["".join(text for text, *_ in pane["spans"]) for pane in view["panes"]]


def test_both_panes_are_the_servers(studio, pair):
    *_, last = views(studio, control=True)  # which servers have none of
    assert last["state"] == "done"
    assert texts(last) == ["the cat sees a boat", "el gato ve un barco"]
    assert [pane["note"] for pane in last["panes"]] == ["left-alone, as it is", "baked, baked"]
    assert all("5 tokens" in pane["badges"] for pane in last["panes"])
    assert last["sentence"].startswith("100% of the text changed")
    assert [server.asked[0][2]["prompt"] for server in pair] == [RECIPE.prompt] * 2


def test_a_text_that_is_cut_says_so(studio):
    *_, last = views(studio, replace(RECIPE, max_new_tokens=3))
    assert all("cut at 3 tokens" in pane["badges"] for pane in last["panes"])


def test_who_counts_no_tokens_is_cut_where_it_was_asked_to(studio, pair):
    def behave(to):
        to.begin()
        to.text("so far", "length")

    pair[0].behave = behave
    one, other = views(studio)[-1]["panes"]
    assert "cut at 12 tokens" in one["badges"]
    assert "5 tokens" in other["badges"]


def test_only_a_drawn_text_is_said_to_be_chance(studio):
    plain, drawn = (views(studio, replace(RECIPE, temperature=t))[-1] for t in (0.0, 0.7))
    assert "chance" not in plain["sentence"]
    assert "chance" in drawn["sentence"]


def test_the_strength_asks_for_nothing_new(studio, pair):
    """Nor does any other setting that was baked: stored are the answers, and not dimmed."""
    views(studio)
    moved = replace(RECIPE, alpha=2.0, method="Silence", layers=(0, 1), target="es")
    assert views(studio, moved)[-1]["state"] == "done"
    assert len(pair[0].asked) == 1
    assert keys_of(studio, moved)["steer"] == keys_of(studio, RECIPE, True)["steer"]
    assert keys_of(studio, moved)["map"] != keys_of(studio, RECIPE)["map"]
    for other in ({"prompt": "x"}, {"temperature": 1.0}, {"seed": 3}, {"max_new_tokens": 3}):
        changed = replace(RECIPE, **other)
        assert keys_of(studio, changed)["steer"] != keys_of(studio, RECIPE)["steer"]
        assert of_text(changed).hash != of_text(RECIPE).hash
    assert asked_in_words(studio, RECIPE) == "left-alone and baked: “Anna sees a boat.”"


def test_a_failure_is_a_sentence_and_another_try_asks_again(studio, pair):
    pair[1].behave = lambda to: to.whole(500, {"error": {"message": "out of memory"}})
    with pytest.raises(ClasError, match=r"The baked model's server failed .*: out of memory"):
        views(studio)
    pair[1].behave = None
    assert views(studio)[-1]["state"] == "done"


def test_stop_keeps_what_is_there(studio, pair):
    pair[1].gate.clear()
    stop, seen = threading.Event(), []
    for view in studio.calls(steering, studio, RECIPE, False, stop=stop):
        seen.append(view)
        if texts(view)[0]:
            stop.set()
    assert seen[-1]["state"] == "stopped"
    assert not any(pane["writing"] for pane in seen[-1]["panes"])
    stop.set()
    assert views(studio, replace(RECIPE, seed=5), stop=stop) == []


def test_a_prompt_is_needed(studio, pair):
    with pytest.raises(ClasError, match="Write a prompt"):
        views(studio, replace(RECIPE, prompt=" ", method="DiffMean"))
    assert not pair[0].asked


def test_too_many_get_a_sentence(studio, monkeypatch):
    monkeypatch.setattr(studio.served, "_room", threading.BoundedSemaphore(1))
    studio.served._room.acquire()
    with pytest.raises(ClasError, match="try again in a moment"):
        views(studio)
    studio.served._room.release()
    assert views(studio)[-1]["state"] == "done"
    assert views(studio, replace(RECIPE, seed=2))[-1]["state"] == "done"


def test_servers_are_checked_at_the_start(pair):
    with pytest.raises(ClasError, match=r"Both endpoints are the same model"):
        Served.open([pair[0].url] * 2)
    pair[1].listing = lambda to: to.whole(503, {"error": {"message": "Loading model"}})
    with pytest.raises(ClasError, match=r"http://127.*/v1: The baked .*: Loading model"):
        Served.open([server.url for server in pair])


def test_the_note_says_what_servers_cannot(studio):
    for word in ("left-alone", "baked", "strength", "control", "the model named at the top"):
        assert word in studio.served.note


def test_a_profile_names_two_or_none(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('endpoints = ["http://a/v1", "http://b/v1"]', "utf-8")
    assert read_profile(str(file)).endpoints == ("http://a/v1", "http://b/v1")
    with pytest.raises(ClasError, match="two addresses"):
        Profile(endpoints=("http://a/v1",))
    with pytest.raises(ClasError, match="no endpoints"):
        Profile(endpoints=("http://a/v1", "http://b/v1"), gpu=True)


@pytest.mark.slow
def test_a_page_without_its_servers_does_not_start():
    away = "http://127.0.0.1:9/v1"
    done = subprocess.run(
        [sys.executable, "app.py", "--endpoints", away, away],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"{away}: The unsteered model's server isn't there")
    assert "Traceback" not in done.stderr
