"""Tells the node of layouts that settling and restoring left, as the executor does of its own."""

import logging
from collections.abc import Iterable

from migscaler.app.wiring import Assembly
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Outcome, OutcomeReason

_log = logging.getLogger("migscaler.telling")


class Telling:
    """Makes device nodes at once and runs hooks when asked to.

    A hook may restart a service that is ordered after this one: run before the node is ready, it
    would wait for us and we for it.
    """

    def __init__(self, assembly: Assembly) -> None:
        """Have nothing to tell."""
        self._assembly = assembly
        self._untold: dict[GpuUuid, Layout] = {}

    def changed(self, outcomes: Iterable[Outcome]) -> None:
        """Make the device nodes of what was made, and keep it for the hooks."""
        made: dict[GpuUuid, Layout] = {}
        for outcome in outcomes:
            ended = outcome.reason in (OutcomeReason.SETTLED, OutcomeReason.COMPLETED)
            # Without a call of ours now, the one who died may not have told of his last.
            if outcome.layout is not None and (outcome.steps or ended):
                made[outcome.gpu_uuid] = outcome.layout
        self._untold |= made
        # Once: it makes the nodes of all GPUs, may take 30 s, and the start waits for it.
        for uuid, layout in list(made.items())[-1:]:
            for tell in self._assembly.ground.tell_node:
                _warn(uuid, tell(uuid, layout))

    def run_hooks(self) -> None:
        """Run the hooks for every GPU that changed since they last ran."""
        for uuid in tuple(self._untold):
            layout = self._untold.pop(uuid, None)
            if layout is not None:
                _warn(uuid, self._assembly.run_hooks(uuid, layout))


def _warn(uuid: GpuUuid, problem: str | None) -> None:
    """Log what did not work; it undoes nothing."""
    if problem is not None:
        _log.warning("node_not_told gpu=%s problem=%s", uuid, problem)
