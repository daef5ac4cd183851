from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind import inputs
from clas_core.ui.behind.profile import PROFILES, Profile, read_profile

CODES = ("en", "es", "ar", "sw")
PLACE = {
    "model": "village",
    "corpus": "village",
    "codes": CODES,
    "num_layers": 8,
    "units": 64,
    "max_new_tokens": 100,
    "fallback": "sw",
}


def recipe(**changes):
    values = {**inputs.defaults(8, 4, 64), "prompt": "The cat sees the moon.", **changes}
    return inputs.make_recipe(values, **PLACE)


def test_the_defaults_are_the_methods_own():
    made = recipe()
    assert (made.alpha, made.beta, made.gamma) == (0.5, 1.2, 0.8)
    assert made.layers == (6, 8)
    assert made.shared_from == 4
    assert made.target == "en"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": 7}, "Strength must be a number from -1 to 2"),
        ({"beta": -0.1}, "Beta must be a number from 0 to 3"),
        ({"tau": 1.5}, "threshold must be a number from 0 to 1"),
        ({"length": 101}, "Length must be a number from 1 to 100"),
        ({"length": 0}, "Length must be a number from 1 to 100"),
        ({"shared_from": 99}, "Shared from must be a number from 2 to 4"),
        ({"last_layer": 9}, "last bridge layer must be a number from 1 to 8"),
        ({"seed": 2**31}, "seed must be a number from 0 to 2147483647"),
        ({"temperature": math.inf}, "Temperature must be a number from 0 to 2"),
    ],
)
def test_numbers_out_of_range_are_refused_and_never_moved(changes, message):
    with pytest.raises(ClasError, match=message):
        recipe(**changes)


@pytest.mark.parametrize("name", ["strength", "beta", "gamma", "tau", "temperature", "length"])
@pytest.mark.parametrize("bad", [math.nan, None, "1", True, [1], {}])
def test_what_is_no_number_gets_one_sentence(name, bad):
    with pytest.raises(ClasError, match="must be a number from") as caught:
        recipe(**{name: bad})
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["method", "specific", "language"])
@pytest.mark.parametrize("bad", ["nonsense", None, 3, "RandomControl"])
def test_unknown_choices_name_the_known_ones(name, bad):
    with pytest.raises(ClasError, match="must be one of"):
        recipe(**{name: bad})


def test_layers_the_wrong_way_round():
    with pytest.raises(ClasError, match=r"first bridge layer \(7\) lies behind the last \(3\)"):
        recipe(first_layer=7, last_layer=3)


@pytest.mark.parametrize("bad", ["", "  \n", None, 5])
def test_empty_prompts(bad):
    with pytest.raises(ClasError, match="Write a prompt"):
        inputs.clean_prompt(bad)


def test_the_language_of_an_example_is_known_and_not_guessed():
    """Also where it has no letters to tell by, and among the languages that share it."""
    examples = {"12": ("ar",), "No, no.": ("en", "es")}
    code, sentence = inputs.target_language("auto", "12", CODES, "sw", examples)
    assert (code, sentence) == ("ar", "Arabic, the language of the example.")
    assert inputs.target_language("auto", "12 ", CODES, "sw", examples)[0] == "sw"
    assert inputs.target_language("auto", "No, no.", CODES, "sw", examples)[0] in ("en", "es")
    assert inputs.target_language("es", "12", CODES, "sw", examples)[0] == "es"


def test_the_length_fits_the_profile():
    assert inputs.defaults(8, 4, 64, max_new_tokens=20)["length"] == 20


def test_huge_prompts():
    with pytest.raises(ClasError, match="2001 characters; shorten it to 2000"):
        inputs.clean_prompt("a" * 2001)


def test_language_detected_overridden_and_unknown():
    assert inputs.target_language("auto", "القط يرى القمر", CODES, "sw")[0] == "ar"
    assert inputs.target_language("es", "القط يرى القمر", CODES, "sw")[0] == "es"
    code, sentence = inputs.target_language("auto", "12", CODES, "sw")
    assert code == "sw"
    assert "no letters" in sentence


@given(
    strength=st.floats(-1, 2),
    tau=st.floats(0, 1),
    shared_from=st.integers(2, 4),
    first=st.integers(1, 8),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_recipe_survives_the_page(strength, tau, shared_from, first, seed):
    made = recipe(strength=strength, tau=tau, shared_from=shared_from, first_layer=first, seed=seed)
    values = inputs.from_recipe(Recipe.from_query(made.to_query()), 8, 4, 64)
    again = inputs.make_recipe({**values, "prompt": made.prompt}, **PLACE)
    assert again == made


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_can_be_read(path):
    assert isinstance(read_profile(path.stem), Profile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colour = "blue"', "names colour; a profile has"),
        ('port = "7860"', "port in the profile must be a whole number"),
        ("threads = -1", "must not be negative"),
        ('models = "village"', "models in the profile must be a list of texts"),
        ("models = [1]", "models in the profile must be a list of texts"),
        ("port = ", "can't be read"),
    ],
)
def test_bad_profiles_get_one_sentence(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ClasError, match=message):
        read_profile(str(path))


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ClasError, match=r"choose one of: .*local"):
        read_profile("nowhere")


def test_a_space_takes_its_own_profile(monkeypatch):
    from clas_core.ui.behind.profile import default_profile, read_profile

    monkeypatch.delenv("CLAS_PROFILE", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert read_profile(default_profile()).host == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "someone/clas-studio")
    assert read_profile(default_profile()).host == "0.0.0.0"
    monkeypatch.setenv("CLAS_PROFILE", "local")
    assert default_profile() == "local"


def test_a_strength_that_was_suggested_for_clas_is_not_taken_to_other_methods():
    assert inputs.strength_for("DiffMean", -0.25, -0.25) == Recipe().alpha
    assert inputs.strength_for("CLAS", Recipe().alpha, -0.25) == -0.25
    assert inputs.strength_for("DiffMean", 1.5, -0.25) == 1.5
