"""A causal language model and its MLP neurons.

The only file that knows architectures. A *neuron* is one unit of the intermediate activation `h`,
the input of the MLP's down-projection (Tang et al., arXiv 2402.16438).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import ClasError

_NOT_AN_MLP = ("attn", "attention", "per_layer")  # maps of the same shapes as an MLP's
_GATE_NAMES = ("gate", "w1")


class UnsupportedModel(ClasError):
    """No MLP neurons could be found; the message names the model class and what was looked for."""


@dataclass(frozen=True, eq=False)
class MLP:
    """A dense MLP of a decoder layer: all its tokens pass through it.

    `down` maps neurons to the residual stream: its input is `h` [..., neurons]. `gate` is the
    module whose output, at `gate_slice` of the last axis, is the gate before its activation
    function; None in MLPs without a gate, where the sign of `h` itself is read. (Every gate
    function in use has the sign of its argument.) `start`: where its neurons begin among the
    layer's, which may have experts before it.
    """

    layer: int
    down: nn.Module
    gate: nn.Module | None
    gate_slice: slice
    neurons: int
    start: int = 0

    @property
    def weight(self) -> torch.Tensor:
        """The down-projection's, [hidden, neurons] unless `stored_transposed`."""
        return self.down.get_parameter("weight")

    @property
    def bias(self) -> torch.Tensor | None:
        """The down-projection's, [hidden]."""
        bias = getattr(self.down, "bias", None)
        return bias if isinstance(bias, torch.Tensor) else None

    @property
    def stored_transposed(self) -> bool:
        """Whether the weight is [neurons, hidden], as in GPT-2's Conv1D."""
        return isinstance(self.down, Conv1D)


@dataclass(frozen=True, eq=False)
class Experts:
    """The routed experts of a decoder layer, fused in one module: a router picks some a token.

    `module` keeps the down-projections of all experts as one tensor. Expert e's neurons are the
    `per_expert` ones from `start + e * per_expert` on, on the layer's axis.
    """

    layer: int
    module: Any
    experts: int
    per_expert: int
    start: int = 0

    @property
    def neurons(self) -> int:
        """How many there are in all experts."""
        return self.experts * self.per_expert

    @property
    def gated(self) -> bool:
        """Whether there is a gate, whose sign says what is open; else `h` itself is read."""
        return bool(self.module.has_gate)

    @property
    def weight(self) -> torch.Tensor:
        """All down-projections, [experts, hidden, per_expert] unless `stored_transposed`."""
        return self.module.get_parameter("down_proj")

    @property
    def bias(self) -> torch.Tensor | None:
        """Of the down-projections, [experts, hidden]."""
        return self.module.get_parameter("down_proj_bias") if self.module.has_bias else None

    @property
    def stored_transposed(self) -> bool:
        """Whether the weight is [experts, per_expert, hidden], as in gpt-oss."""
        return bool(self.module.is_transposed)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of texts as the model takes it, all [texts, length], on the model's device.

    `content` is True at tokens of the text itself: neither padding nor special tokens.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    content: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for the model's forward."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer and its MLPs. Made by `loading.load`.

    `mlps` are in the order of the layers. A layer has one MLP, or experts and the dense MLPs
    beside them; all its neurons lie on one axis, one after the other.
    """

    model: PreTrainedModel
    tokenizer: Any
    name: str
    revision: str | None
    blocks: tuple[nn.Module, ...]
    mlps: tuple[MLP | Experts, ...]

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights and the residual stream."""
        return self.model.dtype

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""
        return len(self.blocks)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The number of MLP neurons in each layer."""
        widths = [0] * self.num_layers
        for mlp in self.mlps:
            widths[mlp.layer] += mlp.neurons
        return tuple(widths)

    @property
    def num_neurons(self) -> int:
        """The number of MLP neurons in the widest layer."""
        return max(self.widths)

    @property
    def hidden_size(self) -> int:
        """The width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @cached_property
    def pad_id(self) -> int:
        """What fills short rows; masked out, so any token does where none is defined."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(id for id in candidates if id is not None and id < self.vocabulary)

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings of."""
        embedding: Any = self.model.get_input_embeddings()
        return embedding.weight.shape[0]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that aren't text. The unknown token is text, unless it is a mark too."""
        t = self.tokenizer
        marks = {t.bos_token_id, t.eos_token_id, t.pad_token_id} - {None}
        return frozenset(set(t.all_special_ids) - {t.unk_token_id} | marks)

    def encode(self, texts: Sequence[str], padding_side: str = "right") -> Encoded:
        """Tokenize `texts` with the special tokens that the tokenizer adds, and pad them.

        Padded here, not by the tokenizer, whose padding state is shared between threads.
        Raises ClasError if there is no text, or one has no tokens or one that the model lacks.
        """
        if padding_side not in ("left", "right"):
            raise ClasError(f"Padding side must be 'left' or 'right', not {padding_side!r}.")
        if not texts:
            raise ClasError("There is no text to encode: give at least one sentence.")
        rows = self.tokenizer(list(texts))["input_ids"]
        if not all(rows):
            empty = next(index for index, row in enumerate(rows, start=1) if not row)
            raise ClasError(f"Text {empty} is empty: give at least one character.")
        input_ids, attention_mask = self.pad(rows, padding_side)
        special = torch.tensor(sorted(self.special_ids), dtype=torch.long, device=self.device)
        content = attention_mask.bool() & ~torch.isin(input_ids, special)
        return Encoded(input_ids, attention_mask, content)

    def pad(
        self, rows: Sequence[Sequence[int]], side: str = "left"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (1 at text) of tokenised `rows`, both [rows, longest] int64 on the
        model's device, padded at the "left" or the "right". Raises ClasError for a token that the
        model has no embedding of."""
        self.check_tokens(token for row in rows for token in row)
        shape = (len(rows), max(map(len, rows)))
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(rows):
            place = slice(shape[1] - len(row), None) if side == "left" else slice(0, len(row))
            ids[number, place] = torch.tensor(row, dtype=torch.long)
            mask[number, place] = 1
        return ids.to(self.device), mask.to(self.device)

    def check_tokens(self, token_ids: Iterable[int]) -> None:
        """Raise ClasError if one of these tokens has no embedding in the model."""
        last = max(token_ids, default=0)
        if last >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(last)
            raise ClasError(
                f"The tokenizer writes {token!r} as {last}, but {self.name} has embeddings of "
                f"{self.vocabulary} tokens: give the tokenizer that belongs to it, or call "
                "resize_token_embeddings(len(tokenizer)) on the model."
            )


def context_of(config: PreTrainedConfig) -> int | None:
    """The tokens that a model of this config was made to read; None if it doesn't say."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    return next((getattr(text, name) for name in names if getattr(text, name, None)), None)


def find_mlps(model: PreTrainedModel) -> tuple[tuple[nn.Module, ...], tuple[MLP | Experts, ...]]:
    """The decoder layers of `model`, and where the MLP neurons of each are.

    Looks for the list of decoder layers in which every layer has exactly one dense MLP, or fused
    experts with any number of dense MLPs beside them. A dense MLP is a module whose linear
    children are one map neurons -> hidden and, the other way, one map (plain), two maps (gated)
    or one map of double width (gate and up fused, gate first).
    """
    config = model.config.get_text_config()
    seen = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) != config.num_hidden_layers:
            continue
        found = [_mlps_of(block, layer, config.hidden_size) for layer, block in enumerate(module)]
        if all(len(mlps) == 1 or any(isinstance(m, Experts) for m in mlps) for mlps in found):
            return tuple(module), tuple(mlp for mlps in found for mlp in mlps)
        seen.append(f"{name} ({', '.join(str(len(mlps)) for mlps in found)} MLPs by layer)")
    raise UnsupportedModel(
        f"{type(model).__name__}: found no list of {config.num_hidden_layers} decoder layers with "
        f"one linear map from MLP neurons to hidden size {config.hidden_size} in each; looked at "
        f"{'; '.join(seen) or 'no list of that length'}. Choose a decoder-only model whose MLPs "
        "are linear layers or fused experts."
    )


