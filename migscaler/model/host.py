"""What is seen of the host's processes, whoever looked: this process or a privileged one."""

from dataclasses import dataclass

from migscaler.model.ids import MigUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process: its id, its kernel name (at most 15 characters) and its parent's id."""

    pid: int
    name: str
    parent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What ties a process to MIG devices, and nothing else of it.

    `caps` are the numbers N of the `/dev/nvidia-caps/nvidia-capN` nodes it has open, `mig_uuids`
    the MIG UUIDs in the environment it was started with, both sorted. `readable` is False where one
    of the two could not be looked at.
    """

    pid: int
    caps: tuple[int, ...] = ()
    mig_uuids: tuple[MigUuid, ...] = ()
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTable:
    """The processes of the host by rising id, and the traces of those that have any.

    Traces that could not be looked at are listed too. Whoever looked left out itself, its
    descendants and kernel threads from `traces`.
    """

    processes: tuple[Process, ...]
    traces: tuple[Trace, ...] = ()
