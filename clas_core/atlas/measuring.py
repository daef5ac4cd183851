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

VERSION = 3  # of what is counted and how; an atlas of another version is measured again

SENTENCE_BYTES = 2**29  # for the means of single sentences, while measuring
FEWEST_SENTENCES = 8  # of each language, whatever they take
_LARGEST = torch.finfo(torch.float16).max


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
    sums = Sums(lm, len(corpus.languages), sentences_kept(lm, corpus))
    batches = list(batches_of(corpus, batch_size, lm.tokenizer))
    total = sum(len(texts) for _, _, texts in batches)
    label = " ".join(map(str, (VERSION, fingerprint(lm), lm.dtype, corpus.fingerprint, batch_size)))
    with joined() as processes:
        processes.agree(label)
        left, file = list(range(len(batches))), None
        if resume is not None:
            file = Unfinished(Path(resume), label, processes, sums.tensors, len(batches))
            left = file.resume()
        done = total - sum(len(batches[index][2]) for index in left)
        _try_longest(lm, [texts[-1] for _, _, texts in batches])
        with torch.no_grad(), tapped(lm, sums):
            for index in left[processes.rank :: processes.count]:
                k, rows, texts = batches[index]
                sums.add(lm, k, texts, rows)
                done += len(texts) * processes.count  # the others are about as far
                if file is not None:
                    file.add(index)
                try:
                    if progress is not None:
                        progress(min(total, done), total)
                except BaseException:  # the caller cancels: nothing measured is lost
                    if file is not None:
                        file.keep()
                    raise
        processes.add(sums.tensors.values())
        if file is not None:
            file.remove()
    return sums