def _mlps_of(block: nn.Module, layer: int, hidden: int) -> list[MLP | Experts]:
    """Experts first, so that a plan's first neurons are theirs whatever stands beside them."""
    experts: list[MLP | Experts] = []
    dense: list[MLP | Experts] = []
    for path, owner in block.named_modules():
        if (fused := _as_experts(owner, layer)) is not None:
            experts.append(fused)
            continue
        shapes = {
            name: shape
            for name, child in owner.named_children()
            if (shape := _shape(child)) is not None
            and not any(word in f"{path}.{name}".lower() for word in _NOT_AN_MLP)
        }
        if (mlp := _as_mlp(owner, shapes, layer, hidden)) is not None:
            dense.append(mlp)
    placed: list[MLP | Experts] = []
    for one in experts + dense:
        placed.append(replace(one, start=sum(other.neurons for other in placed)))
    return placed


def _as_experts(owner: Any, layer: int) -> Experts | None:
    """Experts as transformers fuses them (`use_experts_implementation`), else None."""
    down = getattr(owner, "down_proj", None)
    if not isinstance(down, nn.Parameter) or down.ndim != 3 or not hasattr(owner, "has_gate"):
        return None
    return Experts(layer, owner, down.shape[0], down.shape[1 if owner.is_transposed else 2])


def _as_mlp(
    owner: nn.Module, shapes: dict[str, tuple[int, int]], layer: int, hidden: int
) -> MLP | None:
    """The MLP that the linear maps of these (inputs, outputs) in `owner` make up, if they do."""
    downs = [name for name, (_, outputs) in shapes.items() if outputs == hidden]
    if len(downs) != 1:
        return None
    neurons = shapes.pop(downs[0])[0]
    down, every = owner.get_submodule(downs[0]), slice(None)
    ups = list(shapes.values())
    if ups == [(hidden, neurons)]:
        return MLP(layer, down, None, every, neurons)
    if ups == [(hidden, 2 * neurons)]:
        (fused,) = shapes
        return MLP(layer, down, owner.get_submodule(fused), slice(0, neurons), neurons)
    if ups == [(hidden, neurons)] * 2:
        gates = [name for name in shapes if any(word in name for word in _GATE_NAMES)]
        if len(gates) == 1:
            return MLP(layer, down, owner.get_submodule(gates[0]), every, neurons)
    return None


def _shape(module: Any) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map, quantised ones included; None for anything else."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features, module.out_features
    return None
