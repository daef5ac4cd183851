from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch
from chats import CHATML, chat_lm
from hypothesis import given
from hypothesis import strategies as st

import clas_core
from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.running.generation import generate
from clas_core.steering.methods import METHODS
from clas_core.steering.recipe import Recipe

RECIPE = Recipe(
    alpha=-0.25,
    where="answer:2",
    shared_from=3,
    layers=(1, 3),
    source="es",
    specific="others",
    prompt='नमस्ते? "a" & b=1\\n\n{x} 50 % #',
    max_new_tokens=8,
    temperature=0.7,
    seed=7,
)

TEXT = st.text(st.characters(codec="utf-8"))
FLOAT = st.floats(-10, 10)
steerings = st.builds(
    Recipe,
    method=st.sampled_from(list(METHODS)),
    alpha=FLOAT,
    source=st.none() | TEXT,
    layers=st.none() | st.tuples(st.integers(0, 9), st.integers(10, 99)),
    k=st.none() | st.integers(1, 10_000),
    target=TEXT,
)
firsts = st.just("") | st.recursive(
    st.builds(lambda one, target: one.as_first(target), steerings, st.booleans()),
    lambda inner: st.builds(
        lambda one, first: dataclasses.replace(one, first=first).as_first(), steerings, inner
    ),
    max_leaves=2,
)
recipes = st.builds(
    Recipe,
    first=firsts,
    model=TEXT,
    revision=st.none() | TEXT,
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    corpus=TEXT,
    method=st.sampled_from(list(METHODS)),
    alpha=FLOAT,
    beta=FLOAT,
    gamma=FLOAT,
    lam=st.floats(-100, 100),
    source=st.none() | TEXT,
    tau=st.floats(0, 1),
    tau_mode=st.sampled_from(["absolute", "quantile"]),
    shared_from=st.none() | st.integers(2, 1000),
    specific=st.sampled_from(["any", "target", "others"]),
    layers=st.none() | st.tuples(st.integers(0, 9), st.integers(10, 99)),
    k=st.none() | st.integers(1, 10_000),
    ranking=st.sampled_from(["both", "top", "bottom"]),
    early=st.none() | st.tuples(st.integers(0, 9), st.integers(10, 99)),
    where=st.sampled_from(["all", "prompt", "answer", "answer:3"]),
    target=TEXT,
    prompt=TEXT,
    chat=st.sampled_from(["auto", "on"]),
    system=TEXT,
    temperature=st.floats(0, 10),
    max_new_tokens=st.integers(1, 100_000),
    seed=st.integers(0, 2**63 - 1),
)


@given(recipes)
def test_json_and_url_come_back_as_they_went(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe
    query = recipe.to_query()
    for link in (
        query,
        f"?{query}",
        f"https://example.org/x=1/?__theme=dark&utm_source=a&{query}&fbclid=b#tab=map",
    ):
        assert Recipe.from_query(link) == recipe


@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        ("prompt=Who? Why?&seed=7#tab=map", "Who? Why?"),  # as typed by hand, unescaped
        ("?prompt=Who?&seed=7", "Who?"),
        ("http://localhost:7860/?seed=7&prompt=a\nb", "a\nb"),
        ("prompt=http://a/?b&seed=7", "http://a/?b"),
    ],
)
def test_links_by_hand_lose_nothing(query, prompt):
    assert Recipe.from_query(query) == Recipe(prompt=prompt, seed=7)


def test_hash_tells_every_field():
    other = {
        **dict.fromkeys(("beta", "gamma", "lam", "tau", "temperature"), 0.5),
        "alpha": 0.6,
        **dict.fromkeys(("shared_from", "max_new_tokens", "seed"), 3),
        **dict.fromkeys(("layers", "early"), (0, 1)),
        "k": 3,
        "ranking": "top",
        "where": "answer",
        "method": "IntMu",
        "dtype": "float32",
        "tau_mode": "quantile",
        "specific": "target",
        "chat": "off",
        **dict.fromkeys(("model", "revision", "corpus", "source", "target", "prompt"), "x"),
        "system": "x",
        "first": "method=DiffMean",
    }
    assert set(other) == set(json.loads(Recipe().to_json()))
    hashes = {Recipe(**{name: value}).hash for name, value in other.items()}
    assert len(hashes | {Recipe().hash}) == len(other) + 1
    assert Recipe().hash == Recipe(alpha=0.5).hash


def test_recipes_from_before_keep_their_hash_and_still_open():
    """Some fields came later: a recipe that asks for nothing of them is what it was."""
    values = json.loads(Recipe().to_json())
    for name in ("chat", "system", "k", "ranking", "early", "where", "first"):
        del values[name]
    content = json.dumps(values, sort_keys=True).encode()
    assert Recipe().hash == hashlib.sha256(content).hexdigest()[:12] == "962304a8becf"
    assert Recipe.from_json(json.dumps(values)) == Recipe()
    old = "model=village&prompt=Who%3F&alpha=0.7"
    assert Recipe.from_query(old) == Recipe(prompt="Who?", alpha=0.7)


