"""Train the village's model from seeds: `make model`, resumable, with progress and time left.

In two stages: the village's languages from its stories, then its canon.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import ClasError
from .data import CODES, SHARES, Pool, build_pools, load_pools, save_pools, train_tokenizer


@dataclass(frozen=True)
class Settings:
    """Everything that defines a stage of training. Sizes in tokens and documents."""

    stage: str = "stories"  # which formats of documents, see `data.FORMATS`
    hidden: int = 256
    intermediate: int = 768
    layers: int = 8
    heads: int = 4
    vocabulary: int = 4096
    documents: int = 700_000  # of all languages together, by SHARES
    tokens: int = 200_000_000  # seen in training: repeats the documents about five times
    batch_tokens: int = 16_384
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.02  # share of the steps
    initializer_range: float = 0.05
    gate_penalty: float = 0.01  # times the mean open gate, added to the loss: fewer open, see card
    seed: int = 20
    checkpoint_every: int = 4000  # steps


def scaled(settings: Settings, **changes: Any) -> Settings:
    """`settings` with some values replaced."""
    return replace(settings, **changes)


def _with_canon(stories: Settings, **changes: Any) -> tuple[Settings, Settings]:
    """Both stages; the second goes on from the first with these changes."""
    return stories, scaled(stories, stage="canon", learning_rate=1.5e-3, **changes)


PRESETS: dict[str, tuple[Settings, ...]] = {
    "village": _with_canon(
        Settings(), documents=600_000, tokens=54_000_000, batch_tokens=8192, seed=21
    ),
    "mini": _with_canon(
        Settings(
            hidden=96,
            intermediate=256,
            layers=4,
            vocabulary=2048,
            documents=24_000,
            tokens=800_000,
            batch_tokens=4096,
            checkpoint_every=100,
        ),
        tokens=200_000,
    ),
}


def new_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama. ReLU gates close for good where a neuron has nothing to say, so that dead
    and language-specific neurons exist at thresholds where SiLU, always open, shows none."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=512,
        hidden_act="relu",
        mlp_bias=False,
        tie_word_embeddings=True,
        initializer_range=settings.initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Batch:
    """Documents of like length side by side: [rows, positions], padded on the right."""

    tokens: torch.Tensor
    weights: torch.Tensor


def batches(pools: dict[str, Pool], settings: Settings, pad: int, skip: int = 0) -> Iterator[Batch]:
    """Endless batches, a pure function of the settings; `skip` batches are passed over unbuilt.

    Documents are drawn by language share, without repetition within a pass over a language, in
    groups that are sorted by length and cut into batches of about `batch_tokens`.
    """
    rng = np.random.default_rng(settings.seed)
    codes = [code for code in CODES if code in pools]
    share = np.array([SHARES[code] for code in codes])
    mean_length = np.array([len(pools[code].tokens) / len(pools[code]) for code in codes])
    chance = (share / mean_length) / (share / mean_length).sum()
    order = {code: rng.permutation(len(pools[code])) for code in codes}
    cursor = dict.fromkeys(codes, 0)
    group = 32 * max(1, round(settings.batch_tokens / float(chance @ mean_length)))
    while True:
        drawn: list[tuple[Pool, int]] = []
        for k in rng.choice(len(codes), group, p=chance):
            code = codes[k]
            if cursor[code] == len(order[code]):
                order[code], cursor[code] = rng.permutation(len(pools[code])), 0
            drawn.append((pools[code], int(order[code][cursor[code]])))
            cursor[code] += 1
        lengths = np.array([pool.offsets[d + 1] - pool.offsets[d] for pool, d in drawn])
        by_length = np.argsort(lengths, kind="stable")
        plans: list[list[int]] = []
        rows: list[int] = []
        for index in by_length:  # ascending, so the newest row is the longest
            if rows and (len(rows) + 1) * lengths[index] > settings.batch_tokens:
                plans.append(rows)
                rows = []
            rows.append(int(index))
        plans.append(rows)
        for which in rng.permutation(len(plans)):
            if skip:
                skip -= 1
                continue
            yield _stack([drawn[i] for i in plans[which]], pad)


def _stack(documents: list[tuple[Pool, int]], pad: int) -> Batch:
    spans = [(pool, pool.offsets[d], pool.offsets[d + 1]) for pool, d in documents]
    width = max(end - start for _, start, end in spans)
    tokens = np.full((len(spans), width), pad, np.int64)
    weights = np.zeros((len(spans), width), np.float32)
    for row, (pool, start, end) in enumerate(spans):
        tokens[row, : end - start] = pool.tokens[start:end]
        weights[row, : end - start] = pool.weights[start:end]
    return Batch(torch.from_numpy(tokens), torch.from_numpy(weights))


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


@contextmanager
def open_gates(model: LlamaForCausalLM) -> Iterator[list[torch.Tensor]]:
    """Collect each layer's mean gate, act(gate(x)) over tokens and neurons, of forwards inside."""
    means: list[torch.Tensor] = []
    hooks = [
        layer.mlp.act_fn.register_forward_hook(lambda *call: means.append(call[2].float().mean()))
        for layer in model.model.layers
    ]
    try:
        yield means
    finally:
        for hook in hooks:
            hook.remove()


