"""Fold a plan into the weights: an ordinary checkpoint with no cost at run time.

`W (s * h + b) = (W diag(s)) h + W b`: columns of the down-projection are scaled, the rest goes into
its bias. Any engine that runs the original runs the baked model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import ClasError
from ..model.architecture import MLP, Experts, LanguageModel
from ..model.sources import gguf_of
from ..model.taps import Site, Tap, tapped
from ..paths import replacing
from .gguf_baking import write_baked
from .plan import LayerPlan, SteeringPlan
from .where import ALL

RECIPE_FILE = "clas_recipe.json"
_BIAS_OPTIONS = ("mlp_bias", "use_bias", "enable_bias", "bias")


def bake(
    lm: LanguageModel,
    plan: SteeringPlan,
    out_dir: str | Path,
    recipe: Mapping[str, Any] | None = None,
) -> Path:
    """Write `lm` with `plan` folded into its weights to the new directory `out_dir`.

    Beside model and tokenizer stands clas_recipe.json, which says how it was made; `recipe` (JSON
    values) is quoted in it. `lm` itself stays as it is. The directory appears whole or not at all.

    For a model that was opened from a GGUF, `out_dir` may be a new file NAME.gguf instead: a copy
    of that file for llama.cpp, in which the changed weights alone are written anew, in float16
    where they were quantised.

    Raises ClasError if the plan can't be folded: it doesn't fit the model, acts on a part of a text
    only, the weights are quantised or offloaded, `out_dir` holds something, or the plan needs a
    bias that this architecture has no place for.
    """
    out = Path(out_dir)
    as_gguf = out.suffix.lower() == ".gguf"
    if as_gguf and out.exists():
        raise ClasError(f"{out} is there already: choose a new file for the baked model.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ClasError(f"{out} isn't empty: choose a new directory for the baked model.")
    plan.check(lm)
    if plan.where != ALL:
        raise ClasError(
            f"A checkpoint steers all of a text, and this plan a part of it ({plan.where}): bake "
            "plan.at('all'), or steer the model as it runs."
        )
    layers = {index: layer for index, layer in plan.layers.items() if not layer.is_identity}
    _check_weights(lm)
    _check_shifts_can_be_biases(lm, [i for i, layer in layers.items() if _moves(layer.shift)])
    made = {
        "base_model": lm.name,
        "revision": lm.revision,
        "plan": plan.label,
        "layers": list(layers),
        "recipe": recipe,
    }
    if as_gguf:
        _bake_gguf(lm, layers, out, made)
        return out
    needs_bias = any(_moves(layer.bias) or _moves(layer.shift) for layer in layers.values())
    skeleton = _skeleton(lm, needs_bias)
    with replacing(out) as scratch:
        skeleton.save_pretrained(scratch, state_dict=_folded(lm, layers, skeleton))
        lm.tokenizer.save_pretrained(scratch)
        (scratch / RECIPE_FILE).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return out


def _bake_gguf(
    lm: LanguageModel, layers: Mapping[int, LayerPlan], out: Path, made: Mapping[str, Any]
) -> None:
    source = gguf_of(lm.name)
    if source is None:
        raise ClasError(
            f"{lm.name} wasn't opened from a GGUF: bake it into a directory, and let llama.cpp's "
            "convert_hf_to_gguf.py make one of that."
        )
    if any(isinstance(mlp, Experts) and mlp.layer in layers for mlp in lm.mlps):
        raise ClasError(
            f"{type(lm.model).__name__} has routed experts, which aren't baked into GGUF: bake it "
            "into a directory, and let llama.cpp's convert_hf_to_gguf.py make one of that."
        )
    mlps = {mlp.layer: mlp for mlp in lm.mlps if mlp.layer in layers}
    before = {index: fold(mlp, LayerPlan()) for index, mlp in mlps.items()}
    after = {index: fold(mlp, layers[index]) for index, mlp in mlps.items()}
    for folded in (before, after):
        for index, (weight, bias) in folded.items():
            folded[index] = (weight.t() if mlps[index].stored_transposed else weight, bias)
    write_baked(source, out, before, after, made)


def fold(mlp: MLP | Experts, layer: LayerPlan) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The down-projection's (weight, bias) that act as `layer` does, in the weight's own layout.

    Computed in float32 at least and rounded to the weight's dtype. The bias is None if there was
    none and none is needed.
    """
    matrix, bias, dtype = _matrix(mlp), mlp.bias, mlp.weight.dtype
    offset = torch.zeros(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device)
    if layer.bias is not None:
        offset = offset + (matrix @ _own(mlp, layer.bias).to(matrix)[..., None])[..., 0]
    if layer.shift is not None:
        offset = offset + layer.shift.to(offset)
    if layer.scale is not None:
        matrix = matrix * _own(mlp, layer.scale).to(matrix)[..., None, :]
    if mlp.stored_transposed:
        matrix = matrix.transpose(-1, -2)
    weight = matrix.to(dtype).contiguous()
    if bias is not None:
        return weight, (bias.detach() + offset).to(dtype)
    return weight, offset.to(dtype) if offset.any() else None


