"""Hidden states of sentences, layer by layer, and a cache that recomputes only the last layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import Encoded, LanguageModel
from ..text.corpus import ParallelCorpus
from .batch import Plan, Progress, check_length, in_batches
from .trace import Trace, reruns


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """Sentences as points: the residual stream, averaged over each sentence's tokens.

    `pooled` [layers + 1, sentences, hidden], fp32, CPU: index 0 is the output of the embeddings,
    l the raw output of block l (before any final norm). Padding and special tokens don't count.
    `labels` are the languages, `groups` equal for translations of each other; both [sentences].
    """

    pooled: Tensor
    labels: tuple[str, ...]
    groups: tuple[int, ...]

    def at(self, layer: int) -> Tensor:
        """The points [sentences, hidden] at `layer`; negative counts from the end."""
        return self.pooled[layer_index(layer, len(self.pooled) - 1)]


def layer_index(layer: int, num_layers: int) -> int:
    """`layer` as an index 0..num_layers; raises `ClasError` where there is no such layer."""
    if not -num_layers - 1 <= layer <= num_layers:
        raise ClasError(
            f"There is no layer {layer}: choose 0 (embeddings) to {num_layers} (last block)."
        )
    return layer % (num_layers + 1)


def hidden_states(
    lm: LanguageModel,
    corpus: ParallelCorpus | Sequence[str],
    plan: Plan = None,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> HiddenStates:
    """Run the model under `plan` over a corpus, or over plain texts (label "", a group each).

    `batch_size`: texts a forward. `progress(done, total)` counts texts. Raises ClasError for no
    texts, and for one that has more tokens than the model has positions.
    """
    texts, labels, groups = _flatten(corpus)
    pooled = torch.empty(lm.num_layers + 1, len(texts), lm.hidden_size)
    for batch in _batches(lm, texts, batch_size, progress):
        _fill(pooled, batch, batch.run(lm, plan))
    return HiddenStates(pooled, labels, groups)


class BridgeCache:
    """The states before block `start`, kept, so that a plan on later blocks reruns only those.

    Costs memory of texts * tokens * hidden in the model's dtype. `unsteered` holds the states
    of the one full pass that filled it. Where a model's blocks can't be called on their own, every
    plan runs all of them: slower, and the same numbers.
    """

    unsteered: HiddenStates

    def __init__(
        self,
        lm: LanguageModel,
        corpus: ParallelCorpus | Sequence[str],
        start: int,
        *,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> None:
        if not 0 <= start < lm.num_layers:
            raise ClasError(f"Start at a layer from 0 to {lm.num_layers - 1}, not {start}.")
        texts, labels, groups = _flatten(corpus)
        pooled = torch.empty(lm.num_layers + 1, len(texts), lm.hidden_size)
        self._lm = lm
        self._start = start
        self._batches: list[tuple[_Batch, Trace]] = []
        for batch in _batches(lm, texts, batch_size, progress):
            trace = batch.run(lm, None)
            _fill(pooled, batch, trace)
            trace.forget_below(start)
            self._batches.append((batch, trace))
        self.unsteered = HiddenStates(pooled, labels, groups)

    @torch.inference_mode()
    def states(self, plan: Plan, layer: int = -1) -> Tensor:
        """The points [sentences, hidden] at `layer` under `plan`, as `hidden_states` has them.

        Raises ClasError for a layer that isn't there, and for a plan on blocks below `start`.
        """
        layer = layer_index(layer, self._lm.num_layers)
        if plan is not None and any(touched < self._start for touched in plan.layers):
            raise ClasError(
                f"This cache starts at layer {self._start} (from 0), but the plan steers layer "
                f"{min(plan.layers)}; build the cache from there."
            )
        if plan is None or layer <= self._start:
            return self.unsteered.pooled[layer]
        points = torch.empty_like(self.unsteered.pooled[layer])
        for batch, trace in self._batches:
            if reruns(self._lm):
                hidden = trace.rerun(plan, self._start, layer)
            else:
                hidden = batch.run(self._lm, plan).stream[layer]
            points[batch.rows] = _pool(hidden, batch.encoded.content)
        return points


@dataclass(frozen=True)
class _Batch:
    rows: list[int]  # where its texts stand among all
    encoded: Encoded  # right padded

    def run(self, lm: LanguageModel, plan: Plan) -> Trace:
        ids, mask = self.encoded.input_ids, self.encoded.attention_mask
        try:
            return Trace(lm).run(plan, ids, mask)
        except (IndexError, RuntimeError):
            check_length(lm, "A sentence", ids.shape[1])  # learned positions end there
            raise


def _flatten(
    corpus: ParallelCorpus | Sequence[str],
) -> tuple[list[str], tuple[str, ...], tuple[int, ...]]:
    """Texts, labels and groups, language after language."""
    if isinstance(corpus, ParallelCorpus):
        rows = [
            (text, code, number)
            for code in corpus.languages
            for number, text in enumerate(corpus.sentences[code])
        ]
    else:
        rows = [(text, "", number) for number, text in enumerate(corpus)]
    if not rows:
        raise ClasError("There are no sentences to run the model on.")
    texts, labels, groups = zip(*rows)
    return list(texts), labels, groups


def _batches(
    lm: LanguageModel, texts: list[str], batch_size: int, progress: Progress | None
) -> Iterator[_Batch]:
    """Batches of texts of like length; reports progress in texts as each one is done."""
    done = 0
    for rows in in_batches([len(text) for text in texts], rows=batch_size):
        encoded = lm.encode([texts[row] for row in rows])
        yield _Batch(rows, encoded)
        done += len(rows)
        if progress:
            progress(done, len(texts))


def _fill(pooled: Tensor, batch: _Batch, trace: Trace) -> None:
    """Put a batch's states into `pooled` [layers + 1, sentences, hidden]."""
    for layer, hidden in enumerate(trace.stream):
        pooled[layer, batch.rows] = _pool(hidden, batch.encoded.content)


@torch.inference_mode()
def _pool(hidden: Tensor, content: Tensor) -> Tensor:
    """Mean over the tokens of content: [batch, tokens, hidden] -> [batch, hidden], fp32, CPU."""
    weight = content.to(hidden.device, torch.float32)[..., None]
    return ((hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1)).cpu()
