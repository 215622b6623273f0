"""What runs on a simulated node, and who else keeps hold of it."""

from migscaler.errors import CommandRefused, NotFound
from migscaler.sim import gpu as transitions
from migscaler.sim.core import NodeCore
from migscaler.sim.state import GpuState, InstanceState, Job, NodeState
from migscaler.sim.telemetry import settle


class JobControl(NodeCore):
    """Starts and ends processes and handle holders, from any process that has the node open."""

    def start_job(
        self,
        gpu: int | str,
        instance: int | str | None = None,
        *,
        memory_mib: int = 1024,
        activity: float = 0.8,
        pid: int | None = None,
        name: str = "python3",
        user: str = "alice",
        ci_id: int | None = None,
        exclusive: bool = False,
        cgroup: str = "/",
    ) -> int:
        """Start a process and return its pid.

        `gpu` is an index or UUID; `instance` a GI id, a MIG UUID, or None on a GPU without MIG
        mode. Without a pid an unused number near the top of the pid range is taken, which is in no
        /proc. `exclusive` refuses an instance that another process is on, as a scheduler would.
        `cgroup` is the path of its control group, by which its container is told.

        Raises:
            CommandRefused: no such instance, no compute instance in it, or not enough memory.
        """
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            gi_id = self._instance_id(found, instance)
            if exclusive and any(job.gi_id == gi_id for job in found.jobs):
                raise CommandRefused(f"GPU {found.index}: another process is on it")
            if pid is None:
                pid, state.next_pid = state.next_pid, state.next_pid + 1
            job = Job(pid, name, user, memory_mib, activity, gi_id, ci_id, cgroup=cgroup)
            problem = transitions.start_job(found, job, self.clock())
            if problem is not None:
                raise CommandRefused(f"GPU {found.index}: {problem}")
            return pid

    def end_job(self, pid: int, *, name: str | None = None) -> bool:
        """End every process of this pid (and name, if given); say whether there was one."""
        with self.changing() as state:
            ended = False
            for gpu in state.gpus:
                staying = [
                    job for job in gpu.jobs if job.pid != pid or name not in (None, job.name)
                ]
                if len(staying) != len(gpu.jobs):
                    settle(gpu, self.clock())
                    gpu.jobs = staying
                    ended = True
            return ended

    def set_activity(self, pid: int, activity: float) -> None:
        """Change how busy a process keeps its instance (0..1)."""
        with self.changing() as state:
            for gpu in state.gpus:
                for job in gpu.jobs:
                    if job.pid == pid:
                        settle(gpu, self.clock())
                        job.activity = activity

    def hold_gpu(self, gpu: int | str, client: str = "nv-hostengine") -> None:
        """Let a client keep the GPU open: mode changes and the first GPU instance answer IN_USE."""
        with self.changing() as state:
            self.gpu_of(state, gpu).holders.append(client)

    def hold_instance(self, gpu: int | str, gi_id: int, client: str = "nv-hostengine") -> None:
        """Let a client keep a handle on an instance: destroying it answers IN_USE.

        Its compute instance can still be destroyed: partial failure is normal on real drivers.
        """
        with self.changing() as state:
            self.instance_of(self.gpu_of(state, gpu), gi_id).holders.append(client)

    def release(self, gpu: int | str) -> None:
        """Make all clients let go of the GPU and its instances."""
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            found.holders.clear()
            for gi in found.instances.values():
                gi.holders.clear()

    @staticmethod
    def gpu_of(state: NodeState, wanted: int | str) -> GpuState:
        """Return a GPU by index or UUID.

        Raises:
            NotFound: there is none.
        """
        for gpu in state.gpus:
            if wanted in (gpu.index, gpu.uuid):
                return gpu
        raise NotFound(f"the simulated node has no GPU {wanted}")

    @staticmethod
    def instance_of(gpu: GpuState, gi_id: int) -> InstanceState:
        """Return a GPU instance.

        Raises:
            NotFound: there is none.
        """
        found = gpu.instances.get(gi_id)
        if found is None:
            raise NotFound(f"GPU {gpu.index} has no GPU instance {gi_id}")
        return found

    def _instance_id(self, gpu: GpuState, wanted: int | str | None) -> int | None:
        """Read a GI id or MIG UUID."""
        if wanted is None or isinstance(wanted, int):
            return wanted
        found = self.find_mig(wanted)
        if found is None or found[0].uuid != gpu.uuid:
            raise CommandRefused(f"GPU {gpu.index} has no MIG device {wanted}")
        return found[1].id
