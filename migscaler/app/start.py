"""What a process needs before it has a configuration: the file that counts, the state, the lock."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from migscaler.app.clock import read_boot_id
from migscaler.app.config.compile import web_settings
from migscaler.app.config.load import LoadedConfig, find_file, load_file, load_text
from migscaler.app.config.settings import Settings
from migscaler.app.config.texts import SettingRefused, split_listen
from migscaler.errors import ConfigError, Finding, NodeLocked, StoreError
from migscaler.model.ports import Clock
from migscaler.model.status import ConfigStatus
from migscaler.store.store import Store

STATE_FILE = "state.sqlite"

_log = logging.getLogger("migscaler.start")

_OWNERS = 0o600
_HOLDER = "migscaler process "
NOTHING_CONFIGURED = "mode: observe\n"
"""What is in force where no file is found: everything is exported, nothing managed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The configuration in force and what is to be said about it.

    `rival`: who else may change these GPUs, None if this process alone may. `web_problems`: what is
    wrong with the web configuration file as it lies there.
    """

    loaded: LoadedConfig
    status: ConfigStatus
    rival: str | None = None
    web_problems: tuple[str, ...] = ()

    @property
    def shown(self) -> ConfigStatus:
        """Return what is published: the status, with the web configuration file's problems."""
        if not self.web_problems:
            return self.status
        problems = (*self.status.problems, *self.web_problems)
        return replace(self.status, valid=False, problems=problems)


def finding_text(finding: Finding) -> str:
    """Return a finding as one line: place, problem, remedy."""
    return f"{finding.found}; {finding.remedy}"


def load_in_force(
    explicit: Path | None, environment: Mapping[str, str], store: Store | None, clock: Clock
) -> InForce:
    """Return the configuration to start with; a broken file never stops the exporter.

    With a bad file the last good one is in force, in observe; without one, everything is observed.
    """
    path = find_file(explicit, environment)
    if path is None:
        loaded = load_text(NOTHING_CONFIGURED, "built-in")
        return InForce(loaded=loaded, status=ConfigStatus(last_reload_success_at=clock.now()))
    try:
        loaded = load_file(path)
    except ConfigError as error:
        return _fallen_back(path, error, store)
    return InForce(loaded=loaded, status=good_status(loaded, path, clock))


def first_settings(
    explicit: Path | None, environment: Mapping[str, str], listen: str | None, clock: Clock
) -> Settings:
    """Return what the file says before there is a state; nothing is held or begun by it.

    Raises:
        SettingRefused: the command line's address is none, or a sound file does not allow it.
    """
    first = load_in_force(explicit, environment, None, clock)
    if first.status.valid:
        web_settings(first.loaded.config.web, listen)
    return first.loaded.settings


def safe_listen(in_force: InForce, listen: str | None) -> str | None:
    """Return the command line's address, or loopback where only a broken file would protect it.

    A file that can't be read stops no exporter, and shows nothing to people whom it may have kept
    out: the Unix socket and this host are served.

    Raises:
        SettingRefused: it is no address, or the file is sound and does not allow it.
    """
    try:
        web_settings(in_force.loaded.config.web, listen)
    except SettingRefused as refusal:
        if listen is None or in_force.status.valid:
            raise
        _host, port = split_listen(listen)
        _log.error("listening_on_loopback why=%s", refusal)
        return f"127.0.0.1:{port}"
    return listen


def good_status(loaded: LoadedConfig, path: Path, clock: Clock) -> ConfigStatus:
    """Return what is said of a file that loaded."""
    return ConfigStatus(
        path=str(path),
        sha256=loaded.sha256,
        last_reload_success_at=clock.now(),
        warnings=tuple(map(finding_text, loaded.warnings)),
    )


def fixed_changes(old: LoadedConfig, new: LoadedConfig) -> tuple[str, ...]:
    """Return why a new configuration can't be taken without a restart."""
    problems = []
    if old.settings.state_dir != new.settings.state_dir:
        problems.append("state_dir can't change while the daemon runs; restart it")
    if old.settings.web != new.settings.web:
        problems.append("web can't change while the daemon runs; restart it")
    return tuple(problems)


def not_in_force(in_force: InForce, finding: Finding, store: Store | None) -> InForce:
    """Return what to start with in the place of a file that loads and can't be put in force."""
    path = in_force.status.path or in_force.loaded.source
    instead = _fallen_back(Path(path), ConfigError(path, (finding,)), store)
    instead = with_state_problem(instead, in_force.status.state_problem)
    instead = replace(instead, web_problems=in_force.web_problems)
    return with_rival(instead, in_force.rival)


