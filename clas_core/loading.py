"""Load a causal language model for measuring and steering: from the hub, a directory, or memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from .errors import ClasError
from .models import LanguageModel, find_mlps
from .paths import ASSETS


def load(
    model: str | Path | PreTrainedModel,
    tokenizer: Any = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> LanguageModel:
    """Load a causal language model for measuring and steering.

    `model` is "village" (the embedded model), a local directory, a hub id, or a model already in
    memory together with its `tokenizer`. `dtype` None or "auto" means float32 on the CPU and the
    checkpoint's own dtype elsewhere; `device` None means CUDA where there is one. Only safetensors
    weights are read, and no code from a checkpoint is run. The model is put in evaluation mode.

    Raises ClasError if it can't be loaded, UnsupportedModel if its MLPs can't be found.
    """
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise ClasError("A model in memory needs its tokenizer too: load(model, tokenizer).")
        if dtype is not None or device is not None or revision is not None:
            raise ClasError("dtype, device and revision are for loading; this model is loaded.")
        loaded = model
    else:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        loaded, tokenizer = _from_pretrained(_source(model), tokenizer, dtype, where, revision)
    loaded.eval()
    blocks, mlps = find_mlps(loaded)
    in_memory = isinstance(model, PreTrainedModel)
    name = loaded.name_or_path or type(loaded).__name__ if in_memory else str(model)
    commit = getattr(loaded.config, "_commit_hash", None)
    return LanguageModel(loaded, tokenizer, name, commit or revision, blocks, mlps)


def _source(model: str | Path) -> str:
    """The hub id or directory behind a name, after checking that a directory holds a model."""
    folder = ASSETS / "village" / "model" if str(model) == "village" else Path(model)
    if str(model) == "village" and not folder.is_dir():
        raise ClasError("The embedded model isn't here: build it with `make model`.")
    if not folder.is_dir():
        if isinstance(model, Path) or folder.is_absolute() or str(model).startswith("."):
            raise ClasError(f"There is no directory {model}: check the path.")
        return str(model)
    if not (folder / "config.json").is_file():
        raise ClasError(f"{folder} has no config.json: choose the directory of a saved model.")
    if not any(folder.glob("*.safetensors")):
        raise ClasError(
            f"{folder} has no weights in *.safetensors: save the model there with save_pretrained."
        )
    return str(folder)


def _from_pretrained(
    source: str,
    tokenizer: Any,
    dtype: str | torch.dtype | None,
    device: torch.device,
    revision: str | None,
) -> tuple[PreTrainedModel, Any]:
    if dtype in (None, "auto"):
        dtype = torch.float32 if device.type == "cpu" else "auto"
    try:
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=revision, trust_remote_code=False
            )
        model = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClasError(f"Can't load {source}: {reason}") from error
    return model.to(device), tokenizer  # type: ignore[arg-type]  # torch's stubs see a wrapper
