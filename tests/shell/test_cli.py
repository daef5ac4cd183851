from __future__ import annotations

import json
import re

import pytest
from chats import CHATML, chat_lm
from gguf_files import write_gguf
from tiny import SENTENCES, make_tokenizer, tiny_llama_model

from clas_core.atlas.atlas import Atlas
from clas_core.model.loading import load
from clas_core.model.prompts import render
from clas_core.running.generation import generate
from clas_core.shell import options
from clas_core.shell.cli import main
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus

PROMPT = "The cat sleeps"
SETTINGS = ["--alpha", "-1.5", "--layers", "1-3", "--shared-from", "2", "--max-new-tokens", "9"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer, tiny_lm):
    """A folder with a saved tiny model, a corpus and a measured atlas."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_lm.model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "text").mkdir()
    for code, lines in SENTENCES.items():
        (folder / "text" / f"{code}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def common(place):
    return ["--model", str(place / "model"), "--corpus", str(place / "text")]


@pytest.fixture(scope="module")
def atlas(place, common):
    path = place / "atlas.safetensors"
    assert main(["measure", *common, "--out", str(path)]) == 0
    return path


def steer(capsys, *arguments):
    assert main(["steer", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_is_spread(place, common, capsys, monkeypatch):
    seen = []
    spread = options.load
    monkeypatch.setattr(
        options, "load", lambda *args, **more: seen.append(more) or spread(*args, **more)
    )
    monkeypatch.setattr(options, "_own_gpu", lambda: "cpu")  # as of processes that share a machine
    asked = [*common, *SETTINGS, "--target", "sw", PROMPT]
    assert steer(capsys, *asked, "--device-map", "auto") == steer(capsys, *asked)
    assert [(one["device"], one["device_map"]) for one in seen] == [(None, "auto"), ("cpu", None)]
    command = ["sweep", *common, "--tasks", "retrieval", "--grid", "alpha=1", "--out", "x"]
    assert main([*command, "--device-map", "auto", "--workers", "2"]) == 1
    assert "--device-map spreads one model over the devices" in capsys.readouterr().err


def test_measure(place, common, atlas, tiny_lm, tiny_corpus, capsys):
    assert Atlas.load(atlas).languages == tuple(sorted(tiny_corpus.languages))
    capsys.readouterr()
    out = place / "small.safetensors"
    options = ["--languages", "sw,en", "--sentences", "2", "--out", str(out)]
    assert main(["measure", *common, *options]) == 0
    assert Atlas.load(out).languages == ("sw", "en")
    head, *table, last = capsys.readouterr().out.splitlines()
    assert head.endswith("layers count from 0:")
    assert table[0].split() == ["layer", "dead", "specific", "partial", "shared"]
    for layer, row in enumerate(table[1:]):
        number, *counts = map(int, row.split())
        assert number == layer
        assert sum(counts) == tiny_lm.num_neurons
    assert last == f"{out}: 2 sentences in sw, en"


def test_steer_writes_what_the_library_writes(common, atlas, tiny_lm, capsys):
    found = steer(capsys, PROMPT, *common, "--atlas", str(atlas), *SETTINGS)
    recipe = Recipe(alpha=-1.5, layers=(1, 3), shared_from=2, max_new_tokens=9)
    plan = recipe.build(Atlas.load(atlas))
    *_, expected = generate(tiny_lm, PROMPT, [None, plan], max_new_tokens=9)
    assert found["token_ids"] == [list(ids) for ids in expected.token_ids]
    assert found["texts"] == list(expected.texts)
    assert len(found["kl"]) == 9
    assert found["texts"][0] != found["texts"][1]


def test_steer_says_where_and_how_much(common, atlas, tiny_lm, capsys):
    options = [PROMPT, *common, "--atlas", str(atlas), *SETTINGS, "--where", "answer:2"]
    found = steer(capsys, *options)
    recipe = Recipe(alpha=-1.5, layers=(1, 3), shared_from=2, where="answer:2")
    plan = recipe.build(Atlas.load(atlas))
    *_, expected = generate(tiny_lm, PROMPT, [None, plan], max_new_tokens=9)
    assert found["token_ids"] == [list(ids) for ids in expected.token_ids]
    prompt = len(expected.prompt_ids[0])
    assert found["steered_tokens"] == [False] * prompt + [True] * 9
    assert found["touched"] == {"neurons": plan.touched.neurons, "coordinates": 0}
    assert main(["steer", *options]) == 0
    assert capsys.readouterr().out.endswith(" neurons, at answer:2 alone.\n")


def test_steer_for_people(common, atlas, capsys):
    assert main(["steer", PROMPT, *common, "--atlas", str(atlas), *SETTINGS]) == 0
    output = capsys.readouterr().out
    assert output.startswith("unsteered: ")
    assert "\n  steered: " in output
    *_, effects, touched = output.splitlines()
    assert effects.endswith("nats.")
    assert re.fullmatch(r"CLAS changes \d+ neurons\.", touched)


def test_a_recipe_runs_the_same_from_file_link_and_options(place, common, capsys):
    by_options = steer(capsys, PROMPT, *common, *SETTINGS)
    recipe = Recipe.from_json(json.dumps(by_options["recipe"]))
    assert recipe.hash == by_options["hash"]
    path = place / "recipe.json"
    path.write_text(recipe.to_json(), encoding="utf-8")
    assert steer(capsys, "--recipe", str(path)) == by_options
    assert steer(capsys, "--recipe", f"http://localhost/?{recipe.to_query()}") == by_options
    changed = steer(capsys, "--recipe", str(path), "--alpha", "0")
    assert changed["texts"][0] == changed["texts"][1] == by_options["texts"][0]
    assert changed["sentence"].startswith("Identical text; no shift")


@pytest.fixture(scope="module")
def chat(place):
    """Options that choose a saved chat model, and that model."""
    lm = chat_lm(CHATML)
    lm.model.save_pretrained(place / "chat")
    lm.tokenizer.save_pretrained(place / "chat")
    return ["--model", str(place / "chat"), "--corpus", str(place / "text"), *SETTINGS], lm


def test_a_chat_is_shown_and_answered_as_the_library_does(chat, tiny_corpus, capsys):
    options, lm = chat
    found = steer(capsys, PROMPT, *options, "--system", "Be brief.")
    prompt = render(lm, PROMPT, system="Be brief.")
    assert found["prompt"] == prompt.text
    plan = Recipe.from_json(json.dumps(found["recipe"])).build(Atlas.measure(lm, tiny_corpus))
    *_, expected = generate(lm, prompt, [None, plan], max_new_tokens=9)
    assert found["token_ids"] == [list(ids) for ids in expected.token_ids]
    assert main(["steer", PROMPT, *options]) == 0
    assert capsys.readouterr().out.startswith("   prompt: <|im_start|>user\nThe cat sleeps<|im_e")
    assert steer(capsys, PROMPT, *options, "--chat", "off")["prompt"] == f"<s>{PROMPT}"


def test_a_baked_chat_model_answers_the_same(chat, place, capsys):
    options, lm = chat
    expected = steer(capsys, PROMPT, *options)
    assert main(["bake", *options, "--out", str(place / "baked chat")]) == 0
    baked = load(place / "baked chat")
    *_, step = generate(baked, render(baked, PROMPT), max_new_tokens=9)
    assert list(step.token_ids[0]) == expected["token_ids"][1]
    assert step.prompt_ids[0] == render(lm, PROMPT).token_ids


def test_a_model_from_a_gguf_is_baked_into_one(place, capsys):
    pytest.importorskip("accelerate", reason="transformers asks for it to open GGUF files")
    file = write_gguf(tiny_llama_model(hidden_act="silu"), make_tokenizer(), place / "a.gguf")
    options = ["--model", str(file), "--corpus", str(place / "text"), *SETTINGS]
    found = steer(capsys, PROMPT, *options)
    out = place / "steered.gguf"
    assert main(["bake", *options, "--out", str(out)]) == 0
    *_, step = generate(load(out), PROMPT, max_new_tokens=9)
    assert list(step.token_ids[0]) == found["token_ids"][1] != found["token_ids"][0]


def test_bake_writes_the_same_tokens(place, common, atlas, capsys):
    expected = steer(capsys, PROMPT, *common, "--atlas", str(atlas), *SETTINGS)
    out = place / "baked"
    assert main(["bake", *common, "--atlas", str(atlas), *SETTINGS, "--out", str(out)]) == 0
    *_, step = generate(load(out), PROMPT, max_new_tokens=9)
    assert list(step.token_ids[0]) == expected["token_ids"][1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["steer", ""], "The prompt is empty"),
        (["steer", PROMPT, "--alpha", "nan"], "alpha must be a number"),
        (["steer", PROMPT, "--target", "xx"], "'xx'"),
        (["steer", PROMPT, "--chat", "yes"], "chat must be one of auto, on, off"),
        (["steer", PROMPT, "--chat", "on"], "no chat template: set chat to off"),
        (["steer", PROMPT, "--system", "Be brief."], "without a chat template"),
        (["steer", PROMPT, "--layers", "2-9"], "(2, 9)"),
        (["steer", PROMPT, "--atlas", "nowhere.safetensors"], "nowhere.safetensors"),
        (["steer", "--recipe", "nowhere.json"], "nowhere.json"),
        (["steer", PROMPT, "--corpus", "nowhere"], "no file or folder nowhere"),
        (["steer", PROMPT, "--model", "./nowhere"], "no directory or GGUF file ./nowhere"),
        (["measure", "--out", "x", "--languages", "xx"], "no xx; its languages are"),
        (["bake", "--out", "."], "isn't empty"),
    ],
)
def test_refusals_are_one_sentence(common, arguments, sentence, capsys, monkeypatch, place):
    monkeypatch.chdir(place)
    command, *rest = arguments
    assert main([command, *common, *rest]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("clas: ")
    assert sentence in line


@pytest.mark.parametrize(
    "arguments", [[], ["measure"], ["steer", "a", "--layers", "6"], ["steer", "a", "--alpha", "x"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: clas" in capsys.readouterr().err


def test_help(capsys):
    for command in ("measure", "steer", "bake"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert "--model" in capsys.readouterr().out


def test_interrupt(monkeypatch, common, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ParallelCorpus, "open", interrupt)
    assert main(["steer", PROMPT, *common]) == 130
    assert capsys.readouterr().err.strip() == "clas: interrupted"


def test_inspect(place, common, tiny_lm, capsys):
    model, corpus = str(place / "model"), common[3]
    assert main(["inspect", model, "--corpus", corpus, "--dtype", "bfloat16"]) == 0
    output = capsys.readouterr().out
    assert "architecture: LlamaForCausalLM\n" in output
    assert "layers: 3 of 64 neurons, hidden size 32\n" in output
    table = output.partition("against English\n")[2].splitlines()
    assert [line.split()[0] for line in table[:4]] == ["en", "es", "hi", "sw"]
    assert main(["inspect", model, "--corpus", corpus, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["parameters"], seen["supported"]) == (tiny_lm.model.num_parameters(), True)


def test_inspect_of_what_is_no_model(place, capsys):
    (place / "encoder").mkdir()
    (place / "encoder" / "config.json").write_text('{"model_type": "t5"}')
    assert main(["inspect", str(place / "encoder"), "--corpus", str(place / "text")]) == 1
    captured = capsys.readouterr()
    assert "is an encoder-decoder: choose" in captured.err
    assert "Traceback" not in captured.err
    assert f"model: {place / 'encoder'}" in captured.out
