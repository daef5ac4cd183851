"""lm-evaluation-harness under steering: its model `clas` (extra `lm-eval`).

After `import clas_core`, in Python or by `python -m clas_core lm_eval`:

    lm_eval --model clas --model_args pretrained=ID,recipe=steer.json --tasks xnli_sw

Everything else is the harness's own Hugging Face model: batches, few-shot, `accelerate launch`.
"""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from ...atlas.atlas import Atlas
from ...atlas.cache import measure_cached
from ...model.loading import load
from ...paths import ASSETS
from ...steering.plan import SteeringPlan, steered
from ...steering.recipe import Recipe, read_recipe
from ...text.corpus import ParallelCorpus


class SteeredLM(HFLM):
    """A model of the harness, every forward of which is steered.

    `pretrained` is "village", a local directory or a hub id (default: the recipe's model).
    `recipe` is a .json file, a link or its query; left empty, nothing is steered. `target`
    overrides the recipe's language. `atlas` is a measured atlas; left empty, the model is measured
    on the recipe's corpus, once. All else goes to the harness's `HFLM`. Weights are read from
    safetensors only, and no code from a checkpoint is run.
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
