"""A host without a scheduler: leases hand out instances; whoever holds one otherwise is looked for.

With a container runtime, slurmd or kubelet on the node nothing can be said of allocations: they
give instances to jobs that have not started yet.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from migscaler.errors import HardwareError, StoreError
from migscaler.model.decision import HoldRecord
from migscaler.model.demand import Counts, Fetched, RawRow, Reading, Want
from migscaler.model.gpu import Allocations, Claim, ForeignOwners, NodeReading
from migscaler.model.host import HostTable, Process
from migscaler.model.ids import GpuUuid, MigUuid
from migscaler.model.layout import Layout
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.process import Container
from migscaler.model.profile import InstanceSpec
from migscaler.schedulers.evidence import EvidenceScan, Holder, has_instances
from migscaler.schedulers.owners import HostRoots, OwnerSearch, job_runtime
from migscaler.schedulers.ports import LeaseBook
from migscaler.schedulers.proc import family
from migscaler.schedulers.traces import read_host

LEASE = "lease"
"""The kind of a hold that is an allocation."""
PERIOD_SECONDS = 0.2
"""Leases are granted within one transaction; this only lets one in flight end."""
MIG_MINORS = Path("driver/nvidia-caps/mig-minors")
"""Below /proc: the driver's map of capability nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareHost:
    """What of the host is looked at; `own_pid` and its descendants are no holders.

    `read` looks at the processes, with their traces or without, where this process is not allowed
    to; None: it looks itself. It raises HardwareError or OSError if it can't.
    """

    host: HostProcesses
    roots: HostRoots = field(default_factory=HostRoots)
    own_pid: int = field(default_factory=os.getpid)
    read: Callable[[bool], HostTable] | None = None


