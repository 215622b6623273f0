"""Whether a simulated node keeps every promise: judged by its own state and its log of calls.

Nothing that migscaler recorded is asked, but for which plans are open.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from migscaler.model.layout import GpuModel, Layout
from migscaler.sim.core import CallRecord
from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState


def told(tally: object) -> str:
    """Return a campaign's counts as JSON; dataclasses.asdict would make a Counter of a Counter."""
    names: tuple[str, ...] = type(tally).__slots__  # type: ignore[attr-defined]  # they all have them
    return json.dumps({name: getattr(tally, name) for name in names})


Births = Mapping[int, int]
"""GI id -> birth mark of the instances that run a job: another mark means destroyed and remade."""


def births_of(gpu: GpuState) -> dict[int, int]:
    """Return the birth mark of every instance that runs a job."""
    return {job.gi_id: gpu.instances[job.gi_id].born for job in gpu.jobs if job.gi_id}


def layout_of(node: SimNode, model: GpuModel, index: int = 0) -> Layout:
    """Return what a GPU of the node has."""
    found = node.state.gpus[index].instances.values()
    return Layout(tuple(model.spec(f"{gi.profile}@{gi.start}") for gi in found))


def destroyed_in_use(log: Iterable[CallRecord]) -> list[str]:
    """Return the destroys that went through although a process was on what they hit."""
    return [
        f"destroyed in use: {call.spec}"
        for call in log
        if call.in_use and call.code == 0 and "Destroy" in call.function
    ]


def half_made(gpu: GpuState) -> list[str]:
    """Return the instances that no job can use, or that are not whole."""
    return [
        f"no compute instance in {gi.profile}@{gi.start}"
        for gi in gpu.instances.values()
        if len(gi.compute) != 1
    ]


def broken(
    node: SimNode,
    model: GpuModel,
    change: tuple[Layout, Layout],
    *,
    since: int,
    births: Births | None = None,
    index: int = 0,
) -> list[str]:
    """Return every promise that one GPU of the node breaks now.

    `change` is the layout before and after the plan, `since` the number of calls logged before it,
    `births` the instances in use that must still be the ones they were.
    """
    gpu, (before, after) = node.state.gpus[index], change
    found = destroyed_in_use(node.call_log()[since:])
    if births is not None and births.items() - births_of(gpu).items():
        found.append("an instance in use is not the one it was")
    violation = model.violation(layout_of(node, model, index))
    if violation is not None:
        found.append(f"illegal: {violation}")
    found += half_made(gpu)
    whole = Counter(gi.profile for gi in gpu.instances.values() if len(gi.compute) == 1)
    short = (before.profiles() & after.profiles()) - whole
    return found + [f"{count} x {profile} lost" for profile, count in short.items()]
