"""The fuzzer and the crowd of visitors, short; `make fuzz` and `make isolation` run them long."""

import random

import fuzz
import fuzz_server
import isolation
import pytest

from clas_core.errors import ClasError
from clas_core.ui.behind import inputs


def test_spoilt_files_are_refused_in_a_sentence():
    failures = fuzz.Failures()
    fuzz.spoil_files(260, random.Random(1), failures)
    assert not failures


def test_odd_recipes_and_links_are_refused_in_a_sentence():
    failures = fuzz.Failures()
    refused = fuzz.spoil_recipes(600, random.Random(1), failures)
    assert not failures
    assert refused["recipe"] > 100


@pytest.mark.slow
def test_odd_events_leave_the_page_up():
    failures = fuzz.Failures()
    with fuzz.watched_files(failures.note), fuzz.served_page(failures.note) as address:
        answers = fuzz.spoil_events(160, 1, failures.note, address)
    assert not failures
    assert answers["heard"] > 10


@pytest.mark.slow
def test_an_error_of_ours_behind_an_event_is_seen(monkeypatch):
    """The fuzzer can fail."""
    failures = fuzz.Failures()

    def broken(*_):
        raise ZeroDivisionError

    with fuzz.served_page(failures.note) as address:
        monkeypatch.setattr(inputs, "choice", broken)
        fuzz.spoil_events(100, 1, failures.note, address)
    assert failures["ZeroDivisionError: "] > 0


def test_a_file_outside_is_seen(tmp_path, monkeypatch):
    failures = fuzz.Failures()
    with fuzz.watched_files(failures.note):
        (tmp_path / "inside").write_text("")
        assert not failures
        monkeypatch.setattr(fuzz_server, "FOLDERS", ("/nowhere",))
        (tmp_path / "outside").write_text("")
    assert [*failures] == [f"wrote {tmp_path.resolve() / 'outside'}"]


def test_a_choice_that_is_no_text_is_refused():
    """A list in the place of a method: unhashable."""
    with pytest.raises(ClasError, match="The method must be one of"):
        inputs.choice("The method", [[[]]], inputs.METHODS)


def test_visitors_get_what_they_would_get_alone():
    counts = isolation.simulate(150, 20)
    assert counts["different"] == 0
    assert min(counts["finished"], counts["left"], counts["raised"]) > 0
