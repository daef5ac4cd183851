"""Sweeps over several nodes of Ray find what one process finds, also when one of them dies."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from noted import Noted
from small_tasks import check, flat, small_runs

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.engine import run_tasks
from clas_core.evaluation.judging.workers import run_in_processes
from clas_core.steering.recipe import Recipe

ray = pytest.importorskip("ray", reason='pip install "clas-studio[ray]"')
pytestmark = pytest.mark.slow
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}  # a node


@pytest.fixture(scope="module")
def head():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def cluster(head):
    """A head and one more node on this machine, a processor each; the other one may be killed."""
    if not head.worker_nodes:
        head.add_node(**SMALL)
    head.wait_for_nodes()
    wait_for(lambda: ray.available_resources().get("CPU") == 2)
    return head


def other_of(cluster):
    (node,) = cluster.worker_nodes
    return node


def alive():
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_lm, tokenizer, tiny_corpus):
    folder = tmp_path_factory.mktemp("model")
    tiny_lm.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Recipe(model=str(folder)), Atlas.measure(tiny_lm, tiny_corpus)


@pytest.fixture
def setup(model, tmp_path):
    return Noted(*model, folder=tmp_path)


@pytest.fixture(scope="module")
def runs():
    return small_runs()


@pytest.fixture(scope="module")
def wanted(model, runs, tiny_lm):
    return flat(run_tasks(tiny_lm, model[1], runs))


def wait_for(what, seconds=120.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_nodes_find_what_one_process_finds(cluster, setup, runs, wanted):
    seen = []
    found = run_in_processes(setup, runs, 2, lambda *done: seen.append(done), cluster=True)
    check(flat(found), wanted)
    assert setup.nodes == alive()
    assert seen[-1] == (24, 24)


def test_more_workers_than_processors_wait_for_their_turn(cluster, setup, runs, wanted):
    check(flat(run_in_processes(setup, runs, 7, cluster=True)), wanted)


def test_a_killed_node_changes_no_number(cluster, setup, runs, wanted):
    """It dies in the midst of a job, which another node then does."""
    doomed = other_of(cluster).node_id
    (setup.folder / "doomed").write_text(doomed)

    def kill():
        wait_for(lambda: doomed in setup.nodes)
        cluster.remove_node(other_of(cluster), allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    check(flat(run_in_processes(setup, runs, 2, cluster=True)), wanted)
    killer.join()
    wait_for(lambda: doomed not in alive())


def test_a_node_that_joins_gets_work(cluster, setup, runs, wanted):
    cluster.remove_node(other_of(cluster), allow_graceful=False)
    wait_for(lambda: len(alive()) == 1)
    node = None

    def add(done, total):  # after the first job
        nonlocal node
        if node is None:
            node = cluster.add_node(**SMALL)
            wait_for(lambda: node.node_id in alive())

    check(flat(run_in_processes(setup, runs, 2, add, cluster=True)), wanted)
    assert setup.nodes == alive()


def test_a_killed_process_changes_no_number(cluster, setup, runs, wanted):
    (setup.folder / "crashes").write_text("1")
    check(flat(run_in_processes(setup, runs, 2, cluster=True)), wanted)
    assert len(list(setup.folder.glob("crash-*"))) == 1


def test_processes_that_always_die_get_a_sentence(cluster, setup, runs):
    (setup.folder / "crashes").write_text("999")
    with pytest.raises(ClasError, match="ended again and again"):
        list(run_in_processes(setup, runs, 2, cluster=True))


def test_a_refusal_arrives_as_it_was_said(cluster, setup, runs):
    with pytest.raises(ClasError, match="no directory") as caught:
        list(
            run_in_processes(replace(setup, recipe=Recipe(model="/nowhere")), runs, 2, cluster=True)
        )
    assert "\n" not in str(caught.value)


def test_leaving_early_leaves_nothing_running(cluster, setup, runs):
    found = run_in_processes(setup, runs, 2, cluster=True)
    next(found)
    found.close()
    wait_for(lambda: ray.available_resources().get("CPU") == 2, 30)
