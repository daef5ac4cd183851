"""Hidden states of sentences, layer by layer, and a cache that recomputes only the last layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import Encoded, LanguageModel
from ..model.taps import Tap, tapped
from ..steering.plan import SteeringPlan, steered
from ..text.corpus import ParallelCorpus

Progress = Callable[[int, int], None]


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
    plan: SteeringPlan | None = None,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> HiddenStates:
    """Run the model under `plan` over a corpus, or over plain texts (label "", a group each)."""
    texts, labels, groups = _flatten(corpus)
    pooled = torch.empty(lm.num_layers + 1, len(texts), lm.hidden_size)
    for batch in _batches(lm, texts, batch_size, progress):
        _run(lm, plan, batch, pooled)
    return HiddenStates(pooled, labels, groups)


class BridgeCache:
    """The states before block `start`, kept, so that a plan on later blocks reruns only those.

    Costs memory of texts * tokens * hidden in the model's dtype. `unsteered` holds the states
    of the one full pass that filled it.
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
        self._batches: list[tuple[_Batch, Tensor, list[_Call]]] = []
        for batch in _batches(lm, texts, batch_size, progress):
            hidden, calls = _run(lm, None, batch, pooled)
            self._batches.append((batch, hidden[start], calls[start:]))
        self.unsteered = HiddenStates(pooled, labels, groups)

    @torch.inference_mode()
    def states(self, plan: SteeringPlan | None, layer: int = -1) -> Tensor:
        """The points [sentences, hidden] at `layer` under `plan`, as `hidden_states` has them."""
        layer = layer_index(layer, self._lm.num_layers)
        if plan is not None and any(touched < self._start for touched in plan.layers):
            raise ClasError(
                f"This cache starts at layer {self._start}, but the plan steers layer "
                f"{min(plan.layers)}; build the cache from there."
            )
        if plan is None or layer <= self._start:
            return self.unsteered.pooled[layer]
        points = torch.empty_like(self.unsteered.pooled[layer])
        blocks = self._lm.blocks[self._start : layer]
        with steered(self._lm, plan):
            for batch, hidden, calls in self._batches:
                for block, call in zip(blocks, calls):
                    hidden = _first(block(hidden, *call.args, **call.kwargs))
                points[batch.rows] = _pool(hidden, batch.encoded.content)
        return points


@dataclass(frozen=True)
class _Batch:
    rows: list[int]  # where its texts stand among all
    encoded: Encoded  # right padded


@dataclass(frozen=True)
class _Call:
    """What a block was called with besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


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
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        yield _Batch(rows, lm.encode([texts[row] for row in rows]))
        if progress:
            progress(begin + len(rows), len(order))


@torch.inference_mode()
def _run(
    lm: LanguageModel, plan: SteeringPlan | None, batch: _Batch, pooled: Tensor
) -> tuple[list[Tensor], list[_Call]]:
    """One forward, which fills `pooled` [layers + 1, sentences, hidden].

    Returns the residual stream [batch, tokens, hidden] at each of these layers, and each block's
    call.
    """
    recorder = _Recorder(lm.num_layers - 1)
    # `steered` comes first: it acts before the recorder sees the last block's output.
    with steered(lm, plan), tapped(lm, recorder):
        lm.model.base_model(**batch.encoded.inputs, use_cache=False)
    for layer, hidden in enumerate(recorder.stream):
        pooled[layer, batch.rows] = _pool(hidden, batch.encoded.content)
    return recorder.stream, recorder.calls


class _Recorder(Tap):
    """Keeps each block's call, and the residual stream before every block and after the last."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.stream: list[Tensor] = []
        self.calls: list[_Call] = []

    def call(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        self.stream.append(args[0] if args else kwargs.pop("hidden_states"))
        self.calls.append(_Call(args[1:], kwargs))

    def hidden(self, layer: int, hidden: Tensor) -> None:
        if layer == self._last:
            self.stream.append(hidden)


def _first(output: Any) -> Tensor:
    """A block's hidden states: some families return a tuple that begins with them."""
    return output[0] if isinstance(output, tuple) else output


def _pool(hidden: Tensor, content: Tensor) -> Tensor:
    """Mean over the tokens of content: [batch, tokens, hidden] -> [batch, hidden], fp32, CPU."""
    weight = content.to(torch.float32)[..., None]
    return ((hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1)).cpu()
