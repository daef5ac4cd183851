"""Cross-lingual activation steering: measure neurons, steer generation, see and keep the result.

The public names below are imported when first used, so that `import clas_core` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .evaluation.registering import register_when_imported

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from .atlas import Atlas as Atlas
    from .atlases import list_cached as list_cached
    from .atlases import measure_cached as measure_cached
    from .baking import bake as bake
    from .clusters import Separation as Separation
    from .clusters import separation as separation
    from .clusters import separation_of as separation_of
    from .control_vectors import read_control_vector as read_control_vector
    from .control_vectors import write_control_vector as write_control_vector
    from .corpora import CorpusReport as CorpusReport
    from .corpora import check_corpus as check_corpus
    from .corpus import ParallelCorpus as ParallelCorpus
    from .detection import Detection as Detection
    from .detection import detect as detect
    from .effects import Effects as Effects
    from .effects import compare as compare
    from .effects import diff_words as diff_words
    from .errors import ClasError as ClasError
    from .generation import Step as Step
    from .generation import generate as generate
    from .generation import generate_batch as generate_batch
    from .hidden import BridgeCache as BridgeCache
    from .hidden import HiddenStates as HiddenStates
    from .hidden import hidden_states as hidden_states
    from .languages import LANGUAGES as LANGUAGES
    from .languages import Language as Language
    from .languages import canonical_code as canonical_code
    from .languages import get_language as get_language
    from .layout import Layout as Layout
    from .loading import load as load
    from .methods import CLAS as CLAS
    from .methods import LAPE as LAPE
    from .methods import METHODS as METHODS
    from .methods import DiffMean as DiffMean
    from .methods import IntMu as IntMu
    from .methods import LanguageArithmetic as LanguageArithmetic
    from .methods import RandomControl as RandomControl
    from .methods import bridge_layers as bridge_layers
    from .models import LanguageModel as LanguageModel
    from .models import UnsupportedModel as UnsupportedModel
    from .neurons import Selection as Selection
    from .neurons import lape_select as lape_select
    from .neurons import select as select
    from .plan import LayerPlan as LayerPlan
    from .plan import SteeringPlan as SteeringPlan
    from .plan import steered as steered
    from .preflight import Preflight as Preflight
    from .preflight import inspect as inspect
    from .prompts import Rendered as Rendered
    from .prompts import is_chat_model as is_chat_model
    from .prompts import render as render
    from .published import PublishedNeurons as PublishedNeurons
    from .published import PublishedVectors as PublishedVectors
    from .published import plan_from_vectors as plan_from_vectors
    from .published import read_neurons as read_neurons
    from .published import read_vectors as read_vectors
    from .published import recategorize as recategorize
    from .recipe import Recipe as Recipe
    from .sources import check_allowed as check_allowed

__version__ = "0.1.0"

_HOMES = {
    "atlas": "Atlas",
    "atlases": "list_cached measure_cached",
    "baking": "bake",
    "clusters": "Separation separation separation_of",
    "control_vectors": "read_control_vector write_control_vector",
    "corpora": "CorpusReport check_corpus",
    "corpus": "ParallelCorpus",
    "detection": "Detection detect",
    "effects": "Effects compare diff_words",
    "errors": "ClasError",
    "generation": "Step generate generate_batch",
    "hidden": "BridgeCache HiddenStates hidden_states",
    "languages": "LANGUAGES Language canonical_code get_language",
    "layout": "Layout",
    "loading": "load",
    "methods": "CLAS LAPE METHODS DiffMean IntMu LanguageArithmetic RandomControl bridge_layers",
    "models": "LanguageModel UnsupportedModel",
    "neurons": "Selection lape_select select",
    "plan": "LayerPlan SteeringPlan steered",
    "preflight": "Preflight inspect",
    "prompts": "Rendered is_chat_model render",
    "published": "PublishedNeurons PublishedVectors plan_from_vectors read_neurons read_vectors "
    "recategorize",
    "recipe": "Recipe",
    "sources": "check_allowed",
}
register_when_imported()  # `--model clas` in lm-evaluation-harness
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
