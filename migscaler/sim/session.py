"""One process's use of the simulated library: its initialisation, samples and event sets."""

from dataclasses import dataclass, field

from migscaler.sim.arguments import Argument, address
from migscaler.sim.codes import Answered, Code
from migscaler.sim.handles import Kind, compute_of, device_of, instance_of
from migscaler.sim.node import SimNode
from migscaler.sim.state import ComputeState, GpuState, InstanceState, NodeState


@dataclass(slots=True)
class Sample:
    """What a GPM sample holds: busy seconds at a time; `born` tells instances apart."""

    at: float | None = None
    busy_seconds: float = 0.0
    has_compute: bool = True
    born: int = 0


@dataclass(slots=True)
class EventSet:
    """Which events of which GPUs are wanted, and the last one that was given out."""

    wanted: dict[int, int] = field(default_factory=dict)
    seen: int = 0


class Session:
    """What the functions of one loaded library share."""

    def __init__(self, node: SimNode, actor: str) -> None:
        """Belong to the driver the node runs now; `actor` names this process in the call log."""
        self.node = node
        self.actor = actor
        self.driver = node.state.driver
        self.references = 0
        self.driver_session = 0
        self.samples: dict[int, Sample] = {}
        self.event_sets: dict[int, EventSet] = {}
        self._next = 1

    def check(self, state: NodeState, *, initialised: bool = True) -> None:
        """Answer what a library answers before it looks at any argument."""
        if not state.driver_loaded:
            raise Answered(Code.DRIVER_NOT_LOADED if not initialised else Code.UNINITIALIZED)
        if state.driver != self.driver:
            raise Answered(Code.LIB_RM_VERSION_MISMATCH)
        if initialised and (not self.references or self.driver_session != state.session):
            raise Answered(Code.UNINITIALIZED)

    def device(self, handle: Argument) -> GpuState:
        """Return the GPU of a parent handle; INVALID_ARGUMENT for any other."""
        return device_of(self.node.store.read(), address(handle))

    def instance(self, handle: Argument) -> tuple[GpuState, InstanceState]:
        """Return what a GPU instance handle names."""
        return instance_of(self.node.store.read(), address(handle), Kind.GPU_INSTANCE)

    def compute(self, handle: Argument) -> tuple[GpuState, InstanceState, ComputeState]:
        """Return what a compute instance handle names."""
        return compute_of(self.node.store.read(), address(handle), Kind.COMPUTE_INSTANCE)

    def any_device(
        self, handle: Argument
    ) -> tuple[GpuState, InstanceState | None, ComputeState | None]:
        """Return what a parent handle or MIG device handle names."""
        value = address(handle)
        if value >> 48 == Kind.MIG_DEVICE:
            return compute_of(self.node.store.read(), value, Kind.MIG_DEVICE)
        return device_of(self.node.store.read(), value), None, None

    def require_privilege(self) -> None:
        """Answer NO_PERMISSION to a process without the mig/config capability."""
        if not self.node.store.read().privileged:
            raise Answered(Code.NO_PERMISSION)

    def require_admin(self) -> None:
        """Answer NO_PERMISSION to a process without CAP_SYS_ADMIN, which a MIG mode change takes.

        Source: MIG User Guide, Device Nodes and Capabilities: mig/config allows to make and destroy
        instances, switching the mode takes root.
        """
        state = self.node.store.read()
        if not (state.privileged and state.admin):
            raise Answered(Code.NO_PERMISSION)

    def new_number(self) -> int:
        """Return a number for a sample or an event set."""
        self._next += 1
        return self._next << 8
