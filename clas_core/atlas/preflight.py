"""What to know of a model before a byte of its weights is fetched or read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import ClasError
from ..model.architecture import Experts, context_of, find_mlps
from ..model.gguf import read_header
from ..model.loading import (
    Device,
    build_empty,
    check_parameters,
    choose_dtype,
    choose_place,
    is_unpacked,
    quantisation,
    read_config,
    read_tokenizer,
)
from ..model.machine import free_memory, multiply_rate
from ..model.sources import Source, find_source
from ..text.corpus import ParallelCorpus
from ..text.languages import get_language
from .measuring import batches_of

BATCH = 32  # sentences, as `Atlas.measure` takes them
_TOKENS = 64  # of a sentence, where there is no corpus to count in
_REST = 1.5  # time for all, in times for matrix products
_BYTES = 1.2  # tokens a character, from where they are parts of characters


@dataclass(frozen=True)
class Fertility:
    """How a tokenizer cuts one language, on the sentences of a corpus, special tokens left out.

    against_english: its tokens for each token of the same sentences in English (Petrov et al.,
    arXiv 2305.15425), None without English. unknown: the share of tokens that stand for text the
    tokenizer can't spell.
    """

    language: str
    tokens_per_character: float
    against_english: float | None
    unknown: float


@dataclass(frozen=True)
class Preflight:
    """What a model is and asks for. Everything in bytes; None or empty where it isn't known.

    reason: why it can't be used, one sentence; empty if it can. architecture: the class in
    transformers. widths: MLP neurons of each layer, those of all experts included. experts,
    experts_per_token: routed ones, 0 without. download: what must be fetched. weights: memory they
    take in dtype; working: what measuring one batch takes besides; free: memory there is.
    context: tokens that it was made to read, and too_long: sentences of the corpus beyond that.
    minutes: to measure the corpus.
    """

    source: str
    revision: str | None
    gated: bool
    download: int
    device: str
    free: int | None
    reason: str = ""
    architecture: str = ""
    quantisation: str | None = None
    dtype: str = ""
    parameters: int | None = None
    hidden_size: int | None = None
    context: int | None = None
    widths: tuple[int, ...] = ()
    experts: int = 0
    experts_per_token: int = 0
    weights: int | None = None
    working: int | None = None
    chat_template: bool | None = None
    languages: tuple[Fertility, ...] = ()
    too_long: int = 0
    minutes: float | None = None

    @property
    def supported(self) -> bool:
        """Whether it can be measured and steered."""
        return not self.reason

    @property
    def layers(self) -> int:
        """Decoder layers; 0 where that isn't known."""
        return len(self.widths)

    @property
    def needed(self) -> int | None:
        """Memory to measure and steer it, in bytes."""
        known = self.weights is not None and self.working is not None
        return self.weights + self.working if known else None  # type: ignore[operator]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may get in the way, one sentence each."""
        return tuple(_warnings(self))

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """All of it for people: a name and a text each."""
        return tuple((name, text) for name, text in _rows(self) if text)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        derived = ("supported", "layers", "needed", "warnings")
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in derived}}


