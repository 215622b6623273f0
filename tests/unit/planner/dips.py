"""How long wanted instances are away while steps are carried out, and the least that could be."""

import heapq
from collections.abc import Callable, Sequence

from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Step, StepAction
from migscaler.planner.problem import PlanGpu

Placed = tuple[GpuUuid, Step]


def area(gpus: dict[GpuUuid, PlanGpu], steps: Sequence[Placed], wanted: frozenset[str]) -> int:
    """Return the sum over steps of the wanted instances below min(before, after)."""
    floors = _floors(gpus, steps, wanted)
    return sum(
        _below(gpus, steps, sum(1 << n for n in range(done)), floors)
        for done in range(1, len(steps) + 1)
    )


def least_area(
    gpus: dict[GpuUuid, PlanGpu],
    steps: Sequence[Placed],
    wanted: frozenset[str],
    *,
    gpu_by_gpu: bool,
    phases: bool,
) -> int:
    """Return the least area over all legal orders: Dijkstra over the sets of done steps.

    `gpu_by_gpu`: a GPU that was begun is finished first. `phases`: on each GPU creates that need no
    room come first, then destroys, then the other creates.
    """
    floors = _floors(gpus, steps, wanted)
    allowed = _order_rule(gpus, steps, gpu_by_gpu=gpu_by_gpu, phases=phases)
    everything = (1 << len(steps)) - 1
    queue, settled = [(0, 0)], set()
    while queue:
        cost, done = heapq.heappop(queue)
        if done == everything:
            return cost
        if done in settled:
            continue
        settled.add(done)
        for n in range(len(steps)):
            after = done | 1 << n
            if after not in settled and after != done and allowed(done, n):
                heapq.heappush(queue, (cost + _below(gpus, steps, after, floors), after))
    raise AssertionError("no legal order exists")


def _order_rule(
    gpus: dict[GpuUuid, PlanGpu], steps: Sequence[Placed], *, gpu_by_gpu: bool, phases: bool
) -> Callable[[int, int], bool]:
    """Return a test whether step n may follow the set of done ones."""
    own = {uuid: sum(1 << n for n, (u, _) in enumerate(steps) if u == uuid) for uuid in gpus}
    destroys = sum(1 << n for n, (_, s) in enumerate(steps) if s.action is StepAction.DESTROY)
    fits = sum(
        1 << n for n in range(len(steps)) if not destroys >> n & 1 and _legal(gpus, steps, 0, n)
    )

    def in_phase(done: int, n: int) -> bool:
        mine = own[steps[n][0]]
        if not destroys >> n & 1:
            return bool(fits >> n & 1) or not mine & destroys & ~done
        early = mine & fits & ~done
        return not any(_legal(gpus, steps, done, m) for m in range(len(steps)) if early >> m & 1)

    def allowed(done: int, n: int) -> bool:
        uuid = steps[n][0]
        begun = [u for u, mine in own.items() if done & mine and done & mine != mine]
        if gpu_by_gpu and begun and uuid not in begun:
            return False
        return (not phases or in_phase(done, n)) and _legal(gpus, steps, done, n)

    return allowed


def _legal(gpus: dict[GpuUuid, PlanGpu], steps: Sequence[Placed], done: int, n: int) -> bool:
    """Say whether the GPU of step n has a legal layout once that step follows the done ones."""
    uuid, step = steps[n]
    if step.action is StepAction.DESTROY:
        return True
    past = [s for m, (u, s) in enumerate(steps) if u == uuid and done >> m & 1]
    gone = [s.spec for s in past if s.action is StepAction.DESTROY]
    made = [s.spec for s in past if s.action is StepAction.CREATE]
    layout = gpus[uuid].layout.without(gone).with_specs(made)
    if step.spec.mask & layout.mask:
        return False
    return gpus[uuid].model.violation(layout.with_specs((step.spec,))) is None


def _floors(
    gpus: dict[GpuUuid, PlanGpu], steps: Sequence[Placed], wanted: frozenset[str]
) -> dict[str, tuple[int, int]]:
    """Return (before, min(before, after)) of each wanted key, counting idle instances."""
    before = dict.fromkeys(wanted, 0)
    for gpu in gpus.values():
        for spec in gpu.idle:
            key = dict(gpu.keys).get(spec.profile)
            if key in before:
                before[key] += 1
    after = dict(before)
    for uuid, step in steps:
        key = dict(gpus[uuid].keys).get(step.spec.profile)
        if key in after:
            after[key] += 1 if step.action is StepAction.CREATE else -1
    return {key: (before[key], min(before[key], after[key])) for key in wanted}


def _below(
    gpus: dict[GpuUuid, PlanGpu],
    steps: Sequence[Placed],
    done: int,
    floors: dict[str, tuple[int, int]],
) -> int:
    """Return how many wanted instances are below their floors once some steps are done."""
    count = {key: before for key, (before, _) in floors.items()}
    for n, (uuid, step) in enumerate(steps):
        key = dict(gpus[uuid].keys).get(step.spec.profile)
        if done >> n & 1 and key in count:
            count[key] += 1 if step.action is StepAction.CREATE else -1
    return sum(max(0, floor - count[key]) for key, (_, floor) in floors.items())
