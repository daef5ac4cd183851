"""Marks on a strength: seen from, best, breaks from."""

import json

import pytest

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation import marks as module
from clas_core.evaluation.judging.items import StartItem, Written
from clas_core.evaluation.marks import (
    GOALS,
    VILLAGE_BASE,
    Marks,
    Point,
    candidates,
    find_marks,
    goal_recipe,
    marks_of,
    marks_path,
    opening,
    usual_languages,
    usual_strengths,
)
from clas_core.model.loading import load
from clas_core.paths import ASSETS
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus

FEW = {"prompts": 2, "strengths": (0.5, 4.0), "languages": ["sw"]}


def curve(*rows, goal="write"):
    """(alpha, differs, reached, broken, score, control, control reached) a strength."""
    return Marks(goal, {}, ("sw",), 6, tuple(Point(*row) for row in ((0,) * 7, *rows)))


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


def test_marks_are_read_off_the_curve():
    found = curve(
        (0.1, 0.4, 0.1, 0, 0.1, 0, 0),
        (0.2, 0.6, 0.5, 0, 0.5, 0, 0),
        (0.5, 1, 0.9, 0.1, 0.8, 0, 0),
        (1, 1, 0.3, 0.6, 0.2, 0, 0),
        (2, 1, 0, 1, 0, 0, 0),
    )
    assert (found.seen, found.best, found.breaks) == (0.2, 0.5, 1)
    assert found.sentence == "Seen from strength 0.2, best at 0.5, breaks from 1."


def test_the_best_is_whole():
    """A strength that breaks is never the best, whatever it scores."""
    found = curve((0.5, 1, 0.2, 0.1, 0.22, 0, 0), (0.75, 1, 0.3, 0.55, 0.25, 0, 0))
    assert (found.best, found.breaks, found.opening) == (0.5, 0.75, 0.5)
    assert found.top == 0.22


def test_where_a_page_opens():
    seen_later = curve((0.5, 0.1, 0, 0, 0.2, 0, 0), (1, 1, 0, 0, 0.1, 0, 0))
    assert (seen_later.best, seen_later.seen, seen_later.opening) == (0.5, 1, 1)
    only_seen = curve((0.5, 1, 0, 0, 0, 0, 0), (1, 1, 0, 1, 0, 0, 0))
    assert (only_seen.best, only_seen.opening) == (None, 0.5)
    assert curve((0.5, 1, 0, 1, 0, 0, 0)).opening is None
    assert curve((0.5, 0, 0, 0, 0, 0, 0)).opening is None


def test_settings_to_open_with():
    """The method that was marked, on what it leaves open, at the strength to open with."""
    method = {"method": "DiffMean", "layers": [1, 2], "source": "en"}
    found = Marks("write", method, ("sw",), 6, curve((0.1, 1, 1, 0, 1, 0, 0)).points)
    recipe = found.recipe(Recipe(seed=7))
    assert (recipe.method, recipe.layers, recipe.alpha, recipe.seed) == ("DiffMean", (1, 2), 0.1, 7)
    assert Marks("write", method, ("sw",), 6, curve().points).recipe().alpha == 0


def test_nothing_to_see_is_a_result():
    found = curve((0.5, 0.4, 0, 0, 0, 0, 0), (3, 0.49, 0.1, 0.1, 0, 0, 0))
    assert (found.seen, found.best, found.breaks) == (None, None, None)
    assert found.sentence == "Nothing can be seen at any strength up to 3."


def test_the_language_may_show_before_most_texts_differ():
    assert curve((0.1, 0.4, 0.3, 0, 0.3, 0, 0.1)).seen == 0.1
    assert curve((0.1, 0.4, 0.3, 0, 0.3, 0, 0.2)).seen is None


def test_random_neurons_that_do_as_well_leave_no_best():
    found = curve((0.5, 1, 0.5, 0, 0.5, 0.5, 0.5))
    assert found.best is None
    assert "no better than random neurons" in found.sentence


