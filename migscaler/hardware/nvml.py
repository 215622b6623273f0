"""Read and write GPUs through NVML in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from migscaler.errors import DriverGone, ForeignAnswer, NvmlError
from migscaler.hardware.gauge_reading import GaugeReading
from migscaler.hardware.gpm_windows import GpmWindows
from migscaler.hardware.gpu_facts import GpuFacts
from migscaler.hardware.gpu_reading import read_gpu
from migscaler.hardware.instance_reading import GpuAccess, LiveInstance
from migscaler.hardware.nvml_answers import IN_USE, RESET_REQUIRED, GiHandle
from migscaler.hardware.nvml_calls import error_for
from migscaler.hardware.nvml_session import NvmlCalls, NvmlSession
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts, RollCall
from migscaler.hardware.xid_watch import XidWatch
from migscaler.model.gpu import Activity, GpuReading, ModeChange, NodeReading
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.layout import GpuModel
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.profile import InstanceSpec
from migscaler.model.stats import CallStats

_PENDING_ON = {IN_USE: "clients", RESET_REQUIRED: "reset"}


class NvmlReader:
    """Reads GPUs. Used from one thread at a time.

    Handles live for one pass; kept are only facts that hold while a GPU's MIG mode lasts, and the
    older GPM sample of each instance. When the driver goes, everything is dropped and NVML opened
    anew.
    """

    def __init__(self, clock: Clock, host: HostProcesses) -> None:
        self._clock = clock
        self._host = host
        self._session = NvmlSession(clock.monotonic)
        self._facts = GpuFacts()
        self._gpm = GpmWindows()
        self._xids = XidWatch()
        self._roll = RollCall()

    def read_node(self) -> NodeReading:
        """Read every GPU; one that fails is listed with its gap.

        Raises:
            HardwareError: NVML as a whole does not answer.
        """
        return self._roll.read(self.begin(), lambda index, _uuid: self.read_index(index))

    def begin(self) -> NodeFacts:
        """Start a pass: what concerns no single GPU.

        Raises:
            HardwareError: NVML does not answer.
        """
        with self._session_kept():
            calls = self._session.calls()
            if self._session.learn_versions():
                self._facts.forget_all()  # which layouts are legal depends on the driver's
            taken_at, taken_monotonic = self._clock.now(), self._clock.monotonic()
            self._xids.drain(calls, taken_at)
            return NodeFacts(
                taken_at=taken_at,
                taken_monotonic=taken_monotonic,
                gpu_count=calls.device_count(),
                driver_version=self._session.driver_version,
                nvml_version=self._session.nvml_version,
            )

    def read_index(self, index: int) -> GpuAnswer:
        """Read everything a sample needs of one GPU.

        Raises:
            HardwareError: the GPU does not answer.
        """
        with self._session_kept():
            calls = self._session.calls()
            device = calls.device_by_index(index)
            uuid = GpuUuid(calls.uuid(device))
            gpu = GpuAccess(calls=calls, facts=self._facts, device=device, uuid=uuid)
            self._xids.watch(calls, device, uuid)
            reading, live = self._read(gpu, index)
            has_gpm = self._facts.learn_gpm(calls, device, uuid)
            gauges = GaugeReading(gpu)
            figures = gauges.read(mig_enabled=bool(reading.mig_enabled), xid=self._xids.last(uuid))
            gaps = reading.gaps + gauges.gaps()
            reading = replace(reading, gpm=has_gpm, gauges=figures, gaps=gaps)
            reading = self._with_activity(gpu, reading, live)
            return GpuAnswer(reading=reading)

    def read_gpu(self, uuid: GpuUuid) -> GpuReading:
        """Read mode, layout, processes and memory of one GPU afresh (no activity, no gauges).

        Raises:
            HardwareError: the GPU does not answer.
        """
        with self._session_kept():
            gpu = self.access(uuid)
            reading, _ = self._read(gpu, gpu.calls.index(gpu.device))
            return reading

    def call_stats(self) -> CallStats:
        """Return the counts of NVML calls so far."""
        return self._session.counted.stats()

    def take_call_stats(self) -> CallStats:
        """Return the counts since the last time they were taken."""
        return self._session.counted.take()

    def close(self) -> None:
        """End the NVML session; the next reading opens another."""
        if self._session.is_open:
            self._release_buffers(self._session.calls())
        self._session.close()
        self._drop_all()

    def _release_buffers(self, calls: NvmlCalls) -> None:
        """Give back what the driver keeps for us; one that is gone has dropped it already."""
        try:
            self._xids.release(calls)
            self._gpm.free_all(calls)
        except NvmlError:
            return

    # What the writer needs too

    def access(self, uuid: GpuUuid) -> GpuAccess:
        """Resolve a GPU by UUID."""
        calls = self._session.calls()
        device = calls.device_by_uuid(uuid)
        return GpuAccess(calls=calls, facts=self._facts, device=device, uuid=uuid)

    def model_of(self, gpu: GpuAccess) -> GpuModel:
        """Return what the GPU allows."""
        return self._facts.model(gpu.calls, gpu.device, gpu.uuid, self._session.driver_branch)

    @contextmanager
    def changing(
        self, uuid: GpuUuid, gi_id: GiId | None = None, *, mode: bool = False
    ) -> Iterator[GpuAccess]:
        """Resolve a GPU for a change; the instance's samples are dropped, without one all."""
        with self._session_kept():
            gpu = self.access(uuid)
            self._gpm.forget(uuid, gi_id)
            if mode:
                self._xids.release(gpu.calls)
            try:
                yield gpu
            finally:
                if mode:
                    self._facts.forget(uuid)

    @contextmanager
    def creating(self, uuid: GpuUuid) -> Iterator[tuple[GpuAccess, Callable[[GiId], None]]]:
        """Resolve a GPU for a new instance, and give what is told its id.

        Samples of the others stay, unless it is not known what was made.
        """
        with self._session_kept():
            gpu = self.access(uuid)
            try:
                yield gpu, lambda gi_id: self._gpm.forget(uuid, gi_id)
            except BaseException:
                self._gpm.forget(uuid)
                raise

    @contextmanager
    def _session_kept(self) -> Iterator[None]:
        """Drop everything when the driver goes, so that the next request opens NVML anew."""
        try:
            yield
        except DriverGone:
            self._session.close()
            self._drop_all()
            raise

    def _drop_all(self) -> None:
        self._facts.forget_all()
        self._gpm.forget_all()
        self._xids.reset()

    def _read(
        self, gpu: GpuAccess, index: int
    ) -> tuple[GpuReading, tuple[LiveInstance, ...] | None]:
        return read_gpu(gpu, index, host=self._host, branch=self._session.driver_branch)

    def _with_activity(
        self, gpu: GpuAccess, reading: GpuReading, live: tuple[LiveInstance, ...] | None
    ) -> GpuReading:
        """Add activity where the GPU has GPM and an older sample of the same instances exists."""
        if not reading.gpm or live is None or reading.instances is None:
            self._gpm.forget(gpu.uuid)
            return reading
        found: dict[GiId, Activity] = self._gpm.measure(
            gpu.calls,
            gpu.device,
            gpu.uuid,
            tuple(one.instance for one in live),
            self._clock.monotonic(),
        )
        instances = tuple(
            replace(r, activity=found.get(r.instance.gi_id)) for r in reading.instances
        )
        return replace(reading, instances=instances)


