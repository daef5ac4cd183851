"""One pass over parallel text: sums by neuron and language. An atlas is their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import Experts, LanguageModel, context_of
from ..model.taps import Site, Tap, tapped
from ..text.corpus import ParallelCorpus
from .fingerprint import fingerprint
from .processes import joined
from .unfinished import Unfinished

Progress = Callable[[int, int], None]

VERSION = 2  # of what is counted and how; an atlas of another version is measured again


def add_up(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    batch_size: int = 32,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Sums:
    """Run `lm` over all of `corpus` and add up; the arguments are `Atlas.measure`'s.

    Raises ClasError for a batch size below 1 and a text that is too long for the model, CantResume
    for a `resume` file that isn't of this measurement.
    """
    if batch_size < 1:
        raise ClasError(f"Batch size must be at least 1, not {batch_size}.")
    sums = Sums(lm, len(corpus.languages))
    batches = list(batches_of(corpus, batch_size, lm.tokenizer))
    total = sum(len(texts) for _, texts in batches)
    label = " ".join(map(str, (VERSION, fingerprint(lm), lm.dtype, corpus.fingerprint, batch_size)))
    with joined() as processes:
        processes.agree(label)
        left, file = list(range(len(batches))), None
        if resume is not None:
            file = Unfinished(Path(resume), label, processes, sums.tensors, len(batches))
            left = file.resume()
        done = total - sum(len(batches[index][1]) for index in left)
        _try_longest(lm, [texts[-1] for _, texts in batches])
        with torch.no_grad(), tapped(lm, sums):
            for index in left[processes.rank :: processes.count]:
                k, texts = batches[index]
                sums.add(lm, k, texts)
                done += len(texts) * processes.count  # the others are about as far
                if file is not None:
                    file.add(index)
                try:
                    if progress is not None:
                        progress(min(total, done), total)
                except BaseException:  # the caller cancels: nothing measured is lost
                    if file is not None:
                        file.save()
                    raise
        processes.add(sums.tensors.values())
        if file is not None:
            file.remove()
    return sums


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
        by_text = _widenable(sums).view(site.num_experts, texts, -1)
        return by_text.sum(1, dtype=torch.float64).flatten()

    def _dense_total(self, x: Tensor) -> Tensor:
        content = self._content.to(x.device)
        by_text = content[:, None] @ x.reshape(*content.shape, -1)  # [texts, 1, units]
        return _widenable(by_text).sum((0, 1), dtype=torch.float64)


def _widenable(x: Tensor) -> Tensor:
    """`x` where there is float64: not on Apple's GPUs."""
    return x.cpu() if x.device.type == "mps" else x


@torch.no_grad()
def _try_longest(lm: LanguageModel, texts: Sequence[str]) -> None:
    """Raises ClasError if one of these texts is longer than the model can read.

    One with rotary positions reads on beyond what it was made for, one with learned ones can't.
    """
    limit = context_of(lm.model.config)
    sizes = [len(ids) for ids in lm.tokenizer(list(texts))["input_ids"]]
    most = max(sizes, default=0)
    if limit is None or most <= limit:
        return
    longest = texts[sizes.index(most)]
    try:
        lm.model.base_model(**lm.encode([longest]).inputs, use_cache=False)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise ClasError(
            f"A sentence has {most} tokens, and {lm.name} reads {limit} at most: shorten or leave "
            f"out the one that begins {longest[:40]!r}."
        ) from error


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
