"""One pass over parallel text: sums by neuron and language. An atlas is their means."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import Experts, LanguageModel
from ..model.taps import Site, Tap, tapped
from ..paths import replacing
from ..text.corpus import ParallelCorpus
from .fingerprint import fingerprint

Progress = Callable[[int, int], None]

VERSION = 2  # of what is counted and how; an atlas of another version is measured again
_SAVE_EVERY = 30.0  # seconds between two writings of the sums


def add_up(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    batch_size: int = 32,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Sums:
    """Run `lm` over all of `corpus` and add up; the arguments are `Atlas.measure`'s.

    Raises ClasError for a batch size below 1, CantResume for a `resume` file that isn't of this
    measurement.
    """
    if batch_size < 1:
        raise ClasError(f"Batch size must be at least 1, not {batch_size}.")
    sums = Sums(lm, len(corpus.languages))
    batches = list(batches_of(corpus, batch_size, lm.tokenizer))
    total = sum(len(texts) for _, texts in batches)
    rank, world = _place()
    file = None
    if resume is not None:
        label = (VERSION, fingerprint(lm), lm.dtype, corpus.fingerprint, batch_size, rank, world)
        file = _Checkpoint(_of_rank(Path(resume), rank, world), " ".join(map(str, label)))
        file.load(sums)
    mine = batches[rank::world]
    done = sum(len(texts) for _, texts in mine[: sums.batches])
    with torch.inference_mode(), tapped(lm, sums):
        for k, texts in mine[sums.batches :]:
            sums.add(lm, k, texts)
            done += len(texts)
            if file is not None:
                file.save_sometimes(sums)
            try:
                if progress is not None:
                    progress(min(total, done * world), total)
            except BaseException:  # the caller cancels: nothing measured is lost
                if file is not None:
                    file.save(sums)
                raise
    if world > 1:
        sums.add_others()
    if file is not None:
        file.remove()
    return sums


class CantResume(ClasError):
    """The file to resume from is another measurement's, or broken."""


class Sums(Tap):
    """The running sums of one measurement; all that is kept of a batch.

    tensors: "open" (int64, tokens whose gate is open) and "h" (float64), both [layers, languages,
        neurons]; "residual" [layers, languages, hidden] float64; "tokens" [languages] int64;
        "routed" [layers, languages, experts] int64; "heard" [layers] int64, calls of its MLPs.
    experts: the model's routed experts; widths: neurons of each layer; architecture: the model's
        class.
    """

    def __init__(self, lm: LanguageModel, languages: int) -> None:
        neurons = (lm.num_layers, languages, lm.num_neurons)
        self.experts = [mlp for mlp in lm.mlps if isinstance(mlp, Experts)]
        self.widths = lm.widths
        self.architecture = type(lm.model).__name__
        most = max((mlp.experts for mlp in self.experts), default=0)
        self.batches = 0
        self.tensors = {
            "open": torch.zeros(neurons, dtype=torch.int64),
            "h": torch.zeros(neurons, dtype=torch.float64),
            "residual": torch.zeros((lm.num_layers, languages, lm.hidden_size)).double(),
            "tokens": torch.zeros(languages, dtype=torch.int64),
            "routed": torch.zeros((lm.num_layers, languages, most), dtype=torch.int64),
            "heard": torch.zeros(lm.num_layers, dtype=torch.int64),
        }
        self._language = 0
        self._content = torch.zeros(0, 0)  # [texts, tokens] of the batch, 1 where they count

    def add(self, lm: LanguageModel, language: int, texts: Sequence[str]) -> None:
        """Run one batch of texts through the model."""
        batch = lm.encode(texts)
        self._language = language
        self._content = batch.content.float()
        self.tensors["tokens"][language] += int(batch.content.sum())
        lm.model.base_model(**batch.inputs, use_cache=False)  # without the vocabulary's logits
        self.batches += 1

    def gate(self, site: Site, gate: Tensor) -> None:
        self._count_open(site, gate)

    def neurons(self, site: Site, h: Tensor) -> None:
        if not site.gated:
            self._count_open(site, h)
        total = self._total(h.float(), site).cpu()
        self.tensors["h"][site.layer, self._language, site.neurons] += total
        self.tensors["heard"][site.layer] += 1
        if site.tokens is not None and site.experts is not None:
            content = self._content.to(h.device).flatten()[site.tokens].bool()
            counts = site.experts[content].bincount(minlength=site.num_experts)
            self.tensors["routed"][site.layer, self._language, : site.num_experts] += counts.cpu()

    def hidden(self, layer: int, hidden: Tensor) -> None:
        self.tensors["residual"][layer, self._language] += self._dense_total(hidden.float()).cpu()

    def _count_open(self, site: Site, gate: Tensor) -> None:
        total = self._total((gate > 0).float(), site)
        self.tensors["open"][site.layer, self._language, site.neurons] += total.long().cpu()

    def _total(self, x: Tensor, site: Site) -> Tensor:
        """Sum over the tokens that count: float32 x [..., units] -> float64 [site's neurons].

        Each text is summed in float32, which is fast, and the texts in float64.
        """
        if site.tokens is None or site.experts is None:
            return self._dense_total(x)
        content = self._content.to(x.device)
        texts, length = content.shape
        sums = x.new_zeros(site.num_experts * texts, x.shape[-1])
        rows = site.experts * texts + site.tokens // length
        sums.index_add_(0, rows, x * content.flatten()[site.tokens][:, None])
        return sums.view(site.num_experts, texts, -1).sum(1, dtype=torch.float64).flatten()

    def _dense_total(self, x: Tensor) -> Tensor:
        content = self._content.to(x.device)
        by_text = content[:, None] @ x.reshape(*content.shape, -1)  # [texts, 1, units]
        return by_text.sum((0, 1), dtype=torch.float64)

    def add_others(self) -> None:
        """Add the other processes' sums, in each of them."""
        for tensor in self.tensors.values():
            dist.all_reduce(tensor)


