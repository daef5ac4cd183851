"""What a model says when it is asked in the plainest way: the truth that tests compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clas_core.model.architecture import LanguageModel
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered


def make_plan(lm: LanguageModel, layer: int, seed: int = 0) -> SteeringPlan:
    """A plan that scales every neuron of `layer` (from 0) by up to 2 and shifts its output."""
    generator = torch.Generator().manual_seed(seed)
    scale = 2 * torch.rand(lm.widths[layer], generator=generator)
    shift = 0.1 * torch.randn(lm.hidden_size, generator=generator)
    return SteeringPlan({layer: LayerPlan(scale, None, shift)})


def plain(
    lm: LanguageModel,
    prompt: Sequence[int],
    ending: Sequence[int],
    plan: SteeringPlan | None = None,
) -> float:
    """Sum of log p over the tokens of `ending`, in one forward of prompt and ending."""
    ids = torch.tensor([[*prompt, *ending]])
    with torch.inference_mode(), steered(lm, plan):
        log_p = lm.model(ids).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(ending) - 1)
    return sum(float(log_p[k, token]) for k, token in zip(places, ending))
