"""What the daemon's parts are told beside the policy; compiled from the file, immutable."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from migscaler.model.ids import SourceName
from migscaler.sources.dcgm import DcgmSettings
from migscaler.sources.prometheus import PrometheusSettings, VetoSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings:
    """A source that is told; `max_age` is the expiry of a push that brings none."""

    name: SourceName
    max_age: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """The node's own scheduler as a source; `declared` is False when the file does not name it."""

    name: SourceName
    interval: timedelta
    max_age: timedelta
    declared: bool


SourceSettings = PrometheusSettings | PushSettings | SchedulerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Where HTTP is served; `unix_socket` None means `migscaler.sock` in the state directory.

    `write_token_file` is None where commands over TCP are off (`writes`), `write_names` are names
    of client certificates that may command. `open_to` is the address that the file `config_file`
    has to protect, None where reads need no protection. Port 0 takes any free one.
    """

    host: str
    port: int
    unix_socket: Path | None
    write_token_file: Path | None
    writes: bool = False
    write_names: frozenset[str] = frozenset()
    read_token_file: Path | None = None
    config_file: Path | None = None
    open_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBootSettings:
    """What happens after a reboot; `layout` is restore, adopt or report."""

    layout: str
    mig_mode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """Commands (each a list of words) after a changed GPU, and how long one may take."""

    after_change: tuple[tuple[str, ...], ...]
    timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Least severity (debug, info, warning, error) and form (logfmt, json) of log lines."""

    level: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything in the file that decisions do not depend on.

    `windows` are the texts of all windows of the policy, each once, in file order: what the
    calendar has to answer for at every tick. `state_dir` is None unless the file names it,
    `activity` None without DCGM.
    """

    mode: str
    timezone: str
    windows: tuple[str, ...]
    sources: tuple[SourceSettings, ...]
    vetoes: tuple[VetoSettings, ...]
    web: WebSettings
    on_boot: OnBootSettings
    hooks: HookSettings
    scheduler: str
    log: LogSettings
    state_dir: Path | None = None
    activity: DcgmSettings | None = None


SOCKET_NAME = "migscaler.sock"
SERVICE_SOCKET = Path("/run/migscaler") / SOCKET_NAME
"""Where the systemd unit's daemon listens, so that every account of the host can reach it."""


def state_directory(settings: Settings, environment: Mapping[str, str], uid: int) -> Path:
    """Return where the journal is kept.

    The file wins; then $STATE_DIRECTORY, which systemd sets for a unit; then /var/lib/migscaler for
    root and the user's own state directory (XDG Base Directory Specification) for anybody else.
    """
    if settings.state_dir is not None:
        return settings.state_dir
    from_systemd = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    if uid == 0:
        return Path("/var/lib/migscaler")
    home = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME', '/tmp')}/.local/state"  # noqa: S108  # no home at all
    return Path(home) / "migscaler"


def socket_path(settings: Settings, state_dir: Path, environment: Mapping[str, str]) -> Path:
    """Return the path of the Unix socket for the command line.

    The file wins; then $RUNTIME_DIRECTORY, which systemd sets for a unit; then the state directory.
    """
    if settings.web.unix_socket is not None:
        return settings.web.unix_socket
    from_systemd = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (Path(from_systemd) if from_systemd else state_dir) / SOCKET_NAME
