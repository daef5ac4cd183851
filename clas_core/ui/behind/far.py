"""The map's sentences, read by a model that is on its device inside of a call alone."""

from __future__ import annotations

from typing import Any
from weakref import ref

from torch import Tensor

from ...running.states import HiddenStates
from ...steering.plan import SteeringPlan
from .calls import Calls, only
from .works import reading


class Far:
    """As `running.states.BridgeCache`: unsteered states once, a call for each plan and layer."""

    unsteered: HiddenStates

    def __init__(self, calls: Calls, studio: ref[Any]) -> None:
        self._calls, self._studio = calls, studio
        self.unsteered = only(calls(reading, studio(), None, None))

    def states(self, plan: SteeringPlan, layer: int) -> Tensor:
        """The sentences [sentences, hidden] at `layer` under `plan`."""
        return only(self._calls(reading, self._studio(), plan, layer))