def _fallen_back(path: Path, error: ConfigError, store: Store | None) -> InForce:
    """Return the last good configuration, or none, held in observe."""
    problems = tuple(map(finding_text, error.findings))
    good = store.good_config() if store is not None else None
    loaded, what = None, "nothing is managed"
    if good is not None:
        try:
            loaded = load_text(good.text, f"last good file of {good.at:%Y-%m-%d %H:%M} UTC")
            what = f"the last good one of {good.at:%Y-%m-%d %H:%M} UTC is in force"
        except ConfigError:
            good = None
    loaded = loaded or load_text(NOTHING_CONFIGURED, "built-in")
    status = ConfigStatus(
        path=str(path),
        sha256=loaded.sha256 if good is not None else None,
        valid=False,
        last_reload_success=False,
        problems=problems,
        forced_observe=f"{path} has {len(problems)} problem(s); {what}, observing only",
    )
    return InForce(loaded=loaded, status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state directory: its store, and why it is not what it should be (None: it is)."""

    store: Store
    lock: IO[str] | None
    problem: str | None = None

    def close(self) -> None:
        """Close the store and let go of the node."""
        self.store.close()
        if self.lock is not None:
            self.lock.close()


def state_in_memory(clock: Clock, problem: str | None = None) -> State:
    """Return state that ends with the process."""
    return State(store=Store.open(None, clock), lock=None, problem=problem)


def open_state(directory: Path, clock: Clock) -> State:
    """Lock the node and open its state; where it can't be used, state is kept in memory.

    Raises:
        NodeLocked: another daemon or command holds the node.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _locked(directory / "lock")
    except OSError as error:
        why = f"{directory} can't be used: {error.strerror}"
        return state_in_memory(clock, why)
    _keep_from_others(directory / STATE_FILE)
    try:
        return State(store=_opened(directory / STATE_FILE, clock), lock=lock)
    except StoreError as error:
        return State(store=Store.open(None, clock), lock=lock, problem=str(error))


def _opened(path: Path, clock: Clock) -> Store:
    """Open the state file if everything in it can be read.

    Raises:
        StoreError: it can't be opened, or makes no sense.
    """
    store = Store.open(path, clock, boot_id=_kernel_boot())
    try:
        store.read_all()
    except StoreError:
        store.close()
        raise
    return store


def _keep_from_others(path: Path) -> None:
    """Make the state file the owner's alone, also in a directory that others may read.

    It holds accounts, commands and process ids. SQLite gives its log the mode of the file. What
    can't be made or changed here is told by whoever opens it.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNERS))
    for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with contextlib.suppress(OSError):
            one.chmod(_OWNERS)


def _kernel_boot() -> str | None:
    """Return the boot for which the clock counts seconds, None where the kernel does not tell."""
    try:
        return read_boot_id()
    except OSError:
        return None


def _locked(path: Path) -> IO[str]:
    """Hold the node's lock for as long as the returned file is open.

    Who may read it could hold it too, and so keep the daemon from starting.
    """
    file = open(path, "a+", opener=partial(os.open, mode=_OWNERS))  # noqa: SIM115 - it is returned
    with contextlib.suppress(OSError):
        os.fchmod(file.fileno(), _OWNERS)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise NodeLocked(
            f"{holder} holds this node ({path}); stop it first: two would undo each other's work"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"{_HOLDER}{os.getpid()}")
    file.flush()
    return file


def is_held_by(directory: Path, pid: int) -> bool:
    """Say whether a process holds the node of a state directory.

    The lock is tried only where its file names that process, so as to be in no other's way.

    Raises:
        OSError: this account may not know.
    """
    try:
        with (directory / "lock").open(errors="replace") as file:
            if file.read() != f"{_HOLDER}{pid}":
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


def with_state_problem(in_force: InForce, problem: str | None) -> InForce:
    """Return the configuration held in observe if there is no durable state."""
    if problem is None:
        return in_force
    why = f"no durable state: {problem}; observing only"
    status = replace(
        in_force.status,
        forced_observe=in_force.status.forced_observe or why,
        state_problem=problem,
    )
    return replace(in_force, status=status)


def with_rival(in_force: InForce, rival: str | None) -> InForce:
    """Return the configuration held in observe while somebody else may change the GPUs."""
    if rival is None:
        return in_force
    status = in_force.status
    status = replace(status, forced_observe=status.forced_observe or _beside(rival))
    return replace(in_force, status=status, rival=rival)


def without_rival(in_force: InForce) -> InForce:
    """Return the configuration after whoever else might change the GPUs has ended."""
    status, rival = in_force.status, in_force.rival
    if rival is not None and status.forced_observe == _beside(rival):
        status = replace(status, forced_observe=None)
    return replace(in_force, status=status, rival=None)


def _beside(rival: str) -> str:
    """Say why nothing is changed beside a rival."""
    return f"{rival}; observing only"
