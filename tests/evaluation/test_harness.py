"""lm-evaluation-harness drives our model, and its log-likelihoods are ours."""

import json
import subprocess
import sys

import pytest
import torch
from small_tasks import RECIPE
from tiny import SENTENCES

from clas_core.atlas.atlas import Atlas
from clas_core.running.answers import generate_batch
from clas_core.running.likelihood import log_likelihoods, tokenise
from clas_core.shell.cli import main

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

    from clas_core.evaluation.judging.registering import register_when_imported

    register_when_imported()
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


def test_importing_it_costs_nothing(lm_eval):
    """`import clas_core` leaves the harness alone; the harness then knows `clas` beside its own."""
    code = (
        "import sys, clas_core;"
        "from clas_core.evaluation.judging import registering as r;"
        "r.register_when_imported(); r.register_when_imported();"
        "assert 'lm_eval' not in sys.modules;"
        "from lm_eval.api.registry import get_model, model_registry;"
        "import lm_eval.models;"
        "assert {'clas', 'hf', 'dummy'} <= set(model_registry);"
        "print(model_registry._objs['clas'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "clas_core.evaluation.judging.harness:SteeredLM"


def test_a_missing_harness_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    assert main(["lm_eval", "--tasks", "x"]) == 1
    assert "pip install 'clas-studio[lm-eval]'" in capsys.readouterr().err