class BareScheduler:
    """The scheduler port for a bare host. Safe for several threads."""

    def __init__(
        self, *, book: LeaseBook, clock: Clock, host: BareHost, wait_max_age: timedelta
    ) -> None:
        """Take where leases are kept and what of the host to look at.

        `wait_max_age` is how long an answer of `waiting` holds.
        """
        self._book = book
        self._clock = clock
        self._host = host
        self._wait_max_age = wait_max_age
        self._scan = EvidenceScan(host.roots.proc / MIG_MINORS)
        self._owners = OwnerSearch(host.roots)
        self._lock = threading.Lock()
        self._fenced: frozenset[GpuUuid] = frozenset()
        self._table: tuple[Process, ...] | None = None

    def allocations(self, reading: NodeReading) -> Allocations:
        """Return leases and holders without a CUDA context; unknown if the host is not seen whole.

        Claims are listed even then: what is known to be held is held.
        """
        self._table = None
        try:
            leases = [hold for hold in self._book.holds(self._clock.now()) if hold.kind == LEASE]
        except StoreError as error:
            return Allocations(known=False, why_unknown=f"leases can't be read: {error}")
        claims = _lease_claims(leases, reading)
        if not self._host.host.visible():
            why = "not all processes of the host are visible; run in the host's PID namespace"
            return Allocations(known=False, why_unknown=why, claims=tuple(claims.values()))
        holders, problem = self._look(reading)
        for holder in holders:
            container = self._host.host.process(holder.pid).container
            claims.setdefault(holder.mig_uuid, _holder_claim(holder, container))
        ordered = tuple(claims.values())
        if problem is not None:
            return Allocations(known=False, why_unknown=problem, claims=ordered)
        return Allocations(known=True, claims=ordered)

    def foreign_owners(self) -> ForeignOwners:
        """Return who else reshapes the GPUs, as `OwnerSearch.look`, without looking twice.

        Reading the process table costs 20 us a process; the last answer about allocations did.
        """
        found = self._owners.look(self._table)
        if found.unknown is None and not self._host.host.visible():
            why = "not all processes of the host are visible; run in the host's PID namespace"
            return replace(found, unknown=why)
        return found

    def waiting(self) -> Fetched:
        """Return the waits for leases by size; a size nobody waits for is wanted 0 times."""
        now = self._clock.now()
        try:
            sizes = Counter(wait.size for wait in self._book.lease_waits(now))
        except StoreError as error:
            return Fetched(reading=None, problem=f"waiting leases can't be read: {error}")
        counts = sorted(sizes.items())
        reading = Reading(
            counts=Counts.WAITING,
            true_at=now,
            expires_at=now + self._wait_max_age,
            wants=tuple(Want(size=size, count=count) for size, count in counts),
            absent_is_zero=True,
        )
        rows = tuple(RawRow(labels=size, value=str(count)) for size, count in counts)
        return Fetched(reading=reading, rows=rows)

    def fence(self, uuid: GpuUuid, specs: tuple[InstanceSpec, ...]) -> str | None:
        """Refuse leases on this GPU from now on; always holds."""
        with self._lock:
            self._fenced |= {uuid}
        return None

    def unfence(self, uuid: GpuUuid) -> str | None:
        """Allow leases on this GPU again; always done."""
        with self._lock:
            self._fenced -= {uuid}
        return None

    def fenced(self) -> frozenset[GpuUuid]:
        """Return the GPUs on which no lease may be granted now; whoever grants one asks here."""
        with self._lock:
            return self._fenced

    def refresh(self, uuid: GpuUuid, layout: Layout) -> str | None:
        """Nothing to make known: leases are chosen from the live picture."""
        return None

    def period_seconds(self) -> float:
        """Return how long to wait between fencing and acting."""
        return PERIOD_SECONDS

    def _look(self, reading: NodeReading) -> tuple[tuple[Holder, ...], str | None]:
        """Return holders found among the processes, and what keeps the picture from being whole."""
        roots, own_pid = self._host.roots, self._host.own_pid
        try:
            table = self._read(has_instances(reading))
        except OSError as error:
            return (), f"processes can't be listed: {error.strerror}"
        except HardwareError as error:
            return (), f"processes can't be listed: {error}"
        self._table = table.processes
        ours = family(table.processes, own_pid)
        others = tuple(process for process in table.processes if process.pid not in ours)
        traces = tuple(trace for trace in table.traces if trace.pid not in ours)
        evidence = self._scan.look(reading, HostTable(processes=others, traces=traces))
        runtime = job_runtime(others, roots.run)
        if runtime is not None:
            remedy = "stop it, or stay in recommend: there is no adapter for it yet"
            return evidence.holders, f"{runtime} and may hand out instances unseen; {remedy}"
        return evidence.holders, evidence.problem

    def _read(self, with_traces: bool) -> HostTable:
        """Look at the host's processes, here or by whoever may."""
        if self._host.read is not None:
            return self._host.read(with_traces)
        return read_host(self._host.roots.proc, self._host.own_pid, with_traces=with_traces)


def _lease_claims(leases: list[HoldRecord], reading: NodeReading) -> dict[MigUuid, Claim]:
    """Return one claim per leased instance that is there; a lease without spec has all of a GPU."""
    claims: dict[MigUuid, Claim] = {}
    for lease in leases:
        for gpu in reading.gpus:
            if gpu.uuid != lease.gpu_uuid:
                continue
            for read in gpu.instances or ():
                mig_uuid = read.instance.mig_uuid
                if mig_uuid is not None and lease.spec in (None, read.instance.spec):
                    claims[mig_uuid] = Claim(
                        gpu_uuid=gpu.uuid,
                        mig_uuid=mig_uuid,
                        owner=f"lease {lease.hold_id}",
                        user=lease.owner,
                        since=lease.created_at,
                    )
    return claims


def _holder_claim(holder: Holder, container: Container | None) -> Claim:
    place = "" if container is None else f", {container}"
    return Claim(
        gpu_uuid=holder.gpu_uuid,
        mig_uuid=holder.mig_uuid,
        owner="process",
        detail=f"process {holder.pid} ({holder.name}{place}, {holder.trace})",
    )