def inspect(
    model: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: Device | None = None,
    corpus: ParallelCorpus | None = None,
) -> Preflight:
    """Say what `load` with these arguments would find and need, from config and tokenizer alone.

    The model is built without weights and searched for its MLPs, so `supported` is what loading
    will say. With a corpus: the tokenizer's fertility in its languages, and the minutes that
    measuring takes. These are an estimate: the multiplications of the layers at the speed of this
    machine's matrix product, timed for a moment, times 1.5 for all that is no multiplication. On
    one CPU core, with others busy, it was within a factor of 2 for five models of 8 to 120 million
    parameters, a mixture of experts among them; far smaller models take longer than it says.

    Raises ClasError if there is no such model; of one that can't be used, `reason` says why.
    """
    place = choose_place(device)
    source = find_source(model, revision)
    seen = Preflight(
        source=str(model),
        revision=source.commit,
        gated=source.gated,
        download=source.download_bytes,
        device=str(place),
        free=free_memory(place),
    )
    try:
        config = read_config(source)
        kind = choose_dtype(config, dtype, place)
        packing = _packing(source, config)
        seen = replace(seen, quantisation=packing, dtype=str(kind)[len("torch.") :])
        empty = build_empty(source, config)
        seen = replace(seen, architecture=type(empty).__name__)
        check_parameters(source, empty)
        body = _measure_body(empty)
        seen = replace(
            seen,
            parameters=body.parameters,
            hidden_size=body.hidden,
            context=context_of(config),
            widths=body.widths,
            experts=body.experts,
            experts_per_token=body.experts_per_token,
            weights=(
                source.weight_bytes
                if packing and source.gguf is None and not is_unpacked(config)
                else body.parameters * kind.itemsize
            ),
        )
        source.check()
        tokenizer = read_tokenizer(source)
        text = _read_text(tokenizer, corpus, seen.context)
        seen = replace(
            seen,
            working=body.working_bytes(text.largest_batch, len(text.languages), place, kind),
            chat_template=tokenizer.chat_template is not None,
            languages=text.languages,
            too_long=text.too_long,
        )
        if corpus is not None:
            rate = multiply_rate(place, kind, body.hidden, body.busy)
            seen = replace(seen, minutes=2 * _REST * body.active * text.tokens / rate / 60)
    except ClasError as error:
        seen = replace(seen, reason=str(error))
    return seen


def _packing(source: Source, config: PreTrainedConfig) -> str | None:
    """How the weights are quantised, None if they aren't."""
    if source.gguf is None:
        return quantisation(config)
    header = read_header(source.file)
    return f"{header.types}, unpacked when it is opened" if header.quantised else None


@dataclass(frozen=True)
class _Body:
    """Sizes. active: parameters that a token meets in the layers; busy: neurons, in the widest."""

    parameters: int
    active: int
    hidden: int
    busy: int
    widths: tuple[int, ...]
    experts: int
    experts_per_token: int

    def working_bytes(
        self, tokens: int, languages: int, place: torch.device, dtype: torch.dtype
    ) -> int:
        """What a batch of `tokens` takes in the widest layer, and on the CPU the sums of all."""
        copies = 10 if self.experts else 6  # of neurons, at once: of experts, also side by side
        layer = tokens * (copies * self.busy + 8 * self.hidden) * max(dtype.itemsize, 4)
        sums = 9 * 8 * languages * len(self.widths) * max(self.widths)
        return layer + (sums if place.type == "cpu" else 0)


def _measure_body(model: PreTrainedModel) -> _Body:
    """Raises UnsupportedModel if there are no MLPs."""
    text = model.config.get_text_config()
    blocks, mlps = find_mlps(model)
    routed = [mlp for mlp in mlps if isinstance(mlp, Experts)]
    experts = max((mlp.experts for mlp in routed), default=0)
    chosen = min(getattr(text, "num_experts_per_tok", None) or experts, experts)
    idle = sum(
        parameter.numel() * (mlp.experts - chosen) // mlp.experts
        for mlp in routed
        for parameter in mlp.module.parameters()
    )
    widths, busy = [0] * len(blocks), [0] * len(blocks)
    for mlp in mlps:
        widths[mlp.layer] += mlp.neurons
        busy[mlp.layer] += mlp.per_expert * chosen if isinstance(mlp, Experts) else mlp.neurons
    return _Body(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        active=sum(p.numel() for block in blocks for p in block.parameters()) - idle,
        hidden=text.hidden_size,
        busy=max(busy),
        widths=tuple(widths),
        experts=experts,
        experts_per_token=chosen,
    )


@dataclass(frozen=True)
class _Text:
    """A corpus as a tokenizer sees it: tokens, padding included, of all and of one batch.

    too_long: sentences with more tokens than the model's context.
    """

    tokens: int
    largest_batch: int
    languages: tuple[Fertility, ...]
    too_long: int = 0