def test_texts_that_were_broken_before_do_not_break():
    worse = Point(0.5, 1, 0, 0.7, 0, 0, 0)
    before = Point(0, 0, 0, 0.6, 0, 0, 0)
    assert Marks("write", {}, ("sw",), 6, (before, worse)).breaks is None
    worst = Point(1, 1, 0, 0.9, 0, 0, 0)
    assert Marks("write", {}, ("sw",), 6, (before, worse, worst)).breaks == 1


def test_they_come_back_from_json():
    found = curve((0.1, 0.4, 0.3, 0, 0.3, 0, 0.1))
    data = json.loads(json.dumps(found.as_dict()))
    assert Marks.from_dict(data) == found
    assert (data["seen"], data["best"], data["breaks"]) == (0.1, 0.1, None)
    for broken in ({}, {**data, "format": "x"}, {**data, "points": [{"alpha": 1}]}):
        with pytest.raises(ClasError, match="no marks"):
            Marks.from_dict(broken)


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_has_a_curve(goal, tiny_lm, tiny_corpus, atlas):
    """The unsteered model first, where nothing differs; all numbers are shares, or bits."""
    seen = []
    recipe = goal_recipe(goal, Recipe(tau=0.3, shared_from=2, layers=(0, 3)))
    found = find_marks(
        tiny_lm, atlas, tiny_corpus, goal, recipe, **FEW, progress=lambda *at: seen.append(at)
    )
    first, *rest = found.points
    assert [one.alpha for one in found.points] == [0, 0.5, 4]
    assert first.differs == 0
    assert first.control == first.score
    assert seen[-1] == (2, 2)
    assert all(0 <= x <= 1 for p in found.points for x in (p.differs, p.broken, p.reached))
    if goal in ("silence", "help"):
        assert first.score == first.reached == 0
        assert any(one.score for one in rest) or goal == "silence"  # no neuron is a language's
    assert found.sentence


def test_a_method_that_does_nothing_shows_nothing(tiny_lm, tiny_corpus, atlas):
    recipe = Recipe(method="CLAS", beta=1.0, gamma=1.0)
    for goal in ("help", "silence"):
        found = find_marks(tiny_lm, atlas, tiny_corpus, goal, recipe, **FEW)
        assert (found.seen, found.best, found.breaks) == (None, None, None)


def test_likelihood_and_loops_break(tiny_lm, tiny_corpus, atlas):
    trial = module._Trial(tiny_lm, atlas, tiny_corpus, "write", Recipe(), "sw", 1)
    item = StartItem("0", "0", "The cat", (), 9, before="Mvua.", real="0123456789")
    good = Written("paka analala nyumbani", -10.0, -10.0)
    salad = Written("paka na ni ya kwa", -1000.0, -10.0)
    loop = Written("paka paka paka paka paka", -1.0, -10.0)
    assert trial._broken([item] * 4, [good, salad, loop, Written("")]) == 0.75


def test_it_can_be_cancelled(tiny_lm, tiny_corpus, atlas):
    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find_marks(tiny_lm, atlas, tiny_corpus, "write", Recipe(), **FEW, progress=stop)