def _own(mlp: MLP | Experts, units: torch.Tensor) -> torch.Tensor:
    """The numbers of this MLP's neurons: [neurons], or [experts, per_expert]."""
    own = units[mlp.start : mlp.start + mlp.neurons]
    return own.unflatten(0, (mlp.experts, -1)) if isinstance(mlp, Experts) else own


def _folded(
    lm: LanguageModel, layers: Mapping[int, LayerPlan], skeleton: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """The state of the baked model; biases that the skeleton has and `lm` lacks start at zero."""
    state = dict(lm.model.state_dict())
    for name, parameter in skeleton.state_dict().items():
        if name not in state:
            state[name] = torch.zeros(parameter.shape, dtype=lm.dtype)
    names = {module: name for name, module in lm.model.named_modules()}
    for mlp in lm.mlps:
        if mlp.layer not in layers:
            continue
        weight, bias = fold(mlp, layers[mlp.layer])
        if isinstance(mlp, Experts):
            of_weight, of_bias = (f"{names[mlp.module]}.down_proj{end}" for end in ("", "_bias"))
        else:
            of_weight, of_bias = (f"{names[mlp.down]}.{end}" for end in ("weight", "bias"))
        state[of_weight] = weight
        if bias is not None:
            if of_bias not in state:
                raise _no_bias(lm)
            state[of_bias] = bias
    return state


def _no_bias(lm: LanguageModel) -> ClasError:
    return ClasError(
        f"{type(lm.model).__name__} has no bias in its down-projection and no option for "
        "one, so only plans without bias and shift (CLAS, LAPE) can be baked."
    )


def _skeleton(lm: LanguageModel, needs_bias: bool) -> PreTrainedModel:
    """The baked model without weights: the same class and config, biases switched on if needed."""
    config = copy.deepcopy(lm.model.config)
    if needs_bias and any(mlp.bias is None for mlp in lm.mlps):
        text = config.get_text_config()
        option = next((name for name in _BIAS_OPTIONS if getattr(text, name, None) is False), None)
        if option is None:
            raise _no_bias(lm)
        setattr(text, option, True)
    skeleton = _empty(lm, config)
    skeleton.to(lm.dtype)  # type: ignore[arg-type]  # torch's stubs see a wrapper
    skeleton.generation_config = copy.deepcopy(lm.model.generation_config)
    added = skeleton.state_dict().keys() - lm.model.state_dict().keys()
    if not all(name.endswith(".bias") for name in added):
        raise ClasError(f"{lm.name} can't be rebuilt from its config, so it can't be baked.")
    return skeleton


def _check_weights(lm: LanguageModel) -> None:
    if getattr(lm.model, "hf_quantizer", None) is not None:
        raise ClasError(f"{lm.name} is quantised: load it unquantised to bake a plan into it.")
    if any(parameter.is_meta for parameter in lm.model.parameters()):
        raise ClasError(f"Parts of {lm.name} are offloaded: load it whole to bake a plan into it.")
    if any(type(parameter) is not torch.nn.Parameter for parameter in lm.model.parameters()):
        raise ClasError(
            f"{lm.name} has weights that aren't plain tensors, so quantised or spread ones: load "
            "it unquantised and in one place to bake a plan into it."
        )
    if lm.model.state_dict().keys() != _empty(lm, lm.model.config).state_dict().keys():
        raise ClasError(
            f"{lm.name} has other weights than its config describes, so it can't be baked: if it "
            "has an adapter, merge that first (merge_and_unload), and load the result."
        )


def _empty(lm: LanguageModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the same class, without weights."""
    with torch.device("meta"):
        return type(lm.model)(copy.deepcopy(config))


def _check_shifts_can_be_biases(lm: LanguageModel, layers: list[int]) -> None:
    """Raise ClasError unless what the down-projection adds reaches the residual stream unchanged.

    It doesn't where the MLP's output is normalised (Gemma 2) or scaled (Granite) first, nor where
    a router weighs it. Tried out: one row for each layer, in which that layer's neurons are
    nudged, beside an untouched row.
    """
    if not layers:
        return
    if any(isinstance(mlp, Experts) and mlp.layer in layers for mlp in lm.mlps):
        raise ClasError(
            f"{type(lm.model).__name__} has routed experts, whose outputs are weighed before they "
            "are added up, so plans with a shift (DiffMean) can't be baked into it."
        )
    token = lm.encode(["a"]).input_ids[:, -1:].expand(len(layers) + 1, 1)
    nudge = _Nudge(lm, layers)
    with torch.inference_mode(), tapped(lm, nudge):
        lm.model.base_model(input_ids=token, use_cache=False)
    if not all(nudge.arrived):
        raise ClasError(
            f"{type(lm.model).__name__} changes what its MLPs put out before adding it to the "
            "residual stream, so plans with a shift (DiffMean) can't be baked into it."
        )


class _Nudge(Tap):
    """Moves row i + 1's neurons in layer i of `layers`, and sees if the residual stream follows.

    Each nudge is as large as the residual stream itself, so that rounding can't hide it.
    """

    def __init__(self, lm: LanguageModel, layers: list[int]) -> None:
        self._mlps = {mlp.layer: mlp for mlp in lm.mlps}
        self._rows = {layer: row for row, layer in enumerate(layers, start=1)}
        self._size = lm.hidden_size**0.5
        self._expected = torch.zeros(0)
        self.arrived: list[bool] = []

    def neurons(self, site: Site, h: torch.Tensor) -> torch.Tensor | None:
        layer = site.layer
        row = self._rows.get(layer)
        if row is None:
            return None
        generator = torch.Generator().manual_seed(layer)
        delta = torch.randn(h.shape[-1], generator=generator)
        effect = _matrix(self._mlps[layer]).cpu() @ delta
        factor = self._size / effect.norm()
        self._expected = factor * effect
        moved = h.clone()
        moved[row] += (factor * delta).to(h)
        return moved

    def hidden(self, layer: int, hidden: torch.Tensor) -> None:
        row = self._rows.get(layer)
        if row is not None:
            got = (hidden[row] - hidden[0]).flatten().float().cpu()
            error = (got - self._expected).norm() / self._expected.norm()
            self.arrived.append(bool(error < 0.05))
        self._size = float(hidden[0].float().norm())


def _matrix(mlp: MLP | Experts) -> torch.Tensor:
    """The down-projection as [hidden, neurons], of experts one each; float32 at least."""
    matrix = mlp.weight.detach()
    matrix = matrix.transpose(-1, -2) if mlp.stored_transposed else matrix
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def _moves(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and bool(tensor.any())
