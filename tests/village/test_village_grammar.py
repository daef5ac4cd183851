"""Every sentence of the village, in every language."""

import pytest

from clas_core.village.grammar import CODES, Grammar, GrammarError, all_fillers
from clas_core.village.world import EVENT_SLOTS, LEXICON, Event


@pytest.mark.parametrize("code", CODES)
def test_every_template_with_every_filler(code):
    """No leftover placeholder, missing form, wrong script, stray space or double meaning."""
    assert Grammar.load(code).problems() == []


def test_the_world_is_as_rich_as_promised():
    sizes = {kind: len(entries) for kind, entries in LEXICON.items()}
    wanted = {"person": 10, "place": 12, "thing": 16, "colour": 8, "animal": 6, "feeling": 6}
    assert all(sizes[kind] >= least for kind, least in wanted.items())
    assert len(EVENT_SLOTS) >= 10


@pytest.mark.parametrize("code", CODES)
def test_different_kinds_of_event_never_read_alike(code):
    """So that a sentence has one meaning, not one per kind."""
    grammar = Grammar.load(code)
    owner: dict[str, str] = {}
    for kind, slots in EVENT_SLOTS.items():
        for fillers in all_fillers(slots):
            for wording in range(grammar.wordings(kind)):
                text = grammar.sentence(Event(kind, fillers), wording)
                assert owner.setdefault(text, kind) == kind, text


def test_known_sentences():
    """Agreement, checked against sentences that a reader wrote down, not the program."""
    tom_gives = Event("give", {"person": "tom", "thing": "bag", "other": "juma"})
    assert Grammar.load("ru").sentence(tom_gives) == "Том отдаёт Джуме сумку."
    sees = Event("see", {"person": "nina", "colour": "black", "animal": "horse"})
    assert Grammar.load("ru").sentence(sees) == "Нина видит чёрную лошадь."
    assert Grammar.load("de").sentence(sees) == "Nina sieht ein schwarzes Pferd."
    assert Grammar.load("fr").sentence(sees) == "Nina voit un cheval noir."
    assert Grammar.load("sw").sentence(sees).startswith("Nina anamwona farasi mweusi")


def test_turkish_capital_keeps_its_dot():
    assert Grammar.load("tr").start_sentence("iki kedi") == "İki kedi"
    assert Grammar.load("en").start_sentence("in the park") == "In the park"
    assert Grammar.load("es").start_sentence("¿dónde?") == "¿Dónde?"


def test_unknown_language_is_named():
    with pytest.raises(GrammarError, match="does not speak 'xx'"):
        Grammar.load("xx")


def _with(grammar_change):
    import yaml

    from clas_core.village.grammar import LANGUAGE_DIR

    data = yaml.safe_load((LANGUAGE_DIR / "en.yaml").read_text(encoding="utf-8"))
    grammar_change(data)
    return data


def test_a_missing_form_is_named():
    data = _with(lambda d: d["events"].update(go=["{person} goes {place.near}."] * 2))
    with pytest.raises(GrammarError, match="garden has no form 'near'"):
        Grammar(data).problems()


def test_a_missing_entry_is_named():
    data = _with(lambda d: d["animal"].pop("goat"))
    with pytest.raises(GrammarError, match="goat"):
        Grammar(data)


def test_a_wrong_script_is_found():
    data = _with(lambda d: d["person"].update(anna="Анна"))
    assert any("script" in problem for problem in Grammar(data).problems())


def test_a_double_meaning_is_found():
    data = _with(lambda d: d["colour"].update(grey="blue"))
    assert any("means two things" in problem for problem in Grammar(data).problems())
