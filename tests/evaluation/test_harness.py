"""lm-evaluation-harness drives our model, and its log-likelihoods are ours."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from small_tasks import RECIPE
from tiny import SENTENCES

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.running.answers import generate_batch
from clas_core.running.likelihood import log_likelihoods, tokenise
from clas_core.shell.cli import main
from clas_core.steering.recipe import Recipe

pytestmark = pytest.mark.slow

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/items.jsonl"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
WRITING = """
task: tiny_writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/items.jsonl"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: label
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOICES = ["the cat", "a house on", "no"]


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_lm, tokenizer, tiny_corpus):
    folder = tmp_path_factory.mktemp("harness")
    tiny_lm.model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    Atlas.measure(tiny_lm, tiny_corpus).save(folder / "atlas.safetensors")
    (folder / "recipe.json").write_text(RECIPE.to_json(), "utf-8")
    lines = [
        {"prompt": text, "choices": CHOICES, "label": k % 3}
        for k, text in enumerate(SENTENCES["sw"] + SENTENCES["hi"])
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "items.jsonl").write_text(text, "utf-8")
    (folder / "choice.yaml").write_text(TASK.format(folder=folder))
    (folder / "writing.yaml").write_text(WRITING.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.mark.usefixtures("offline")
def test_log_likelihoods_and_texts_agree(lm_eval, folder, tiny_lm):
    from lm_eval.tasks import TaskManager

    import clas_core.evaluation.judging.harness  # noqa: F401  # registers `clas`

    model = {
        "pretrained": str(folder / "model"),
        "recipe": str(folder / "recipe.json"),
        "atlas": str(folder / "atlas.safetensors"),
        "batch_size": 4,
    }
    found = lm_eval.simple_evaluate(
        model="clas",
        model_args=model,
        tasks=["tiny_choice", "tiny_writing"],
        task_manager=TaskManager(include_path=str(folder)),
        log_samples=True,
        bootstrap_iters=0,
    )
    plan = RECIPE.build(Atlas.load(folder / "atlas.safetensors"))
    texts = SENTENCES["sw"] + SENTENCES["hi"]
    questions = [tokenise(tiny_lm, text, [f" {c}" for c in CHOICES]) for text in texts]
    ours, unsteered = log_likelihoods(tiny_lm, questions, [plan, None])
    samples = sorted(found["samples"]["tiny_choice"], key=lambda sample: sample["doc_id"])
    theirs = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]
    torch.testing.assert_close(torch.tensor(theirs), torch.tensor(ours), atol=1e-4, rtol=0)
    assert (torch.tensor(ours) - torch.tensor(unsteered)).abs().max() > 0.01
    samples = sorted(found["samples"]["tiny_writing"], key=lambda sample: sample["doc_id"])
    written = generate_batch(tiny_lm, texts, plan, max_new_tokens=6)
    # The harness shows a letter that is cut within its bytes, we don't.
    assert [sample["filtered_resps"][0].rstrip("\ufffd") for sample in samples] == [
        text.split("\n")[0].rstrip("\ufffd") for text in written
    ]


@pytest.mark.usefixtures("lm_eval", "offline")
def test_from_the_shell(folder, capsys):
    arguments = f"pretrained={folder / 'model'},recipe=method=IntMu&tau=0.3&target=sw"
    arguments += f",atlas={folder / 'atlas.safetensors'}"
    options = ["--model", "clas", "--model_args", arguments, "--tasks", "tiny_choice"]
    assert main(["lm_eval", *options, "--include_path", str(folder)]) == 0
    assert "tiny_choice" in capsys.readouterr().out


@pytest.fixture
def ask(lm_eval, folder, monkeypatch):
    """Put 48 requests through the harness's cache to the model `clas` or another of its own; how
    many of them reach the model, and the answers."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CachingLM
    from lm_eval.api.registry import get_model

    import clas_core.evaluation.judging.harness  # noqa: F401

    texts = [f"{text} {number}" for text in SENTENCES["sw"] for number in range(16)][:16]
    pairs = [(text, f" {choice}") for text in texts for choice in CHOICES]
    requests = [Instance("loglikelihood", {}, pair, k) for k, pair in enumerate(pairs)]

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # slow

    def run(cache, model="clas", **arguments):
        options = {"batch_size": 16, "device": "cpu", **arguments}
        lm = get_model(model)(pretrained=str(folder / "model"), **options)
        asked, plain = [], lm.loglikelihood
        monkeypatch.setattr(
            lm, "loglikelihood", lambda some: (asked.append(len(some)), plain(some))[1]
        )
        found = CachingLM(lm, str(cache)).loglikelihood(requests)
        return sum(asked), [answer[0] for answer in found]

    return run


def test_a_cache_serves_its_own_answers_only(ask, folder, tmp_path):
    steering = {
        "recipe": str(folder / "recipe.json"),
        "atlas": str(folder / "atlas.safetensors"),
    }
    asked, plain = ask(tmp_path / "plain")
    assert asked == 48
    assert ask(tmp_path / "plain") == (0, plain)
    with pytest.raises(ClasError, match="answers under another plan, recipe: give --use_cache"):
        ask(tmp_path / "plain", **steering)
    asked, steered = ask(tmp_path / "steered", **steering)
    assert asked == 48
    assert steered != plain
    assert ask(tmp_path / "steered", **steering) == (0, steered)
    # The same numbers for another language, and all that else makes a result another one.
    for other in (
        {"target": "hi"},
        {"recipe": replace(RECIPE, system="Be brief.", chat="auto")},
        {"recipe": replace(RECIPE, chat="off")},
        {"recipe": replace(RECIPE, alpha=0.5)},
        {"dtype": "bfloat16"},
    ):
        if isinstance(changed := other.get("recipe"), Recipe):
            path = tmp_path / "other.json"
            path.write_text(changed.to_json(), "utf-8")
            other = {"recipe": str(path)}
        with pytest.raises(ClasError, match="give --use_cache a new file"):
            ask(tmp_path / "steered", **{**steering, **other})


def test_caches_of_the_harness_s_own_models_are_kept_apart(ask, folder, tmp_path):
    asked, plain = ask(tmp_path / "of hf", model="hf")
    with pytest.raises(ClasError, match="another model's answers"):
        ask(tmp_path / "of hf")
    steering = {"recipe": str(folder / "recipe.json"), "atlas": str(folder / "atlas.safetensors")}
    ask(tmp_path / "of clas", **steering)
    assert ask(tmp_path / "of clas", model="hf") == (asked, plain)


def test_only_its_own_import_registers_it(lm_eval):
    """`import clas_core` leaves the harness and Python's importing alone."""
    code = (
        "import sys; before = list(sys.meta_path);"
        "import clas_core;"
        "assert sys.meta_path == before and 'lm_eval' not in sys.modules;"
        "from lm_eval.api.registry import get_model, model_registry;"
        "import lm_eval.models;"
        "assert 'clas' not in model_registry;"
        "import clas_core.evaluation.judging.harness;"
        "assert {'clas', 'hf', 'dummy'} <= set(model_registry);"
        "print(get_model('clas').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SteeredLM"


def test_a_missing_harness_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    assert main(["lm_eval", "--tasks", "x"]) == 1
    assert "pip install 'clas-studio[lm-eval]'" in capsys.readouterr().err