def test_numbers_from_sliders():
    recipe = Recipe(alpha=1, seed=3.0, shared_from=2.0, layers=[1.0, 2.0])
    assert recipe == Recipe(alpha=1.0, seed=3, shared_from=2, layers=(1, 2))
    assert recipe.hash == Recipe(alpha=1.0, seed=3, shared_from=2, layers=(1, 2)).hash


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", float("nan"), "alpha must be a number from -10.0 to 10.0, not nan"),
        ("beta", float("inf"), "beta must be a number"),
        ("gamma", "0.8", "gamma must be a number"),
        ("tau", 1.5, "tau must be a number from 0.0 to 1.0, not 1.5"),
        ("alpha", True, "alpha must be a number"),
        ("alpha", None, "alpha must be a number"),
        ("temperature", -1.0, "temperature must be"),
        ("shared_from", 1, "shared_from must be a whole number from 2"),
        ("seed", 1.5, "seed must be a whole number, not 1.5"),
        ("max_new_tokens", 0, "max_new_tokens must be"),
        ("layers", (3, 3), "layers must be two whole numbers such as 6 and 8"),
        ("layers", (-1, 3), "layers must be"),
        ("layers", (0, float("nan")), "layers must be"),
        ("layers", (0, float("inf")), "layers must be"),
        ("layers", 3, "layers must be"),
        ("early", (3, 3), "early must be two whole numbers such as 6 and 8"),
        ("k", 0, "k must be a whole number from 1"),
        ("where", "question", "where must be all, prompt, answer, or answer:3"),
        ("where", 3, "where must be text"),
        ("ranking", "best", "ranking must be one of both, top, bottom"),
        ("method", "Magic", "method must be one of CLAS, "),
        ("specific", "all", "specific must be one of any, target, others"),
        ("dtype", "int8", "dtype must be one of"),
        ("prompt", 5, "prompt must be text"),
        ("chat", "yes", "chat must be one of auto, on, off, not 'yes'"),
        ("system", None, "system must be text"),
    ],
)
def test_bad_values_get_one_clear_sentence(field, value, message):
    with pytest.raises(ClasError, match=message):
        Recipe(**{field: value})


def test_a_system_prompt_needs_a_chat():
    with pytest.raises(ClasError, match="A system prompt needs a chat: set chat to on"):
        Recipe(chat="off", system="Be brief.")


def test_bad_texts_get_one_clear_sentence():
    with pytest.raises(ClasError, match="not valid JSON"):
        Recipe.from_json("{")
    with pytest.raises(ClasError, match="must be a JSON object"):
        Recipe.from_json("[]")
    with pytest.raises(ClasError, match="no field power; its fields are model, "):
        Recipe.from_json('{"power": 1}')
    with pytest.raises(ClasError, match="no field power"):
        Recipe.from_query("power=1")
    with pytest.raises(ClasError, match="alpha in this link can't be read: 'much'"):
        Recipe.from_query("?alpha=much")
    with pytest.raises(ClasError, match="layers in this link"):
        Recipe.from_query("layers=all")
    with pytest.raises(ClasError, match="no UTF-8 text"):
        Recipe.from_query("prompt=%ff")
    with pytest.raises(ClasError, match="prompt holds half a character"):
        Recipe(prompt="\ud800")


@pytest.mark.parametrize("name", METHODS)
def test_builds_every_method(tiny_lm, tiny_corpus, name):
    recipe = Recipe(method=name, source="es", target="sw", layers=(1, 3), seed=4)
    atlas = Atlas.measure(tiny_lm, tiny_corpus)
    selection = clas_core.select(atlas)
    plan = recipe.build(atlas)
    assert plan.label == recipe.steering.plan(atlas, selection, "sw").label
    assert set(plan.layers) == {1, 2} | ({0} if name == "ThereAndBack" else set())


def test_control_controls_the_same_settings():
    control = Recipe(method="RandomControl", alpha=0.9, specific="target", seed=5).steering
    assert control == clas_core.RandomControl(
        of=clas_core.CLAS(alpha=0.9, specific="target"), seed=5
    )


def test_refuses_an_atlas_that_does_not_fit(tiny_lm, tiny_corpus):
    atlas = Atlas.measure(tiny_lm, tiny_corpus)
    for changes in ({"target": "fr"}, {"layers": (1, 9)}, {"shared_from": 12}):
        with pytest.raises(ClasError):
            Recipe(**changes).build(atlas)


