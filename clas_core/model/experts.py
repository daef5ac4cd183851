"""The forward pass of routed experts, with their neurons in reach.

transformers keeps the experts of a layer in one module with fused weights, and lets the function
that computes them be chosen by name. Ours does the same sums in the same order as its "eager" one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

ROUTED = "clas"  # our function's name in transformers


@dataclass(frozen=True, eq=False)
class Routed:
    """What all experts of one layer compute: a row for each token that is routed to an expert.

    h [rows, neurons of one expert], gate the same (before its activation function), or None.
    Row r is expert `experts[r]`'s for token `tokens[r]` of `total`; both [rows] int64.
    """

    h: Tensor
    gate: Tensor | None
    tokens: Tensor
    experts: Tensor
    total: int


# For each module, a function that gives the listener of this context, or None.
_listeners: weakref.WeakKeyDictionary[
    nn.Module, Callable[[], Callable[[Routed], Tensor] | None]
] = weakref.WeakKeyDictionary()


def listen(module: nn.Module, find: Callable[[], Callable[[Routed], Tensor] | None]) -> None:
    """Show every forward pass of the experts `module` to the listener that `find` gives.

    It gets what was computed and returns the h to go on with.
    """
    _listeners[module] = find


def forward(self: Any, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """hidden [tokens, hidden], index and weights [tokens, experts per token] -> as `hidden`."""
    routes = [
        (expert, *torch.where(expert == index.T))  # positions, tokens
        for expert in index.unique().tolist()
        if expert < self.num_experts  # beyond them: experts of another process
    ]
    ups = [_up(self, hidden[tokens], expert) for expert, _, tokens in routes]
    hs = [self._apply_gate(up) if self.has_gate else self.act_fn(up) for up in ups]
    find = _listeners.get(self)
    hear = find() if find is not None else None
    if hear is not None and routes:
        hs = _heard(self, hear, routes, ups, hs, len(hidden))
    result = torch.zeros_like(hidden)
    for (expert, positions, tokens), h in zip(routes, hs):
        out = _map(self, h, "down_proj", expert)
        if getattr(self, "has_post_expert_norm", False):  # transformers before 5.20 has none
            out = self.post_expert_norm(out)
        out = out * weights[tokens, positions, None]
        result.index_add_(0, tokens, out.to(result.dtype))
    return result


ALL_EXPERTS_FUNCTIONS.register(ROUTED, forward)


def _heard(
    module: Any,
    hear: Callable[[Routed], Tensor],
    routes: list[tuple[int, Tensor, Tensor]],
    ups: list[Tensor],
    hs: list[Tensor],
    total: int,
) -> list[Tensor]:
    tokens = torch.cat([tokens for _, _, tokens in routes])
    sizes = [len(h) for h in hs]
    experts = torch.tensor([expert for expert, _, _ in routes], device=tokens.device)
    experts = experts.repeat_interleave(torch.tensor(sizes, device=tokens.device))
    gate = _gate(module, torch.cat(ups)) if module.has_gate else None
    return list(hear(Routed(torch.cat(hs), gate, tokens, experts, total)).split(sizes))


def _gate(module: Any, up: Tensor) -> Tensor:
    """The gate's half of [rows, 2 * neurons]: the first, or every other one."""
    return up.chunk(2, dim=-1)[0] if module.is_concatenated else up[..., ::2]


def _up(module: Any, x: Tensor, expert: int) -> Tensor:
    return _map(module, x, "gate_up_proj" if module.has_gate else "up_proj", expert)


def _map(module: Any, x: Tensor, name: str, expert: int) -> Tensor:
    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    if not module.is_transposed:
        return linear(x, weight, bias)
    return x @ weight if bias is None else x @ weight + bias