def objective(model: LlamaForCausalLM, batch: Batch, gate_penalty: float) -> torch.Tensor:
    """The loss, and a price on open gates (L1 of a ReLU): neurons specialise, as large ones do."""
    if not gate_penalty:
        return loss_of(model, batch)
    with open_gates(model) as means:
        loss = loss_of(model, batch)
    return loss + gate_penalty * torch.stack(means).mean()


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted cross-entropy of the next token. Causal, so right padding needs no mask."""
    logits = model(input_ids=batch.tokens, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.tokens[:, 1:].flatten(), reduction="none"
    )
    weights = batch.weights[:, 1:].flatten()
    return (nll * weights).sum() / weights.sum()


class Checkpoint:
    """Where a run stands: weights, optimizer moments and step, in one safetensors file."""

    def __init__(self, path: Path):
        self.path = path

    def save(self, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, step: int) -> None:
        """Write the state after `step` steps, whole or not at all."""
        tensors = {}
        for name, parameter in model.named_parameters():
            state = optimizer.state[parameter]
            tensors[f"weight.{name}"] = parameter.detach().contiguous()
            tensors[f"first.{name}"] = state["exp_avg"].contiguous()
            tensors[f"second.{name}"] = state["exp_avg_sq"].contiguous()
        partial = self.path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"step": str(step)})
        os.replace(partial, self.path)

    def load(self, model: LlamaForCausalLM, optimizer: torch.optim.AdamW) -> int:
        """Restore model and optimizer in place; the step to go on from, 0 without a checkpoint."""
        if not self.path.exists():
            return 0
        with safe_open(self.path, "pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(self.path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[f"weight.{name}"])
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": tensors[f"first.{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"second.{name}"].to(parameter.device),
                }
        return step


def make_tokenizer(
    settings: Settings, folder: Path, begin: Path | None = None
) -> PreTrainedTokenizerFast:
    """The run's tokenizer, trained at the first call (or that of the model in `begin`) and read
    back at later ones."""
    if not (folder / "tokenizer.json").exists():
        if begin is None:
            made = train_tokenizer(settings.vocabulary, seed=settings.seed)
        else:
            made = PreTrainedTokenizerFast.from_pretrained(begin)
        made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def make_pools(
    settings: Settings, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> dict[str, Pool]:
    """The run's training documents, written at the first call and read back at later ones."""
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        workers = os.cpu_count() or 1
        pools = build_pools(tokenizer, settings.documents, settings.seed, settings.stage, workers)
        save_pools(pools, folder)
        (folder / "done").touch()
    return load_pools(folder)


def train_stages(stages: Sequence[Settings], run: Path, device: str | None = None) -> Path:
    """Train the stages one after another, each in a folder of `run`, each from the model before;
    the folder of the last one's."""
    made: Path | None = None
    for number, settings in enumerate(stages, 1):
        made = train(settings, run / f"{number}-{settings.stage}", device, begin=made)
    if made is None:
        raise ClasError("There is no stage to train.")
    return made


def train(
    settings: Settings, run: Path, device: str | None = None, *, begin: Path | None = None
) -> Path:
    """Train, or go on training, in folder `run`; the folder of the finished model.

    It begins from the seed, or with the weights and tokenizer of the model in the folder `begin`.

    A killed run loses the steps since its last checkpoint and nothing else: same seeds, same
    batches, same model. Raises `ClasError` if `run` belongs to other settings.
    """
    run.mkdir(parents=True, exist_ok=True)
    record = run / "settings.json"
    wanted = json.dumps(asdict(settings), indent=1)
    if record.exists() and record.read_text() != wanted:
        raise ClasError(f"{run} holds a run with other settings: remove it or name another.")
    record.write_text(wanted)

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = make_tokenizer(settings, run / "tokenizer", begin)
    pools = make_pools(settings, tokenizer, run / "pools")
    model = new_model(settings, tokenizer)
    if begin is not None:
        before = LlamaForCausalLM.from_pretrained(begin, dtype=torch.float32)
        model.load_state_dict(before.state_dict())
    torch.nn.Module.to(model, device)
    model.train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    checkpoint = Checkpoint(run / "checkpoint.safetensors")
    start = checkpoint.load(model, optimizer)
    steps = settings.tokens // settings.batch_tokens
    kind = torch.device(device).type
    half = torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu")
    stream = batches(pools, settings, tokenizer.pad_token_id, skip=start)
    # A terminal gets a live bar, a log file a line now and then.
    interval = 0.5 if sys.stderr.isatty() else 30
    bar = tqdm(
        range(start, steps),
        initial=start,
        total=steps,
        desc="Training",
        unit="step",
        mininterval=interval,
    )
    for step in bar:
        batch = next(stream)
        batch = Batch(*(t.to(device, non_blocking=True) for t in (batch.tokens, batch.weights)))
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(step, steps, settings)
        with half:
            loss = objective(model, batch, settings.gate_penalty)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps:
            checkpoint.save(model, optimizer, step + 1)
    checkpoint.save(model, optimizer, steps)
    return export(model, tokenizer, run / "model")


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write an ordinary bfloat16 checkpoint, no file of it over 9 MB."""
    shutil.rmtree(folder, ignore_errors=True)
    clone = LlamaForCausalLM(model.config)
    clone.load_state_dict(model.state_dict())
    torch.nn.Module.to(clone, torch.bfloat16).save_pretrained(folder, max_shard_size="9MB")
    tokenizer.save_pretrained(folder)
    return folder
