"""The bench runs; what it measures is asserted nowhere."""

import pytest

from clas_core.steering.plan import LayerPlan, SteeringPlan
from clas_core.studies.benches import decoding, libraries, real
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