def test_they_are_kept_beside_the_atlases(tiny_lm, tiny_corpus, atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROMPTS", 1)
    recipe = Recipe(method="DiffMean", layers=(1, 2))
    path = marks_path(atlas, "write", recipe, tmp_path)
    assert path.parent == tmp_path / "marks"
    # Strength and target aren't the method's; all else, goal and atlas are.
    assert path == marks_path(
        atlas, "write", Recipe(method="DiffMean", layers=(1, 2), alpha=3, target="hi"), tmp_path
    )
    others = [
        marks_path(atlas, "help", recipe, tmp_path),
        marks_path(atlas, "write", Recipe(method="DiffMean", layers=(0, 2)), tmp_path),
    ]
    assert path not in others
    calls = []

    def find(*arguments, **options):
        calls.append(arguments)
        return curve((0.1, 1, 1, 0, 1, 0, 0))

    monkeypatch.setattr(module, "find_marks", find)
    for _ in range(2):
        found = marks_of(tiny_lm, atlas, tiny_corpus, "write", recipe, folder=tmp_path)
        assert found == curve((0.1, 1, 1, 0, 1, 0, 0))
    assert len(calls) == 1
    path.write_text("{", "utf-8")  # damaged: found again
    marks_of(tiny_lm, atlas, tiny_corpus, "write", recipe, folder=tmp_path)
    assert len(calls) == 2


def test_what_cannot_be_is_refused(tiny_lm, tiny_corpus, atlas):
    with pytest.raises(ClasError, match="no goal 'fly'; there are forget"):
        goal_recipe("fly")
    for wrong in ({"prompts": 0}, {"strengths": (-1.0, 1.0)}):
        with pytest.raises(ClasError, match="need a prompt"):
            find_marks(tiny_lm, atlas, tiny_corpus, "write", Recipe(), **{**FEW, **wrong})


def test_usual_strengths_and_languages(tiny_corpus, atlas):
    assert max(usual_strengths("DiffMean")) == 1
    assert max(usual_strengths("CLAS")) == 3
    assert usual_languages(atlas, tiny_corpus, "write") == ("es", "hi", "sw")
    assert usual_languages(atlas, tiny_corpus, "forget") == ("en", "es", "hi")


def test_an_opening_is_the_best_of_the_candidates(tiny_lm, tiny_corpus, atlas, monkeypatch):
    tried = []

    def find(lm, atlas, corpus, goal, recipe, **_):
        tried.append(recipe.layers)
        good = recipe.layers == (1, 3)
        return curve((0.1, 1, 1, 0, 0.9 if good else 0.3, 0, 0), goal=goal)

    monkeypatch.setattr(module, "marks_of", find)
    found = opening(tiny_lm, atlas, tiny_corpus, "write", Recipe())
    assert tried == [(0, 1), (1, 3)]
    assert found.top == 0.9
    assert candidates("help", atlas) == ({"layers": (2, 3)},)
    assert {one["source"] for one in candidates("write", atlas)} == {"en"}
    with pytest.raises(ClasError, match="no goal"):
        candidates("fly", atlas)


@pytest.fixture(scope="module")
def village():
    """The embedded model, its atlas, and its stored marks by goal."""
    folder = ASSETS / "village"
    lm = load("village")
    stored = json.loads((folder / "marks.json").read_text("utf-8"))
    return lm, Atlas.load(folder / "atlas.safetensors", lm), {one["goal"]: one for one in stored}


@pytest.mark.parametrize("goal", ["help", pytest.param("write", marks=pytest.mark.slow)])
def test_the_stored_marks_are_those_of_a_live_run(goal, village):
    """At three of the strengths; the curve to four digits, as far as machines agree."""
    lm, atlas, stored = village
    kept = Marks.from_dict(stored[goal])
    some = [point for point in kept.points if point.alpha in (0, 0.5, 0.75, 1)]
    found = find_marks(
        lm, atlas, ParallelCorpus.bundled("village"), goal, kept.recipe(VILLAGE_BASE),
        strengths=[point.alpha for point in some[1:]],
    )  # fmt: skip
    for mine, theirs in zip(found.points, some):
        assert vars(mine) == pytest.approx(vars(theirs), abs=2e-3)


def test_the_village_opens_in_the_language_to_write_in(village):
    """Its shift acts where it reads, is whole at the best strength, and beats random neurons."""
    *_, stored = village
    assert set(stored) == set(GOALS)
    found = Marks.from_dict(stored["write"])
    best = next(one for one in found.points if one.alpha == found.opening)
    assert found.recipe().layers == (0, 4)
    assert best.reached > 0.5 > best.broken
    assert best.control_reached < 0.1