class Sums(Tap):
    """The running sums of one measurement; all that is kept of a batch.

    tensors: "open" (int64, tokens whose gate is open) and "h" (float64), both [layers, languages,
        neurons]; "residual" [layers, languages, hidden] and "norm" [layers, languages] float64;
        "tokens" [languages] int64; "routed" [layers, languages, experts] int64; "heard" [layers]
        int64, calls of its MLPs; "sentences" [languages, sentences, layers, neurons] float16, the
        mean of h over each of the first sentences' tokens (of an expert's neuron, those that came
        to it; 0 without one), beyond float16's range its end.
    experts: the model's routed experts; widths: neurons of each layer; architecture: the model's
        class.
    """

    def __init__(self, lm: LanguageModel, languages: int, sentences: int = 0) -> None:
        neurons = (lm.num_layers, languages, lm.num_neurons)
        self.experts = [mlp for mlp in lm.mlps if isinstance(mlp, Experts)]
        self.widths = lm.widths
        self.architecture = type(lm.model).__name__
        most = max((mlp.experts for mlp in self.experts), default=0)
        self.tensors = {
            "open": torch.zeros(neurons, dtype=torch.int64),
            "h": torch.zeros(neurons, dtype=torch.float64),
            "residual": torch.zeros((lm.num_layers, languages, lm.hidden_size)).double(),
            "norm": torch.zeros((lm.num_layers, languages), dtype=torch.float64),
            "tokens": torch.zeros(languages, dtype=torch.int64),
            "routed": torch.zeros((lm.num_layers, languages, most), dtype=torch.int64),
            "heard": torch.zeros(lm.num_layers, dtype=torch.int64),
            "sentences": torch.zeros(
                (languages, sentences, lm.num_layers, lm.num_neurons), dtype=torch.float16
            ),
        }
        self._language = 0
        self._kept: list[tuple[int, int]] = []  # of the batch: place in it, number of the sentence
        self._content = torch.zeros(0, 0)  # [texts, tokens] of the batch, 1 where they count

    def add(
        self, lm: LanguageModel, language: int, texts: Sequence[str], rows: Sequence[int] = ()
    ) -> None:
        """Run one batch of texts through the model; `rows` are their numbers in the language."""
        batch = lm.encode(texts)
        self._language = language
        sentences = self.tensors["sentences"].shape[1]
        self._kept = [(place, row) for place, row in enumerate(rows) if row < sentences]
        self._content = batch.content.float()
        self.tensors["tokens"][language] += int(batch.content.sum())
        lm.model.base_model(**batch.inputs, use_cache=False)  # without the vocabulary's logits

    def gate(self, site: Site, gate: Tensor) -> None:
        self._count_open(site, gate)

    def neurons(self, site: Site, h: Tensor) -> None:
        if not site.gated:
            self._count_open(site, h)
        by_text = self._by_text(h.float(), site)
        self.tensors["h"][site.layer, self._language, site.neurons] += _added_up(by_text)
        if self._kept:
            places, rows = map(list, zip(*self._kept))
            means = (by_text / self._lengths(site).to(by_text.device))[places].clamp(
                -_LARGEST, _LARGEST
            )
            kept = self.tensors["sentences"][self._language, :, site.layer, site.neurons]
            kept[rows] = means.half().cpu()
        self.tensors["heard"][site.layer] += 1
        if site.tokens is not None and site.experts is not None:
            content = self._content.to(h.device).flatten()[site.tokens].bool()
            counts = site.experts[content].bincount(minlength=site.num_experts)
            self.tensors["routed"][site.layer, self._language, : site.num_experts] += counts.cpu()

    def hidden(self, layer: int, hidden: Tensor) -> None:
        x = hidden.float().reshape(*self._content.shape, -1)
        self.tensors["residual"][layer, self._language] += _added_up(self._dense_by_text(x))
        lengths = self._dense_by_text(x.norm(dim=-1, keepdim=True))
        self.tensors["norm"][layer, self._language] += _added_up(lengths)[0]

    def _count_open(self, site: Site, gate: Tensor) -> None:
        # At once in float32: to compare and then to convert takes four times as long.
        is_open = torch.gt(gate, 0, out=torch.empty_like(gate, dtype=torch.float32))
        total = _added_up(self._by_text(is_open, site))
        self.tensors["open"][site.layer, self._language, site.neurons] += total.long()

    def _by_text(self, x: Tensor, site: Site) -> Tensor:
        """Each text's sum over its tokens that count: [..., units] -> [texts, site's neurons].

        All float32, which is fast; texts are added up in float64.
        """
        if site.tokens is None or site.experts is None:
            return self._dense_by_text(x)
        texts = len(self._content)
        weight = self._content.to(x.device).flatten()[site.tokens][:, None]
        sums = x.new_zeros(site.num_experts * texts, x.shape[-1])
        sums.index_add_(0, self._pairs(site.experts, site.tokens), x * weight)
        return sums.view(site.num_experts, texts, -1).transpose(0, 1).flatten(1)

    def _dense_by_text(self, x: Tensor) -> Tensor:
        content = self._content.to(x.device)
        return (content[:, None] @ x.reshape(*content.shape, -1))[:, 0]  # [texts, units]

    def _lengths(self, site: Site) -> Tensor:
        """How many tokens that count each text gave each neuron, 1 at least: [texts, 1 or more]."""
        if site.tokens is None or site.experts is None:
            return self._content.sum(1, keepdim=True).clamp(min=1)
        content = self._content.to(site.tokens.device)
        counts = content.new_zeros(site.num_experts * len(content))
        pairs = self._pairs(site.experts, site.tokens)
        counts.index_add_(0, pairs, content.flatten()[site.tokens])
        by_text = counts.view(site.num_experts, -1).T
        per_expert = (site.neurons.stop - site.neurons.start) // site.num_experts
        return by_text.repeat_interleave(per_expert, dim=1).clamp(min=1)

    def _pairs(self, experts: Tensor, tokens: Tensor) -> Tensor:
        """Of each routed row, the place of its expert and text among all pairs of them."""
        texts, length = self._content.shape
        return experts * texts + tokens // length


def _added_up(by_text: Tensor) -> Tensor:
    """The sum over texts of [texts, units], in float64 on the CPU; Apple's GPUs have no float64."""
    by_text = by_text.cpu() if by_text.device.type == "mps" else by_text
    return by_text.sum(0, dtype=torch.float64).cpu()


def sentences_kept(lm: LanguageModel, corpus: ParallelCorpus) -> int:
    """Of how many sentences of each language single means are kept, those at the beginning:
    all, or as many as fit into `SENTENCE_BYTES`."""
    each = 2 * lm.num_layers * lm.num_neurons * len(corpus.languages)
    return min(len(corpus), max(FEWEST_SENTENCES, SENTENCE_BYTES // each))


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
) -> Iterator[tuple[int, Sequence[int], Sequence[str]]]:
    """(language, numbers, texts): texts of like length together, so that little of a batch is
    padding.

    Length is in tokens, or in bytes without a tokenizer.
    """
    for k, code in enumerate(corpus.languages):
        texts = corpus.sentences[code]
        units = tokenizer(list(texts))["input_ids"] if tokenizer else map(str.encode, texts)
        lengths = list(map(len, units))
        ordered = sorted(range(len(texts)), key=lengths.__getitem__)
        for start in range(0, len(ordered), size):
            rows = ordered[start : start + size]
            yield k, rows, [texts[row] for row in rows]
