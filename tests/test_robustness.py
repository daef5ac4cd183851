"""The fuzzer and the crowd of visitors, short; `make fuzz` and `make isolation` run them long."""

import random

import fuzz
import isolation
import pytest


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
    with fuzz.served_page() as address:
        fuzz.spoil_events(60, random.Random(1), failures, address)
    assert not failures


def test_visitors_get_what_they_would_get_alone():
    counts = isolation.simulate(150, 20)
    assert counts["different"] == 0
    assert min(counts["finished"], counts["left"], counts["raised"]) > 0
