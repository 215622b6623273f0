"""A node opened for one command while no daemon runs: the hardware in this process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from migscaler.app.client import listener_at
from migscaler.app.clock import RealClock, read_boot_id
from migscaler.app.config.settings import SERVICE_SOCKET, socket_path, state_directory
from migscaler.app.device_nodes import make_nodes_after
from migscaler.app.hardware_lock import HardwareLock, SettledReader, named_hardware
from migscaler.app.runtime import Outside, Runtime
from migscaler.app.start import (
    STATE_FILE,
    is_held_by,
    load_in_force,
    open_state,
    state_in_memory,
    with_rival,
    with_state_problem,
)
from migscaler.app.wiring import Assembly, Ground
from migscaler.hardware.host import ProcHost
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.model.ports import HostProcesses
from migscaler.model.stats import SchedulerStats
from migscaler.model.status import Status
from migscaler.schedulers.owners import HostRoots
from migscaler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """Where configuration and state lie (None: the usual places) and which hardware is meant.

    `hardware` names it for the lock of who may change it; as in `DaemonOptions`.
    """

    config: Path | None = None
    state_dir: Path | None = None
    prepare: Callable[[], None] | None = None
    make_host: Callable[[], HostProcesses] = ProcHost
    boot_id: Callable[[], str] = read_boot_id
    roots: HostRoots = field(default_factory=HostRoots)
    hardware: str | None = None


def has_state(options: LocalOptions) -> bool:
    """Say whether an earlier command or daemon has left state that may be read."""
    return os.path.exists(local_directory(options) / STATE_FILE)


def usual_sockets(
    config: Path | None, state_dir: Path | None, service: Path = SERVICE_SOCKET
) -> tuple[Path, ...]:
    """Return where a daemon of this configuration may listen for commands, likeliest first.

    The systemd unit's daemon listens in its runtime directory whatever `state_dir` the file names.
    A place that others of the node may have too counts only where its daemon uses the state
    directory: a pause meant for one node must not be put on another.
    """
    settings = load_in_force(config, os.environ, None, RealClock()).loaded.settings
    directory = state_dir or state_directory(settings, os.environ, os.getuid())
    usual = socket_path(settings, directory, os.environ)
    if state_dir is not None:
        is_its_own = usual.parent == directory or _uses(usual, directory, in_doubt=False)
        return (usual,) if is_its_own else ()
    if settings.web.unix_socket is not None:
        return (usual,)
    if settings.state_dir is None:
        return (service, usual)
    # Accounts that may not look into the directory look and lease there.
    return (usual, service) if _uses(service, directory, in_doubt=True) else (usual,)


def _uses(place: Path, directory: Path, *, in_doubt: bool) -> bool:
    """Say whether the daemon at a socket uses a state directory.

    `in_doubt` where nobody answers, or this account may not look.
    """
    pid = listener_at(place)
    if pid is None:
        return in_doubt
    try:
        return is_held_by(directory, pid)
    except OSError:
        return in_doubt


def local_directory(options: LocalOptions) -> Path:
    """Return the state directory of a node that is opened so."""
    if options.state_dir is not None:
        return options.state_dir
    settings = load_in_force(options.config, os.environ, None, RealClock()).loaded.settings
    return state_directory(settings, os.environ, os.getuid())


@contextmanager
def open_local(options: LocalOptions, *, keeps: bool = True) -> Iterator[Runtime]:
    """Give the node for one block: it is sampled, nothing is settled or changed unasked.

    Unless it `keeps` something, nothing is written, and no state directory made.

    Everything is pinned `unknown`: idleness takes watching, which is the daemon's work.

    Raises:
        NodeLocked: a daemon or another command holds the node.
    """
    clock = RealClock()
    directory = local_directory(options)
    state = open_state(directory, clock) if keeps else state_in_memory(clock)
    in_force = load_in_force(options.config, os.environ, state.store, clock)
    in_force = with_state_problem(in_force, state.problem)
    lock = HardwareLock(
        options.hardware or named_hardware(options.prepare, options.boot_id, directory)
    )
    in_force = with_rival(in_force, lock.take_at_start(clock))
    reader, assembly = _assemble(options, clock, state.store, lock)
    runtime = Runtime(assembly, in_force, _alone(reader))
    try:
        runtime.loop.sample()
        if in_force.loaded.settings.activity is not None:
            runtime.loop.gather_activity()
            runtime.loop.sample()
        yield runtime
    finally:
        reader.close()
        assembly.close()
        lock.release()
        state.close()


def _assemble(
    options: LocalOptions, clock: RealClock, store: Store, lock: HardwareLock
) -> tuple[NvmlReader, Assembly]:
    """Put the node together with NVML in this process."""
    if options.prepare is not None:
        options.prepare()
    host = options.make_host()
    reader = NvmlReader(clock, host)
    ground = Ground(
        clock=clock,
        reader=SettledReader(reader, lock),
        writer=NvmlWriter(reader),
        host=host,
        store=store,
        boot_id=options.boot_id(),
        roots=options.roots,
        tell_node=(make_nodes_after,) if options.prepare is None else (),
    )
    return reader, Assembly(ground)


def _alone(reader: NvmlReader) -> Outside:
    """Return what surrounds a node that lives for one command."""
    return Outside(
        publish=_show_nobody,
        call_stats=reader.call_stats,
        job_stats=SchedulerStats,
        real_host=ProcHost(),
        release_driver=_nothing,
        resume_driver=_nothing,
        config_changed=_nothing,
    )


def _show_nobody(_status: Status) -> None:
    """Publish to nobody: there is no scraper in a command."""


def _nothing() -> None:
    """Do nothing: there is no worker process to end."""
