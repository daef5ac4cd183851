"""The client of other servers against real ones: llama.cpp's two (that of llama-cpp-python and
llama-server) on baked GGUF files, vLLM on a baked directory.

Each test is skipped where its server isn't installed. A vLLM for processors will do.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from gguf_files import write_gguf
from tiny import make_tokenizer, tiny_llama_model

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.running.endpoints import Endpoint, Question, write_apart
from clas_core.running.generation import generate
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan

pytestmark = pytest.mark.slow
PROMPTS = ("The cat sleeps in the house.", "Mvua inanyesha.")
TOKENS = 24
QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


def by_python(folder: Path, name: str, port: int) -> list[str]:
    if not all(map(importlib.util.find_spec, ("llama_cpp", "sse_starlette"))):
        pytest.skip("pip install llama-cpp-python[server]")
    return [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(folder / f"{name}.gguf")),
        *("--port", str(port)),
        *("--n_ctx", "256", "--n_threads", "1", "--interrupt_requests", "false"),
    ]


def by_llama_server(folder: Path, name: str, port: int) -> list[str]:
    if not (program := shutil.which("llama-server")):
        pytest.skip("no llama-server in PATH")
    return [
        *(program, "-m", str(folder / f"{name}.gguf"), "--port", str(port)),
        *("-c", "1024", "-np", "4", "-t", "1", "--no-webui"),
    ]


def by_vllm(folder: Path, name: str, port: int) -> list[str]:
    if not (program := shutil.which("vllm")):
        pytest.skip("no vllm in PATH")
    return [
        *(program, "serve", str(folder / name), "--served-model-name", name, "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "256", "--enforce-eager"),
        *("--gpu-memory-utilization", "0.2"),
    ]


@contextmanager
def served(
    command: Callable[[Path, str, int], list[str]], folder: Path, name: str
) -> Iterator[Endpoint]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log, started = folder / f"{name}.log", command(folder, name, port)
    with log.open("wb") as said:
        process = subprocess.Popen(
            started, stdout=said, stderr=said, env={**QUIET, **os.environ}, start_new_session=True
        )
    try:
        endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", name)
        for _ in range(600):
            try:
                endpoint.check()
                break
            except ClasError as error:
                assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
                last = error
                time.sleep(0.5)
        else:
            raise last
        yield endpoint
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it began
        process.wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny model as GGUF and as a directory, each also with a plan baked in; and what we say."""
    folder, tokenizer = tmp_path_factory.mktemp("served"), make_tokenizer()
    model = tiny_llama_model(hidden_act="silu", head_dim=32)  # vLLM's least
    # A random model says halves of characters, of which every program makes something else: tokens
    # that aren't plain text get the logit 0, and some other one always has more.
    plain = torch.zeros(model.config.vocab_size, 1)
    for token, number in tokenizer.get_vocab().items():
        plain[number] = token.replace("Ġ", "").isalpha() and token.replace("Ġ", "").isascii()
    with torch.no_grad():
        model.lm_head.weight *= plain
    lm = load(write_gguf(model, tokenizer, folder / "plain.gguf", "F32"))
    generator = torch.Generator().manual_seed(0)
    scale = 1 + 2 * torch.rand(64, generator=generator)
    shift = torch.randn(32, generator=generator)
    plan = SteeringPlan({1: LayerPlan(scale=scale, shift=shift)}, "test plan")
    bake(lm, plan, folder / "steered.gguf")
    model.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    bake(load(folder / "plain"), plan, folder / "steered")
    wanted = {}
    for prompt in PROMPTS:
        *_, step = generate(lm, prompt, plans=[None, plan], max_new_tokens=TOKENS)
        assert step.texts[0] != step.texts[1]
        wanted[prompt] = step.texts
    return folder, wanted


@pytest.fixture(scope="module", params=[by_python, by_llama_server, by_vllm])
def pair(request, files):
    folder, _ = files
    with ExitStack() as stack:
        names = ("plain", "steered")
        yield [stack.enter_context(served(request.param, folder, name)) for name in names]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_texts_are_ours(pair, files, prompt):
    *_, last = write_apart(pair, Question(prompt, TOKENS), threading.Event())
    assert tuple(one.text for one in last) == files[1][prompt]
    assert not any(one.done for one in last)  # cut at their length, and so they say


def test_texts_come_bit_by_bit(pair):
    with closing(pair[0].connect()) as connection:
        texts = [one.text for one in pair[0].answer(connection, Question(PROMPTS[0], 200))]
    assert len(set(texts)) > 10
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_a_seed_draws_the_same_again(pair):
    asked = Question(PROMPTS[0], TOKENS, temperature=1.0, seed=3)
    once, again = (list(write_apart(pair, asked, threading.Event()))[-1] for _ in range(2))
    assert [one.text for one in once] == [one.text for one in again]


def test_sixteen_at_once_get_what_one_gets(pair, files):
    """Servers queue them or answer them together; nobody's text is another's."""
    found: dict[int, tuple[str, ...]] = {}

    def ask(number: int) -> None:
        prompt = PROMPTS[number % 2]
        *_, last = write_apart(pair, Question(prompt, TOKENS), threading.Event())
        found[number] = tuple(one.text for one in last)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: files[1][PROMPTS[number % 2]] for number in range(16)}


def test_too_long_a_prompt_gets_a_sentence(pair):
    with pytest.raises(ClasError, match=r"plain|steered") as caught:
        list(write_apart(pair, Question("cat " * 3000, TOKENS), threading.Event()))
    assert len(str(caught.value)) < 320


def test_who_leaves_is_forgotten(pair, files):
    """A text that nobody waits for doesn't hold up the next one."""
    for _ in range(4):
        found = write_apart(pair, Question(PROMPTS[0], 220), threading.Event())
        next(found)
        found.close()
    *_, last = write_apart(pair, Question(PROMPTS[0], TOKENS), threading.Event(), longest=60)
    assert tuple(one.text for one in last) == files[1][PROMPTS[0]]
