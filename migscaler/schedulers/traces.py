"""Looks through the process table for whoever has MIG devices without a CUDA context.

Two traces: an open device node of the instance (`/dev/nvidia-caps/nvidia-capN`) and its UUID in a
process's environment. An environment is what the process was started with; a shell that was given
an instance keeps it pinned until it ends. Nothing but node numbers and MIG UUIDs leaves this file.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from migscaler.model.host import HostTable, Process, Trace
from migscaler.model.ids import MigUuid
from migscaler.schedulers.proc import (
    environment,
    family,
    open_files,
    processes,
    without_kernel_threads,
)

_CAP_NODE = re.compile(r"^/dev/nvidia-caps/nvidia-cap(\d+)(?: \(deleted\))?$")
# Both forms of a MIG UUID: MIG-<uuid>, and before R470 MIG-GPU-<uuid>/<gi>/<ci>.
_MIG_UUID = re.compile(
    rb"MIG-(?:GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}/\d+/\d+"
    rb"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
)


def read_host(proc: Path, own_pid: int, *, with_traces: bool) -> HostTable:
    """Return the host's processes and, where asked for, their traces.

    Cost: 20 us a process; with traces also two files and all open files of each.

    Raises:
        OSError: the processes can't be listed.
    """
    table = processes(proc)
    if not with_traces:
        return HostTable(processes=table)
    ours = family(table, own_pid)
    others = (p for p in without_kernel_threads(table) if p.pid not in ours)
    return HostTable(processes=table, traces=read_traces(proc, others))


def read_traces(proc: Path, table: Iterable[Process]) -> tuple[Trace, ...]:
    """Return the traces of these processes, without those that have none and could be read."""
    found = (_trace(proc, process.pid) for process in table)
    return tuple(one for one in found if one.caps or one.mig_uuids or not one.readable)


def _trace(proc: Path, pid: int) -> Trace:
    files, words = open_files(proc, pid), environment(proc, pid)
    return Trace(
        pid=pid,
        caps=_cap_numbers(files or ()),
        mig_uuids=_uuids_in(words or b""),
        readable=files is not None and words is not None,
    )


def _uuids_in(words: bytes) -> tuple[MigUuid, ...]:
    if b"MIG-" not in words:
        return ()
    return tuple(sorted({MigUuid(match.decode("ascii")) for match in _MIG_UUID.findall(words)}))


def _cap_numbers(files: Iterable[str]) -> tuple[int, ...]:
    matches = (_CAP_NODE.match(target) for target in files if target.startswith("/dev/nvidia-caps"))
    return tuple(sorted({int(match[1]) for match in matches if match}))
