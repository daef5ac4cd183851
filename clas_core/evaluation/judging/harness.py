"""lm-evaluation-harness under steering: its model `clas` (extra `lm-eval`).

To import this module is to register the model, in Python; in the shell that is done by

    python -m clas_core lm_eval --model clas --model_args pretrained=ID,recipe=steer.json --tasks T

Everything else is the harness's own Hugging Face model: batches, few-shot, `accelerate launch`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import torch
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from ...atlas.atlas import Atlas
from ...atlas.cache import measure_cached
from ...atlas.fingerprint import fingerprint
from ...errors import ClasError
from ...model.loading import load
from ...paths import ASSETS
from ...steering.plan import SteeringPlan, steered
from ...steering.recipe import Recipe, read_recipe
from ...steering.where import ALL
from ...text.corpus import ParallelCorpus
from .finding import fingerprint_plan

_MARK = "clas"
# They change how fast answers come, not what they are; and what the harness itself sets.
_INDIFFERENT = ("device", "batch_size", "max_batch_size")
_OF_WRITING = ("prompt", "temperature", "max_new_tokens", "seed")


@register_model("clas")
class SteeredLM(HFLM):
    """A model of the harness, every forward of which is steered.

    `pretrained` is "village", a local directory or a hub id (default: the recipe's model).
    `recipe` is a .json file, a link or its query; left empty, nothing is steered. `target`
    overrides the recipe's language. `atlas` is a measured atlas; left empty, the model is measured
    on the recipe's corpus, once. All else goes to the harness's `HFLM`. Weights are read from
    safetensors only, and no code from a checkpoint is run. Prompts are the harness's: chat template
    and system prompt come from its `--apply_chat_template` and `--system_instruction`, not from
    the recipe.

    Raises ClasError for a recipe, model or atlas that can't be opened or don't fit, and for a
    recipe that steers a part of a text only.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        recipe: str = "",
        target: str | None = None,
        atlas: str | None = None,
        **options: Any,
    ) -> None:
        chosen = read_recipe(recipe, model=pretrained, target=target)
        gpu = torch.cuda.is_available()
        options.setdefault("device", "cuda" if gpu else "cpu")
        options.setdefault("revision", chosen.revision or "main")
        if chosen.dtype != "auto" or not gpu:  # as `load` does: float32 on the CPU
            options.setdefault("dtype", "float32" if chosen.dtype == "auto" else chosen.dtype)
        safe = {"trust_remote_code": False, "use_safetensors": True}
        where = str(ASSETS / "village" / "model") if chosen.model == "village" else chosen.model
        super().__init__(pretrained=where, **{**options, **safe})
        self._lm = load(self.model, self.tokenizer)
        self._plan = self._make_plan(chosen, atlas) if recipe else None
        if self._plan is not None and self._plan.where != ALL:
            raise ClasError(
                "The harness doesn't tell where a prompt ends: give it a recipe with where=all."
            )
        if chosen.system:
            logging.getLogger(__name__).warning(
                "The recipe's system prompt isn't used: give it by --system_instruction."
            )
        self._mark = self._make_mark(chosen, bool(recipe), options)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's cache (`--use_cache`), whose keys are the requests alone, for answers
        of this model under this plan.

        Its file is marked with both, and its keys too, so that no other model is served these
        answers. Raises ClasError for a file with answers of another model or another plan.
        """
        super().set_cache_hook(cache_hook)
        answers = cache_hook.dbdict
        if answers is None:
            return
        kept = answers.get(_MARK)
        if kept is None and len(answers):
            raise ClasError("The cache holds another model's answers: give --use_cache a new file.")
        if kept is not None and kept != self._mark:
            others = ", ".join(_differing(json.loads(kept), json.loads(self._mark)))
            raise ClasError(
                f"The cache holds answers under another {others}: give --use_cache a new file."
            )
        answers[_MARK] = self._mark
        mark = self._mark
        answers.encode_key = lambda request: f"{mark} {request}"

    def _make_mark(self, recipe: Recipe, is_steered: bool, options: Mapping[str, Any]) -> str:
        """All that the answers depend on but the requests, as JSON."""
        used = {name: value for name, value in vars(recipe).items() if name not in _OF_WRITING}
        mark = {
            "model": recipe.model,
            **fingerprint(self._lm).as_dict(),
            "dtype": str(self._lm.dtype),
            "recipe": used if is_steered else None,
            "plan": None if self._plan is None else fingerprint_plan(self._plan),
            "options": {k: str(v) for k, v in options.items() if k not in _INDIFFERENT},
        }
        return json.dumps(mark, sort_keys=True)

    def _make_plan(self, recipe: Recipe, atlas: str | None) -> SteeringPlan:
        if atlas is not None:
            return recipe.build(Atlas.load(atlas, self._lm))
        return recipe.build(measure_cached(self._lm, ParallelCorpus.open(recipe.corpus)))

    def _model_call(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with steered(self._lm, self._plan):
            return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with steered(self._lm, self._plan):
            return super()._model_generate(*args, **kwargs)


def _differing(kept: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """The names of the parts of two marks that differ."""
    return [name for name in mine if kept.get(name) != mine[name]]
