"""The demo's day: jobs on the simulated node, their queue pushed, the daemon's changes told."""

from pathlib import Path

from migscaler.cli.answers import Answer, rows, sizes, text
from migscaler.cli.local import daemon_at
from migscaler.cli.output import show
from migscaler.cli.session import Node, Options
from migscaler.errors import MigscalerError
from migscaler.sim.node import SimNode
from migscaler.sim.workload import NIGHT, OFFICE, JobKind, Workload

# Concurrent jobs are rate times length: around 24 x 1g and 6 x 2g by day, 5 x 3g and 2 x 7g by
# night. Each is most of 8 GPUs, so that neither shape would serve the other half of the day.
_KINDS = (
    JobKind(size="1g", per_hour=20, mean_minutes=35, curve=OFFICE),
    JobKind(size="2g", per_hour=2.5, mean_minutes=70, curve=OFFICE),
    JobKind(size="3g", per_hour=1.5, mean_minutes=100, curve=NIGHT),
    JobKind(size="7g", per_hour=0.6, mean_minutes=100, curve=NIGHT),
)
_PUSH_SECONDS = 1.0
_PUSH_TTL_SECONDS = 10.0


class Load:
    """Plays the day step by step; `changes` counts the GPU plans seen done."""

    def __init__(
        self, root: Path, node: SimNode, seed: int, speed: float, start_hour: float
    ) -> None:
        """Draw the day; the daemon's state is in `root`/state."""
        self.workload = Workload(
            node=node,
            seed=seed,
            kinds=_KINDS,
            speed=speed,
            start_hour=start_hour,
            may_use=self._may_use,
        )
        self._node = node
        self._leased: set[tuple[str, str]] = set()
        self.changes = 0
        self._options = Options(state_dir=root / "state")
        self._indexes = {gpu.uuid: gpu.index for gpu in node.state.gpus}
        self._daemon: Node | None = None
        self._told: set[str] = set()
        self._pushed_at = float("-inf")

    def step(self, now: float) -> bool:
        """Let what is due happen; say whether the daemon answers."""
        if self._daemon is None:
            # The day starts when somebody watches over it.
            self._daemon = daemon_at(self._options)
            return False
        self.workload.step(now)
        if now - self._pushed_at < _PUSH_SECONDS:
            return True
        self._pushed_at = now
        try:
            self._push(self._daemon)
            leases = rows(self._daemon.execute("leases", {}), "leases")
            self._leased = {(text(one, "gpu_uuid"), text(one, "spec")) for one in leases}
            self._tell(self._daemon)
        except MigscalerError:
            # It restarts or is busy; what was pushed holds for some seconds.
            return False
        return True

    def _may_use(self, gpu_uuid: str, gi_id: int) -> bool:
        """Keep the day's jobs off instances that somebody leased by hand."""
        if not self._leased:
            return True
        gi = self._node.gpu_of(self._node.state, gpu_uuid).instances.get(gi_id)
        return gi is None or (gpu_uuid, f"{gi.profile}@{gi.start}") not in self._leased

    def _push(self, daemon: Node) -> None:
        """Tell the daemon how many jobs wait, by size."""
        daemon.execute(
            "demand_push",
            {
                "source": "queue",
                "wants": self.workload.waiting(),
                "ttl_seconds": _PUSH_TTL_SECONDS,
                "counts": "waiting",
            },
        )

    def _tell(self, daemon: Node) -> None:
        """Print the GPU plans that ended since the last time."""
        found = rows(daemon.execute("history", {"limit": 20}), "gpu_plans")
        for plan in reversed(found):
            key = text(plan, "plan_id") + text(plan, "gpu_uuid")
            if key in self._told or text(plan, "outcome") == "open":
                continue
            self._told.add(key)
            self.changes += text(plan, "outcome") == "done"
            show(self._line(plan))

    def _line(self, plan: Answer) -> str:
        """Return one change in one line, with the demo's time of day."""
        minutes = int(self.workload.hour() * 60)
        waiting = [f"{n} x {size}" for size, n in self.workload.waiting().items() if n]
        change = f"{sizes(text(plan, 'before'))} -> {sizes(text(plan, 'after'))}"
        ended = (
            ""
            if text(plan, "outcome") == "done"
            else f"  {text(plan, 'outcome')}: {text(plan, 'reason')}"
        )
        gpu = self._indexes.get(text(plan, "gpu_uuid"), "?")
        queue = f"  waiting: {', '.join(waiting)}" if waiting else ""
        return f"{minutes // 60:02}:{minutes % 60:02}  GPU {gpu}: {change}{ended}{queue}"