class NvmlWriter:
    """Changes GPUs over a reader's session. Nothing is verified here: who asks reads back.

    Every handle is resolved anew by UUID and id; none is kept across calls.
    """

    def __init__(self, reader: NvmlReader) -> None:
        self._reader = reader

    def destroy_compute_instance(self, uuid: GpuUuid, gi_id: GiId, ci_id: CiId) -> None:
        """Destroy one compute instance.

        Raises:
            InUse: somebody holds it.
            HardwareError: anything else, also when it is not there.
        """
        with self._reader.changing(uuid, gi_id) as gpu:
            gi = gpu.calls.gpu_instance_by_id(gpu.device, gi_id)
            gpu.calls.destroy_compute_instance(gpu.calls.compute_instance_by_id(gi, ci_id))

    def destroy_gpu_instance(self, uuid: GpuUuid, gi_id: GiId) -> None:
        """Destroy one GPU instance without compute instances.

        Raises:
            InUse: it still has one, or somebody holds it.
            HardwareError: anything else, also when it is not there.
        """
        with self._reader.changing(uuid, gi_id) as gpu:
            gpu.calls.destroy_gpu_instance(gpu.calls.gpu_instance_by_id(gpu.device, gi_id))

    def create_gpu_instance(self, uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        """Create a GPU instance at exactly that placement.

        Raises:
            InsufficientResources: no room there.
            ForeignAnswer: the GPU has no such profile.
            HardwareError: anything else.
        """
        with self._reader.creating(uuid) as (gpu, told):
            model = self._reader.model_of(gpu)
            profile = model.find(spec.profile)
            if profile is None:
                raise ForeignAnswer(f"{model.name} has no profile {spec.profile}")
            made = gpu.calls.create_gpu_instance(
                gpu.device, profile.profile_id, spec.placement.start, spec.placement.size
            )
            gi_id = GiId(gpu.calls.gpu_instance_info(made).gi_id)
            told(gi_id)
            return gi_id

    def create_compute_instance(self, uuid: GpuUuid, gi_id: GiId) -> CiId:
        """Create the compute instance that takes the whole GPU instance.

        Raises:
            ForeignAnswer: no compute profile has the GPU instance's SM count.
            HardwareError: it could not be made; the GPU instance stays.
        """
        with self._reader.changing(uuid, gi_id) as gpu:
            gi = gpu.calls.gpu_instance_by_id(gpu.device, gi_id)
            profile_id = self._full_width(gpu, gi)
            made = gpu.calls.create_compute_instance(gi, profile_id)
            return CiId(gpu.calls.compute_instance_info(made).ci_id)

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        """Ask for MIG mode on or off; a change that only waits is told by NVML's second status.

        Raises:
            HardwareError: the request was refused.
        """
        with self._reader.changing(uuid, mode=True) as gpu:
            status = gpu.calls.set_mig_mode(gpu.device, enabled=enabled)
        if status in _PENDING_ON:
            return ModeChange(active=False, pending_on=_PENDING_ON[status])
        if status:
            raise error_for("nvmlDeviceSetMigMode", status)
        return ModeChange(active=True)

    def _full_width(self, gpu: GpuAccess, gi: GiHandle) -> int:
        """Return the compute profile that has all of the GPU instance's SMs."""
        profile_id = gpu.calls.gpu_instance_info(gi).profile_id
        model = self._reader.model_of(gpu)
        profile = next((p for p in model.profiles if p.profile_id == profile_id), None)
        if profile is None:
            raise ForeignAnswer(f"{model.name} has no profile with id {profile_id}")
        known = gpu.facts.compute_profiles(gpu.calls, gpu.uuid, gi, profile)
        if not known.full_width:  # it may have been denied once
            known = gpu.facts.compute_profiles(gpu.calls, gpu.uuid, gi, profile)
        if not known.full_width:
            raise ForeignAnswer(f"no compute profile fills {profile.name}")
        return known.full_width[0]