def _read_text(tokenizer: Any, corpus: ParallelCorpus | None, context: int | None) -> _Text:
    if corpus is None:
        return _Text(0, BATCH * _TOKENS, ())
    batches, too_long = [], 0
    for _, _, texts in batches_of(corpus, BATCH):
        sizes = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
        batches.append(len(sizes) * max(sizes))
        too_long += sum(context is not None and size > context for size in sizes)
    pieces = {
        code: [
            token
            for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            for token in row
        ]
        for code, texts in corpus.sentences.items()
    }
    english = len(pieces["en"]) if "en" in pieces else None
    languages = tuple(
        Fertility(
            language=code,
            tokens_per_character=len(tokens) / sum(map(len, corpus.sentences[code])),
            against_english=len(tokens) / english if english else None,
            unknown=tokens.count(tokenizer.unk_token_id) / max(len(tokens), 1),
        )
        for code, tokens in pieces.items()
    )
    return _Text(sum(batches), max(batches), languages, too_long)


def _warnings(seen: Preflight) -> Iterator[str]:
    if seen.needed is not None and seen.free is not None and seen.needed > seen.free:
        where = "on the CPU" if seen.device == "cpu" else f"on {seen.device}"
        smaller = "a smaller dtype or model"
        yield (
            f"It needs {size_text(seen.needed)} of memory {where} and {size_text(seen.free)} are "
            f"free: choose {smaller if seen.device == 'cpu' else 'device_map=auto, ' + smaller}."
        )
    if seen.gated and not seen.reason:
        yield "It is gated: its licence binds you."
    spelled = [_name(one) for one in seen.languages if one.tokens_per_character > _BYTES]
    if spelled:
        yield (
            f"The tokenizer spells {_listed(spelled)} in bytes, with more tokens than letters: "
            "neurons see pieces of letters there."
        )
    unknown = [_name(one) for one in seen.languages if one.unknown > 0.01]
    if unknown:
        yield f"The tokenizer can't spell all of {_listed(unknown)}: choose another model for it."
    if seen.too_long:
        what = "sentence is" if seen.too_long == 1 else "sentences are"
        yield (
            f"{seen.too_long:,} {what} longer than the {seen.context:,} tokens that it was made "
            "to read: shorten them, or leave them out."
        )
    if seen.minutes is not None and seen.minutes > 60:
        yield f"Measuring takes {_time_text(seen.minutes)}: choose fewer sentences, or a GPU."


def _rows(seen: Preflight) -> Iterator[tuple[str, str]]:
    yield "model", seen.source
    yield "revision", seen.revision or ""
    yield "architecture", seen.architecture
    yield "parameters", f"{seen.parameters:,}" if seen.parameters else ""
    if seen.widths:
        least, most = min(seen.widths), max(seen.widths)
        neurons = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        yield "layers", f"{seen.layers} of {neurons} neurons, hidden size {seen.hidden_size:,}"
    if seen.experts:
        yield "experts", f"{seen.experts} a layer, {seen.experts_per_token} for each token"
    yield "context", f"{seen.context:,} tokens" if seen.context else ""
    yield "quantised", seen.quantisation or ""
    yield "chat template", {True: "yes", False: "no", None: ""}[seen.chat_template]
    yield "gated", "yes" if seen.gated else ""
    yield "download", size_text(seen.download) if seen.download else "none, it is on this machine"
    if seen.needed is not None:
        free = "" if seen.free is None else f", {size_text(seen.free)} free"
        yield "memory", f"{size_text(seen.needed)} in {seen.dtype} on {seen.device}{free}"
    if seen.minutes is not None:
        yield "measuring", f"about {_time_text(seen.minutes)}"


def size_text(size: int) -> str:
    """Bytes for people: 512 MB, 16.1 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if unit > 1e6 else f"{size / unit:.0f} {name}"
    return f"{size / 1e3:.0f} kB"


def _time_text(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.0f} hours"


def _name(one: Fertility) -> str:
    return get_language(one.language).name


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
