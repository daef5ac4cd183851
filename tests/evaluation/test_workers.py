"""Processes find what one process finds; a cluster too."""

import pytest
from small_tasks import RECIPE, SmallTask

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.engine import load_items, run, tuning_columns
from clas_core.evaluation.judging.items import Validation
from clas_core.evaluation.judging.rows import standard_rows
from clas_core.evaluation.judging.workers import Source, run_in_processes
from clas_core.steering.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_lm, tokenizer, tiny_corpus):
    folder = tmp_path_factory.mktemp("model")
    tiny_lm.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Source(Recipe(model=str(folder)), Atlas.measure(tiny_lm, tiny_corpus))


@pytest.fixture(scope="module")
def columns():
    tasks = [SmallTask("choice"), SmallTask("states")]
    rows = standard_rows([RECIPE], controls=1)
    return tuning_columns(load_items(tasks, Validation, ["en", "sw", "es"], 4), rows)


def flat(found):
    return {
        (cell.row, cell.scores.task, cell.scores.metric, cell.scores.language): cell.scores.values
        for cells in found
        for cell in cells
    }


def check(found, wanted):
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, abs=1e-4)


def test_processes(source, columns, tiny_lm):
    seen = []
    found = flat(run_in_processes(source, columns, 2, lambda *done: seen.append(done)))
    check(found, flat(run(tiny_lm, source.atlas, columns)))
    assert seen[-1] == (24, 24)


def test_stopping_early(source, columns):
    """Closing the iterator ends the processes, and doesn't wait for all the work."""
    running = run_in_processes(source, columns, 2)
    assert next(running)
    running.close()


def test_a_refusal_in_a_worker_arrives(source, columns):
    with pytest.raises(ClasError, match="no directory"):
        list(run_in_processes(Source(Recipe(model="/nowhere"), source.atlas), columns, 2))


def test_cluster(source, columns, tiny_lm):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = flat(run_in_processes(source, columns[:2], 1, cluster=True))
    finally:
        ray.shutdown()
    check(found, flat(run(tiny_lm, source.atlas, columns[:2])))


def test_no_worker_is_refused(source, columns):
    with pytest.raises(ClasError, match="at least one worker"):
        list(run_in_processes(source, columns, 0))


def test_nothing_left_to_do_is_no_work(source):
    assert list(run_in_processes(source, [], 2)) == []
