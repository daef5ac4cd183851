from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_tokenizer, tiny_gpt2_model, tiny_llama_model, tiny_qwen2_model
from tiny_studio import made_up_corpus, tiny_studio

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.preflight import Preflight
from clas_core.errors import ClasError
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus
from clas_core.ui.behind import library as library_module
from clas_core.ui.behind import shelf as shelf_module
from clas_core.ui.behind.choice import Choice, parse_model
from clas_core.ui.behind.examples import examples_of
from clas_core.ui.behind.gate import Gate
from clas_core.ui.behind.library import Library
from clas_core.ui.behind.links import offer_of, open_already
from clas_core.ui.behind.profile import Profile, read_profile
from clas_core.ui.behind.shelf import Cancelled, Shelf
from clas_core.ui.behind.stops import Stops
from clas_core.ui.behind.studio import Studio


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def first() -> Studio:
    return tiny_studio()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories of three tiny models, by family."""
    folder = tmp_path_factory.mktemp("models")
    made = {"llama": tiny_llama_model, "qwen2": tiny_qwen2_model, "gpt2": tiny_gpt2_model}
    for name, make in made.items():
        make().save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


def make_shelf(first, monkeypatch, **changes):
    monkeypatch.setattr(first, "profile", replace(Profile(), **changes))
    monkeypatch.setattr(Studio, "warm_up", lambda self: None)
    monkeypatch.setattr(Studio, "find_marks", lambda self: None)
    return Shelf(first)


@pytest.fixture
def shelf(first, monkeypatch):
    return make_shelf(first, monkeypatch)


def choice(model, codes=("en", "sw", "ar"), n=4):
    return Choice(model, None, "made-up.tsv", made_up_corpus().subset(codes, n))


def opened(shelf, wanted):
    job = shelf.open(wanted)
    try:
        return job.result.result(timeout=60)
    finally:
        shelf.leave(job)


def test_a_model_is_opened_with_its_own_atlas(shelf, models):
    wanted = choice(models["qwen2"])
    studio = opened(shelf, wanted)
    assert shelf.get(studio.key) is studio
    assert studio.codes == ("en", "sw", "ar")
    assert studio.atlas.probability.equal(Atlas.measure(studio.lm, wanted.corpus).probability)
    assert list(studio.examples("sw")) == list(wanted.corpus.sentences["sw"])


@pytest.mark.slow
def test_every_family_steers(shelf, models):
    for model in models.values():
        studio = opened(shelf, choice(model))
        recipe = studio.recipe({**studio.defaults(), "prompt": studio.examples("sw")[0]})
        *_, view = studio.steer(recipe, False, threading.Event())
        assert view["state"] == "done"
        assert recipe.model == model


def test_two_who_ask_at_once_get_one_studio(shelf, models, monkeypatch):
    loads = []
    monkeypatch.setattr(
        shelf_module,
        "load",
        lambda *a, real=shelf_module.load, **k: loads.append(a) or real(*a, **k),
    )
    one, two = shelf.open(choice(models["llama"])), shelf.open(choice(models["llama"]))
    assert one is two
    assert one.result.result(timeout=60) is two.result.result()
    assert len(loads) == 1
    other_text = opened(shelf, choice(models["llama"], codes=("en", "ru")))
    assert len(loads) == 1
    assert other_text.lm is one.result.result().lm
    assert other_text.key != one.result.result().key


@pytest.mark.slow
def test_the_least_recently_used_one_makes_room(first, models, monkeypatch):
    shelf = make_shelf(first, monkeypatch, shelf=2)
    one, two = opened(shelf, choice(models["llama"])), opened(shelf, choice(models["qwen2"]))
    shelf.get(one.key)
    opened(shelf, choice(models["gpt2"]))
    assert shelf.get(one.key) is one
    with pytest.raises(ClasError, match="open it again in the Model tab"):
        shelf.get(two.key)
    assert shelf.get(first.key) is first
    for bad in (None, 3, ["a"], "nonsense"):
        with pytest.raises(ClasError):
            shelf.get(bad)


def test_memory_limits_the_shelf_too(first, models, monkeypatch):
    shelf = make_shelf(first, monkeypatch, shelf=9, shelf_gb=0)
    one, two = opened(shelf, choice(models["llama"])), opened(shelf, choice(models["qwen2"]))
    assert shelf.studios == [first, two]
    assert one not in shelf.studios


def test_the_last_to_leave_cancels(shelf, models, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(lm, corpus, progress):
        begun.set()
        go_on.wait(10)
        progress(1, 2)
        raise AssertionError("the work went on")

    monkeypatch.setattr(shelf_module, "measure_cached", slow)
    one, two = shelf.open(choice(models["llama"])), shelf.open(choice(models["llama"]))
    assert begun.wait(30)
    shelf.leave(one)
    one.check()  # the other one still waits
    shelf.leave(two)
    go_on.set()
    with pytest.raises(Cancelled):
        two.result.result(timeout=30)
    assert shelf.open(choice(models["llama"])) is not two


def test_an_unexpected_failure_is_one_sentence(shelf, models, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("tensors of unequal size\nand more")

    monkeypatch.setattr(shelf_module, "measure_cached", broken)
    with pytest.raises(ClasError, match=r"could not be opened \(tensors of unequal size\)\.$"):
        opened(shelf, choice(models["llama"]))


@pytest.mark.parametrize(
    ("allowed", "model"), [(("small/*",), "large/model"), (("*",), "/some/directory")]
)
def test_only_the_profiles_models_are_opened(first, monkeypatch, allowed, model):
    shelf = make_shelf(first, monkeypatch, models=allowed)
    with pytest.raises(ClasError):
        shelf.open(choice(model))
    shelf.check(first.profile.model)


def test_measuring_gives_way_to_answers():
    gate = Gate()
    with gate.answering():
        start = time.monotonic()
        gate.give_way(longest=0.2)
        assert time.monotonic() - start >= 0.2
        threading.Timer(0.1, lambda: None).start()
    start = time.monotonic()
    gate.give_way(longest=5)
    assert time.monotonic() - start < 1


def test_a_ticket_stops_before_and_while_it_runs():
    stops = Stops(kept=2)
    one, two = stops.issue(), stops.issue()
    stops.stop(one)
    assert stops.run(one).stop.is_set()
    assert not stops.run(two).stop.is_set()
    stops.issue()
    assert not stops.run(one).stop.is_set()  # forgotten: only so many are kept
    stops.stop(None)
    stops.drop("unknown")


def test_a_ticket_in_the_place_of_another_silences_that_one():
    stops = Stops()
    one = stops.issue()
    assert stops.goes_on(one)
    first = stops.run(one)
    two = stops.issue(one)
    assert first.over
    assert first.stop.is_set()
    assert stops.goes_on(two)
    assert stops.goes_on(one)  # its end, told late, is not the end of what took its place
    stops.drop(one)
    assert stops.goes_on(one)
    stops.drop(two)
    assert not stops.goes_on(two)
    assert not stops.goes_on(one)


def test_only_so_many_places_are_remembered():
    stops = Stops(kept=3)
    ticket = stops.issue()
    for _ in range(10):
        ticket = stops.issue(ticket)
    assert len(stops._later) == 3
    stops.issue("x" * 10**6)  # no ticket of ours
    assert "x" * 10**6 not in stops._later


@pytest.mark.parametrize(
    ("text", "model", "revision"),
    [
        ("village", "village", None),
        (" Qwen/Qwen2.5-0.5B ", "Qwen/Qwen2.5-0.5B", None),
        ("Qwen/Qwen2.5-0.5B@abc123", "Qwen/Qwen2.5-0.5B", "abc123"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", None),
        ("/models/a@b", "/models/a@b", None),
        ("./here", str(Path("here").absolute()), None),
        ("~/here", str(Path.home() / "here"), None),
    ],
)
def test_models_are_named_in_several_ways(text, model, revision):
    assert parse_model(text) == (model, revision)


@pytest.mark.parametrize("bad", ["", "  ", None, 4, "<b>x</b>", "a b", "a/b/c", "x" * 5000, "a\0b"])
def test_what_names_no_model_gets_a_sentence(bad):
    with pytest.raises(ClasError):
        parse_model(bad)


def test_a_directory_of_this_computer_is_known_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "village").mkdir()
    assert parse_model("owner/name") == (str(tmp_path / "owner" / "name"), None)
    assert parse_model("village") == ("village", None)


def test_a_link_says_where_it_opens():
    corpus = ParallelCorpus.bundled("everyday")
    own = replace(corpus, is_bundled=False)
    assert Choice("owner/name", None, "everyday", corpus).private == ""
    assert "your file, my.tsv" in Choice("owner/name", None, "my.tsv", own).private
    assert "on this computer alone" in Choice("/models/x", None, "everyday", corpus).private
    part = Choice("owner/name", None, "everyday", corpus.subset(("en", "sw")), whole=False)
    assert "en, sw alone" in part.private


EVERYDAY = {  # a visitor's files, named so that their stem is a bundled text's name
    "everyday.en.txt": "The meeting is at noon.\nNobody may know.\n",
    "everyday.sw.txt": "Mkutano ni saa sita.\nMtu asijue.\n",
}


def uploaded(folder, files=EVERYDAY):
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return [str(folder / name) for name in files]


def test_what_is_bundled_is_known_where_it_is_opened(shelf, tmp_path):
    mine = Library(shelf).choose("owner/name", "own", uploaded(tmp_path), [])
    assert mine.name == "everyday.en.txt and 1 more"
    assert not mine.corpus.is_bundled
    assert mine.private
    bundled = Library(shelf).choose("owner/name", "everyday", None, ["en", "sw"])
    assert (bundled.name, bundled.corpus.is_bundled) == ("everyday", True)
    named_alike = replace(mine, name="everyday")
    assert named_alike.private
    copied = replace(bundled, corpus=replace(bundled.corpus, is_bundled=False), name="copy.tsv")
    assert copied.key != bundled.key  # or the next one to open it would read the file's name
    village = replace(mine, name="village")
    assert examples_of(village)("en") == list(village.corpus.sentences["en"])


@pytest.mark.parametrize("name", ["everyday", "everyday.en.txt and 1 more"])
def test_an_upload_never_passes_as_a_bundled_text(first, models, monkeypatch, tmp_path, name):
    shelf = make_shelf(first, monkeypatch, models=("local",))
    mine = Library(shelf).choose(models["llama"], "own", uploaded(tmp_path), [])
    mine = replace(mine, name=name)
    studio = opened(shelf, mine)
    assert [one.key for one in shelf.studios] == [first.key, studio.key]
    link = replace(Recipe(), model=models["llama"], corpus="everyday")
    assert not studio.is_of(link)
    assert open_already(shelf, link) is None
    monkeypatch.setattr(shelf, "profile", Profile(models=("*",)))
    monkeypatch.setattr(library_module, "is_local", lambda model: False)
    monkeypatch.setattr(shelf, "check", lambda *asked: None)
    assert [key for _, key in Library(shelf).choices()] == [first.key]


def test_a_model_is_pinned_to_a_commit(first, monkeypatch):
    shelf = make_shelf(first, monkeypatch, models=("a/pinned@abc", "a/free"))
    library = Library(shelf)
    assert library.models()[1:] == ["a/pinned", "a/free"]
    assert library.choose("a/pinned", "everyday", None, []).revision == "abc"
    assert library.choose("a/pinned@abc", "everyday", None, []).revision == "abc"
    assert library.choose("a/free", "everyday", None, []).revision is None
    for foreign in ("a/pinned@refs/pr/7", "a/pinned@main", "a/free@refs/pr/7", "a/free@abc"):
        with pytest.raises(ClasError, match="leave out @"):
            library.choose(foreign, "everyday", None, [])
        model, _, revision = foreign.partition("@")
        with pytest.raises(ClasError, match="leave out @"):
            shelf.open(Choice(model, revision, "everyday", ParallelCorpus.bundled("everyday")))
        with pytest.raises(ClasError, match="leave out @"):
            offer_of(shelf, replace(Recipe(), model=model, revision=revision, corpus="everyday"))


def test_every_model_of_the_public_profile_is_pinned():
    for entry in read_profile("cpu").models:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", entry)


def test_the_library_reads_what_was_uploaded(shelf, tmp_path):
    library = Library(shelf)
    path = tmp_path / "mine.tsv"
    path.write_text("en\trw\nA cat.\tInjangwe.\nA dog.\tImbwa.\n", "utf-8")
    found = library.choose("owner/name@main", "own", [str(path)], [])
    assert (found.name, found.revision, found.whole) == ("mine.tsv", "main", True)
    assert found.corpus.languages == ("en", "rw")
    assert library.report("own", [str(path)]).counts == {"en": 2, "rw": 2}
    with pytest.raises(ClasError, match="at least two languages"):
        library.choose("owner/name", "village", None, ["en"])
    with pytest.raises(ClasError, match="Add your files"):
        library.read("own", None)


def test_uploads_can_be_off_and_are_limited(first, monkeypatch, tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("en\trw\n" + "A cat.\tInjangwe.\n" * 70_000, "utf-8")
    with pytest.raises(ClasError, match="bundled texts"):
        Library(make_shelf(first, monkeypatch, uploads=0)).read("own", [str(path)])
    with pytest.raises(ClasError, match="MB"):
        Library(make_shelf(first, monkeypatch, uploads=1)).read("own", [str(path)])


@pytest.mark.slow
def test_what_was_measured_is_listed_and_opens_again(first, models, monkeypatch, tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("en\trw\nA cat.\tInjangwe.\nA dog.\tImbwa.\n", "utf-8")
    shelf = make_shelf(first, monkeypatch)
    library = Library(shelf)
    own = library.choose(models["llama"], "own", [str(path)], [])
    bundled = library.choose(models["llama"], "everyday", None, ["sw", "en"])
    for one in (own, bundled):
        opened(shelf, one)
        library.keep(one)
    another_day = Library(make_shelf(first, monkeypatch))
    labels = dict(another_day.choices())
    assert [label for label in labels if "2 languages" in label and "llama" in label] == [
        f"{models['llama']}, everyday, 2 languages",
        f"{models['llama']}, mine, 2 languages",
    ]
    assert models["llama"] in another_day.models()
    again = another_day.choice(labels[f"{models['llama']}, mine, 2 languages"])
    assert (again.name, again.key) == ("mine.tsv", own.key)
    again = another_day.choice(labels[f"{models['llama']}, everyday, 2 languages"])
    assert (again.name, again.key, again.whole) == ("everyday", bundled.key, False)
    public = Library(make_shelf(first, monkeypatch, models=("*",)))
    assert len(public.choices()) == 1
    with pytest.raises(ClasError):
        public.choice(labels[f"{models['llama']}, mine, 2 languages"])


def test_a_model_too_large_is_refused_before_it_is_read(shelf, models, monkeypatch):
    seen = Preflight("x", None, False, 0, "cpu", free=10**9, weights=9 * 10**9)
    monkeypatch.setattr(shelf_module, "inspect", lambda *_, **__: seen)
    monkeypatch.setattr(shelf_module, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ClasError, match=r"takes 9\.0 GB, and 1\.0 GB of memory are free"):
        opened(shelf, choice(models["llama"]))


def test_no_one_sees_anothers_text(first, models, monkeypatch):
    shelf = make_shelf(first, monkeypatch, models=("*", "local"))
    studio = opened(shelf, choice(models["llama"]))
    assert studio.key in [key for _, key in Library(shelf).choices()]
    monkeypatch.setattr(first, "profile", Profile(models=("*",)))
    public = Library(Shelf(first))
    public._shelf._studios[studio.key] = studio
    assert studio.key not in [key for _, key in public.choices()]
    with pytest.raises(ClasError):
        public.choice(studio.key)
