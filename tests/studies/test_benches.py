"""The bench runs; what it measures is asserted nowhere."""

import pytest

from clas_core.studies.benches import page as bench


@pytest.mark.slow
def test_the_page_s_bench_has_all_its_rows(monkeypatch):
    monkeypatch.setattr(bench, "start_up", lambda: 0.0)
    assert len(list(bench.rows(1))) == 5
