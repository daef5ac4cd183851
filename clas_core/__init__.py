"""Cross-lingual activation steering: measure neurons, steer generation, see and keep the result.

The public names below are imported when first used, so that `import clas_core` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from .atlas.atlas import Atlas as Atlas
    from .atlas.cache import list_cached as list_cached
    from .atlas.cache import measure_cached as measure_cached
    from .atlas.preflight import Preflight as Preflight
    from .atlas.preflight import inspect as inspect
    from .atlas.selection import Selection as Selection
    from .atlas.selection import lape_select as lape_select
    from .atlas.selection import select as select
    from .errors import ClasError as ClasError
    from .evaluation.trying import evaluate as evaluate
    from .model.architecture import LanguageModel as LanguageModel
    from .model.architecture import UnsupportedModel as UnsupportedModel
    from .model.loading import load as load
    from .model.prompts import Rendered as Rendered
    from .model.prompts import from_nothing as from_nothing
    from .model.prompts import is_chat_model as is_chat_model
    from .model.prompts import render as render
    from .model.sources import check_allowed as check_allowed
    from .running.answers import generate_batch as generate_batch
    from .running.decoder import Decoder as Decoder
    from .running.effects import Effects as Effects
    from .running.effects import compare as compare
    from .running.effects import diff_words as diff_words
    from .running.generation import Step as Step
    from .running.generation import generate as generate
    from .running.layout import Layout as Layout
    from .running.request import Request as Request
    from .running.separation import Separation as Separation
    from .running.separation import separation as separation
    from .running.separation import separation_of as separation_of
    from .running.states import BridgeCache as BridgeCache
    from .running.states import HiddenStates as HiddenStates
    from .running.states import hidden_states as hidden_states
    from .steering.baking import bake as bake
    from .steering.control_vectors import read_control_vector as read_control_vector
    from .steering.control_vectors import write_control_vector as write_control_vector
    from .steering.methods import CLAS as CLAS
    from .steering.methods import LAPE as LAPE
    from .steering.methods import METHODS as METHODS
    from .steering.methods import Composition as Composition
    from .steering.methods import DiffMean as DiffMean
    from .steering.methods import IntMu as IntMu
    from .steering.methods import Kojima as Kojima
    from .steering.methods import LanguageArithmetic as LanguageArithmetic
    from .steering.methods import RandomControl as RandomControl
    from .steering.methods import Silence as Silence
    from .steering.methods import ThereAndBack as ThereAndBack
    from .steering.methods import UnitDiffMean as UnitDiffMean
    from .steering.methods import bridge_layers as bridge_layers
    from .steering.plan import LayerPlan as LayerPlan
    from .steering.plan import SteeringPlan as SteeringPlan
    from .steering.plan import steered as steered
    from .steering.published import PublishedNeurons as PublishedNeurons
    from .steering.published import PublishedVectors as PublishedVectors
    from .steering.published import plan_from_vectors as plan_from_vectors
    from .steering.published import read_neurons as read_neurons
    from .steering.published import read_vectors as read_vectors
    from .steering.published import recategorize as recategorize
    from .steering.recipe import Recipe as Recipe
    from .steering.where import steered_tokens as steered_tokens
    from .text.corpus import ParallelCorpus as ParallelCorpus
    from .text.detection import Detection as Detection
    from .text.detection import detect as detect
    from .text.languages import LANGUAGES as LANGUAGES
    from .text.languages import Language as Language
    from .text.languages import canonical_code as canonical_code
    from .text.languages import get_language as get_language
    from .text.report import CorpusReport as CorpusReport
    from .text.report import check_corpus as check_corpus
    from .ui.tabs.notebook import studio as studio

_HOMES = {
    "atlas.atlas": "Atlas",
    "atlas.cache": "list_cached measure_cached",
    "steering.baking": "bake",
    "running.separation": "Separation separation separation_of",
    "steering.control_vectors": "read_control_vector write_control_vector",
    "text.report": "CorpusReport check_corpus",
    "text.corpus": "ParallelCorpus",
    "text.detection": "Detection detect",
    "running.decoder": "Decoder",
    "running.request": "Request",
    "running.effects": "Effects compare diff_words",
    "errors": "ClasError",
    "running.answers": "generate_batch",
    "evaluation.trying": "evaluate",
    "running.generation": "Step generate",
    "running.states": "BridgeCache HiddenStates hidden_states",
    "text.languages": "LANGUAGES Language canonical_code get_language",
    "running.layout": "Layout",
    "model.loading": "load",
    "steering.methods": "CLAS LAPE METHODS Composition DiffMean IntMu Kojima LanguageArithmetic "
    "RandomControl Silence ThereAndBack UnitDiffMean bridge_layers",
    "model.architecture": "LanguageModel UnsupportedModel",
    "atlas.selection": "Selection lape_select select",
    "steering.plan": "LayerPlan SteeringPlan steered",
    "atlas.preflight": "Preflight inspect",
    "model.prompts": "Rendered from_nothing is_chat_model render",
    "steering.published": "PublishedNeurons PublishedVectors plan_from_vectors read_neurons "
    "read_vectors recategorize",
    "steering.recipe": "Recipe",
    "steering.where": "steered_tokens",
    "model.sources": "check_allowed",
    "ui.tabs.notebook": "studio",
}
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
