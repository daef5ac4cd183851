"""Make `clas` a model of lm-evaluation-harness once that is imported; until then it costs nothing.

The harness has no plug-ins: who wants a model in its registry puts it there. Its models are listed
when its `lm_eval.models` is first imported, so that is the moment to add ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_LISTING = "lm_eval.models"
_MODEL = "clas_core.evaluation.judging.harness:SteeredLM"


def register_when_imported() -> None:
    """Register now if the harness has listed its models, else when it does."""
    if _LISTING in sys.modules:
        _register()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


def _register() -> None:
    from lm_eval.api.registry import model_registry

    if "clas" not in model_registry:
        model_registry.register("clas", target=_MODEL)


class _Watch(MetaPathFinder):
    """Sees the harness's listing being imported, once, and leaves all else to the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _LISTING:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(Loader):
    """The module's own loader, and then our registration."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register()