@pytest.mark.parametrize("name", METHODS)
def test_python_runs_and_writes_the_same_tokens(tiny_lm, tiny_corpus, tmp_path, capsys, name):
    tiny_lm.model.save_pretrained(tmp_path / "model")
    tiny_lm.tokenizer.save_pretrained(tmp_path / "model")
    values = {
        **json.loads(RECIPE.to_json()),
        "method": name,
        "corpus": write_corpus(tiny_corpus, tmp_path),
    }
    recipe = Recipe(**{**values, "model": str(tmp_path / "model")})

    plan = recipe.build(Atlas.measure(tiny_lm, tiny_corpus))
    *_, expected = generate(
        tiny_lm, recipe.prompt, [None, plan], max_new_tokens=8, temperature=0.7, seed=7
    )
    names: dict[str, object] = {}
    exec(recipe.to_python(), names)
    assert names["step"].token_ids == expected.token_ids
    assert capsys.readouterr().out == "\n".join(expected.texts) + "\n"


def write_corpus(tiny_corpus, folder):
    columns = [tiny_corpus.languages, *zip(*tiny_corpus.sentences.values())]
    path = folder / "tiny.tsv"
    path.write_text("\n".join("\t".join(row) for row in columns), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "changes", [{"system": "Be brief: 'x'\n"}, {"chat": "on"}, {"chat": "off"}, {}]
)
def test_python_writes_the_same_chat(tiny_corpus, tmp_path, changes):
    lm = chat_lm(CHATML)
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    model, corpus = str(tmp_path / "model"), write_corpus(tiny_corpus, tmp_path)
    changes = {"model": model, "corpus": corpus, "alpha": 2.0, "max_new_tokens": 8} | changes
    recipe = Recipe(prompt="Who has the book?", **changes)

    prompt = recipe.render(lm)
    assert prompt.templated == (recipe.chat != "off")
    assert recipe.system in prompt.text
    plan = recipe.build(Atlas.measure(lm, tiny_corpus))
    *_, expected = generate(lm, prompt, [None, plan], max_new_tokens=8)
    names: dict[str, object] = {}
    exec(recipe.to_python(), names)
    assert names["prompt"] == prompt
    assert names["step"] == expected


def test_public_names_are_there():
    for name in clas_core.__all__:
        assert getattr(clas_core, name) is not None
    assert {"load", "CLAS", "steered", "bake", "separation"} <= set(dir(clas_core))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        clas_core.nothing  # noqa: B018


def test_languages_are_named_as_corpora_name_them() -> None:
    assert Recipe(target="swh_Latn") == Recipe(target="sw")
    assert Recipe(source="deu").source == "de"


def test_a_steering_that_acts_first_is_one_plan_with_the_recipes_own(tiny_lm, tiny_corpus):
    """Against one context inside the other."""
    first = Recipe(method="DiffMean", alpha=0.75, layers=(0, 2), source="es", target="sw")
    then = Recipe(method="CLAS", alpha=1.0, gamma=0.0, layers=(1, 3), target="en")
    both = dataclasses.replace(then, first=first.as_first())
    assert both.earlier.steering == first.steering
    assert both.steering == clas_core.Composition(first.steering, then.steering, "sw")
    lm, atlas = tiny_lm, Atlas.measure(tiny_lm, tiny_corpus)
    inputs = lm.encode(["who sleeps"]).inputs
    with torch.inference_mode():
        with clas_core.steered(lm, both.build(atlas)):
            together = lm.model(**inputs).logits
        with (
            clas_core.steered(lm, first.build(atlas)),
            clas_core.steered(lm, then.build(atlas)),
        ):
            nested = lm.model(**inputs).logits
        plain = lm.model(**inputs).logits
    torch.testing.assert_close(together, nested)
    assert (together - plain).abs().max() > 1e-3


def test_a_steering_that_acts_first_follows_the_target_unless_it_has_one():
    first = Recipe(method="Kojima", target="de")
    assert Recipe(first=first.as_first(), target="sw").earlier.target == "de"
    assert Recipe(first=first.as_first(target=False), target="sw").earlier.target == "sw"
    assert Recipe(first="method=Kojima&alpha=0.5") == Recipe(first="alpha=0.5&method=Kojima")


def test_three_act_one_after_another_and_no_more():
    chain = Recipe(method="LAPE")
    for method in ("DiffMean", "Kojima", "CLAS"):
        chain = Recipe(method=method, first=chain.as_first())
    assert chain.earlier.earlier.earlier.method == "LAPE"
    assert chain.earlier.earlier.earlier.earlier is None
    with pytest.raises(ClasError, match="At most 3 steerings"):
        Recipe(first=chain.as_first())


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("DiffMean", "first must be a steering such as"),
        ("method=No", "method must be one of"),
        ("method=CLAS&alpha=x", "alpha in this link can't be read"),
        ("method=CLAS&tau=0.5", "first can't say tau"),
        ("method=CLAS&alpha=99", "alpha must be a number"),
        ("first=" * 300 + "method%3DCLAS", "At most 3"),
        ("%ff=1", "first must be a steering"),
        (3, "first must be text"),
    ],
)
def test_what_cannot_act_first_is_said(first, said):
    with pytest.raises(ClasError, match=said):
        Recipe(first=first)
