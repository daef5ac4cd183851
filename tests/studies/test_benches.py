"""The bench runs; what it measures is asserted nowhere."""

import pytest

from clas_core.studies.benches import decoding
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
