"""Holders of instances that NVML does not list: no CUDA context yet, but the device is theirs.

What their traces mean (`traces.py` finds them): a capability node is mapped to its instance by
`/proc/driver/nvidia-caps/mig-minors`, a MIG UUID names its instance.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from migscaler.model.gpu import GpuReading, NodeReading
from migscaler.model.host import HostTable, Process
from migscaler.model.ids import GpuUuid, MigUuid

# Lines of mig-minors: `gpu0/gi1/access 30`, `gpu0/gi1/ci0/access 31`, `config 1`, `monitor 2` (MIG
# User Guide, Device Nodes and Capabilities). The number after gpu is the device minor.
_MINOR_LINE = re.compile(r"^gpu(\d+)/gi(\d+)/(?:ci\d+/)?access (\d+)$", re.MULTILINE)
_OTHER_MINOR_LINE = re.compile(r"^(?:config|monitor) (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that has an instance, and the trace that shows it."""

    gpu_uuid: GpuUuid
    mig_uuid: MigUuid
    pid: int
    name: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Holders found, one per process and instance; `problem` says what could not be looked at."""

    holders: tuple[Holder, ...] = ()
    problem: str | None = None


class EvidenceScan:
    """Reads traces as holders; keeps the map of device nodes, which is fixed per boot."""

    def __init__(self, mig_minors: Path) -> None:
        """Take where the map of device nodes is found."""
        self._mig_minors = mig_minors
        self._minors: dict[int, tuple[int, int] | None] | None = None

    def look(self, reading: NodeReading, table: HostTable) -> Evidence:
        """Return who holds which instance of the reading."""
        by_uuid, by_place = _instances(reading)
        if not by_uuid:
            return Evidence()
        known = {process.pid: process for process in table.processes}
        holders: dict[tuple[int, MigUuid], Holder] = {}
        unreadable: list[Process] = []
        unmapped: list[str] = []
        placeless: list[str] = []
        for trace in table.traces:
            process = known.get(trace.pid) or Process(pid=trace.pid, name="?", parent=0)
            if not trace.readable:
                unreadable.append(process)
            for mig_uuid in trace.mig_uuids:
                gpu = by_uuid.get(mig_uuid)
                if gpu is not None:
                    holder = _holder(process, gpu, mig_uuid, "in its environment")
                    holders.setdefault((process.pid, mig_uuid), holder)
            for number in trace.caps:
                place = self._place(number)
                node = f"nvidia-cap{number} (process {process.pid})"
                found = by_place.get(place) if place is not None else None
                if found is not None:
                    said = f"nvidia-cap{number} open"
                    holders[process.pid, found[1]] = _holder(process, *found, said)
                elif place is not None:
                    placeless.append(node)
                elif not self._is_known(number):
                    unmapped.append(node)
        ordered = tuple(holders[key] for key in sorted(holders))
        problem = _problem(unreadable, unmapped, self._mig_minors)
        return Evidence(holders=ordered, problem=problem or _of_whom(placeless, reading))

    def _place(self, number: int) -> tuple[int, int] | None:
        """Return (device minor, GPU instance id) of a capability node, None for another kind."""
        return self._map().get(number)

    def _is_known(self, number: int) -> bool:
        return number in self._map()

    def _map(self) -> dict[int, tuple[int, int] | None]:
        """Return node number -> place (None for config and monitor); read once it exists."""
        if self._minors is not None:
            return self._minors
        try:
            text = self._mig_minors.read_text("ascii", "replace")
        except OSError:
            return {}
        self._minors = read_mig_minors(text)
        return self._minors


def read_mig_minors(text: str) -> dict[int, tuple[int, int] | None]:
    """Read the driver's map: node number -> (device minor, GI id), None for config and monitor."""
    found: dict[int, tuple[int, int] | None] = {
        int(number): (int(minor), int(gi)) for minor, gi, number in _MINOR_LINE.findall(text)
    }
    for number in _OTHER_MINOR_LINE.findall(text):
        found[int(number)] = None
    return found


def has_instances(reading: NodeReading) -> bool:
    """Say whether there is an instance that a process could hold."""
    return bool(_instances(reading)[0])


def _instances(
    reading: NodeReading,
) -> tuple[dict[MigUuid, GpuReading], dict[tuple[int, int], tuple[GpuReading, MigUuid]]]:
    """Return instances by MIG UUID and by (device minor, GPU instance id)."""
    by_uuid: dict[MigUuid, GpuReading] = {}
    by_place: dict[tuple[int, int], tuple[GpuReading, MigUuid]] = {}
    for gpu in reading.gpus:
        for read in gpu.instances or ():
            for compute in read.instance.compute_instances:
                if compute.mig_uuid is None:
                    continue
                by_uuid[compute.mig_uuid] = gpu
                if gpu.minor is not None:
                    place = gpu.minor, int(read.instance.gi_id)
                    by_place.setdefault(place, (gpu, compute.mig_uuid))
    return by_uuid, by_place


def _holder(process: Process, gpu: GpuReading, mig_uuid: MigUuid, trace: str) -> Holder:
    return Holder(
        gpu_uuid=gpu.uuid, mig_uuid=mig_uuid, pid=process.pid, name=process.name, trace=trace
    )


def _problem(unreadable: list[Process], unmapped: list[str], mig_minors: Path) -> str | None:
    """Say what could not be looked at, and what would help."""
    if unreadable:
        first = unreadable[0]
        return (
            f"open files of {len(unreadable)} process(es) can't be read (first: {first.pid}"
            f" {first.name}); run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
        )
    if unmapped:
        return f"{unmapped[0]} is open and {mig_minors} does not say which instance that is"
    return None


def _of_whom(placeless: list[str], reading: NodeReading) -> str | None:
    """Say that a node of no instance we know may be of a GPU that did not tell its number.

    Its index can't stand in for it: it is another GPU's number.
    """
    for gpu in reading.gpus:
        if placeless and gpu.instances and gpu.minor is None:
            whose = f"GPU {gpu.index}, which did not tell its minor number"
            return f"{placeless[0]} is open and may be of {whose}"
    return None