class _Checkpoint:
    """The sums on disk, under a label that says whose they are."""

    def __init__(self, path: Path, label: str) -> None:
        self._path, self._label = path, label
        self._saved = time.monotonic()

    def load(self, sums: Sums) -> None:
        if not self._path.exists():
            return
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("label") != self._label:
                    raise CantResume(
                        f"{self._path} is of another measurement: remove it, or choose another "
                        "file to resume from."
                    )
                for name in sums.tensors:
                    sums.tensors[name] = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CantResume(f"Can't resume from {self._path}: {error}") from error
        sums.batches = json.loads(metadata["batches"])

    def save_sometimes(self, sums: Sums) -> None:
        if time.monotonic() - self._saved >= _SAVE_EVERY:
            self.save(sums)
            self._saved = time.monotonic()

    def save(self, sums: Sums) -> None:
        metadata = {"label": self._label, "batches": str(sums.batches)}
        with replacing(self._path) as scratch:
            save_file(sums.tensors, scratch, metadata)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _place() -> tuple[int, int]:
    """(rank, number of processes) as `accelerate launch` or torchrun started them."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("gloo")  # the sums are on the CPU
    return dist.get_rank(), dist.get_world_size()


def _of_rank(path: Path, rank: int, world: int) -> Path:
    return path if world == 1 else path.with_name(f"{path.name}.{rank}")


def batches_of(
    corpus: ParallelCorpus, size: int, tokenizer: Callable[[list[str]], Any] | None = None
) -> Iterator[tuple[int, Sequence[str]]]:
    """(language, texts): texts of like length together, so that little of a batch is padding.

    Length is in tokens, or in bytes without a tokenizer.
    """
    for k, code in enumerate(corpus.languages):
        texts = corpus.sentences[code]
        units = tokenizer(list(texts))["input_ids"] if tokenizer else map(str.encode, texts)
        lengths = list(map(len, units))
        ordered = [texts[i] for i in sorted(range(len(texts)), key=lengths.__getitem__)]
        for start in range(0, len(ordered), size):
            yield k, ordered[start : start + size]
