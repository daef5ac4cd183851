"""The bench runs; what it measures is asserted nowhere."""

import copy
from collections import Counter
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import torch
from fuzz_server import served_page

from clas_core.steering.plan import LayerPlan, SteeringPlan
from clas_core.studies.benches import decoding, libraries, load, real
from clas_core.studies.benches import page as bench


@pytest.mark.slow
def test_the_page_s_bench_has_all_its_rows(monkeypatch):
    monkeypatch.setattr(bench, "start_up", lambda: 0.0)
    assert len(list(bench.rows(1))) == 5


@pytest.mark.slow
def test_the_decoder_s_bench_compares_both_ways():
    ((pairs, *numbers),) = decoding.rows(1, (2,))
    assert pairs == "2"
    assert all(float(number) > 0 for number in numbers)


@pytest.mark.slow
def test_libraries_that_are_not_there_or_write_something_else_are_not_timed(monkeypatch, capsys):
    def absent(ids, vector):
        raise ModuleNotFoundError("no such library")

    def other(ids, vector):
        return lambda: [1, 2, 3]

    def alike(ids, vector):
        plan = SteeringPlan({libraries.LAYER: LayerPlan(shift=vector)}, "the same")
        lm = libraries.fresh()
        return libraries.ours(lm.tokenizer.decode(ids[0], skip_special_tokens=True), [plan], lm)

    monkeypatch.setattr(libraries, "TOKENS", 12)
    makers = {"absent": absent, "other": other, "alike": alike}
    monkeypatch.setattr(libraries, "LIBRARIES", makers)
    libraries.report(1)
    said = capsys.readouterr()
    assert "absent: not timed, ModuleNotFoundError" in said.err
    assert "other: not timed, it writes other tokens" in said.err
    assert "| alike |" in said.out
    assert "| this project |" in said.out
    assert "five rows, over one" in said.out


def test_the_bench_of_a_real_model_has_all_its_rows(tiny_lm, monkeypatch):
    monkeypatch.setattr(real, "PROMPT", "The cat")
    monkeypatch.setattr(real, "ours", lambda lm, plans, tokens: None)  # random models end early
    found = dict(real.rows(tiny_lm, 1, 3))
    assert len(found) == 6
    assert float(found["measuring over the bare forward pass"]) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_limit_is_a_time(tiny_lm, dtype):
    """Weights of an odd number of values are read, too."""
    half = copy.deepcopy(tiny_lm.model).to(dtype)
    half.extra = torch.nn.Parameter(torch.ones(3, 3, dtype=dtype))
    assert real.read_rate(SimpleNamespace(model=half)) > 0
    assert "bfloat16" in real.bfloat16_support()


def test_shares_are_of_what_was_seen():
    values = [float(value) for value in range(1, 101)]
    assert [load.at_share(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert load.at_share([2.0], 0.5) == 2
    assert load.at_share([], 0.95) == float("inf")


def test_what_broke_is_said():
    tally = load.Tally()
    for seconds in (0.2, 2.0):
        tally.add("first text", seconds)
    assert load.broken(tally) == ["p95 of first text 2.00 s, promised 1.5 s"]
    tally.fail("503")
    assert load.broken(tally)[1:] == ["1 errors"]
    assert load.broken(load.Tally()) == []


@pytest.mark.slow
def test_a_crowd_is_heard_by_the_page_s_own_protocol():
    """Everyone gets what they came for from the real server, on a tiny model."""
    noted = []
    with served_page(lambda *what: noted.append(what)) as address:
        crowd = load.Crowd(asking=4, dragging=2, looking=1, measuring=1, every=1)
        tally, seconds = load.visit(urlsplit(address).port, crowd, 8)
    assert tally.errors == Counter()
    assert noted == []
    kinds = {"page", "first text", "whole answer", "drag heard", "map", "measurement"}
    assert set(tally.seconds) == kinds
    assert len(tally.seconds["page"]) == 8
    assert tally.at("first text", 1) <= tally.at("whole answer", 1)
    assert tally.tokens > 0
    assert "Errors: none." in load.report(tally, seconds, 1.0)
