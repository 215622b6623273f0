"""The configuration file as pydantic reads it; each setting is followed by meaning and default.

Rules between settings are in `references.py`, so that they are reported together with broken
values.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from migscaler.app.config.activity_model import ActivitySection
from migscaler.app.config.fields import (
    Bytes,
    Command,
    Duration,
    FilePath,
    Glob,
    Listen,
    Name,
    SecretPath,
    Section,
    Size,
    SocketPath,
    Text,
    Timezone,
    Until,
    Uuid,
    Window,
    within,
)
from migscaler.app.config.source_model import AnySource, VetoSection

ModeWord = Literal["observe", "recommend", "enforce"]
Count = Annotated[int, Field(ge=0, le=10_000)]
PositiveCount = Annotated[int, Field(ge=1, le=10_000)]


class SamplingSection(Section):
    """How the hardware is read."""

    interval: Annotated[Duration, within("1s", "1m")] = timedelta(seconds=5)
    """Time between two readings of all GPUs. Default 5s: three within a usual scrape interval, at
    under 3 % of a core."""


class GpuSection(Section):
    """Which GPU or GPUs (exactly one of uuid, index, model), and what may be done with them.

    A line by uuid beats one by index, that beats one by model; of equals the first wins.
    """

    uuid: Uuid | None = None
    """UUID of one GPU, as nvidia-smi -L prints it. Default none: choose by exactly one of the
    three."""

    index: Annotated[int, Field(ge=0, le=255)] | None = None
    """Index of one GPU, as NVML counts. Default none: it can move when a card is added; uuid
    can't."""

    model: Glob | None = None
    """Shell pattern for the product name, e.g. "NVIDIA A100*". Default none: choose by exactly one
    of the three."""

    mode: ModeWord | None = None
    """What may be done: observe measures, recommend also plans and publishes, enforce acts. Default
    none: the file's mode."""

    baseline: tuple[Size, ...] = ()
    """Sizes that a GPU gets which has no instance and for which nothing is recorded or wanted.
    Default []: stays empty until something is wanted."""

    reason: Text | None = None
    """Why the line is there; shown with the GPU. With mode observe the GPU's instances show as
    protected. Default none: not every line needs one."""

    until: Until | None = None
    """When the line lapses: a date (through that day, in the file's timezone) or a date with time.
    Default none: never."""


class IdleSection(Section):
    """When an instance counts as idle; only idle ones are ever reshaped."""

    after: Annotated[Duration, within("10s", "24h")] = timedelta(minutes=5)
    """How long every signal must have been quiet without a gap. Default 5m: an interactive user's
    pause."""

    evidence: tuple[Literal["process", "allocation", "memory", "activity"], ...] = (
        "process",
        "allocation",
        "memory",
        "activity",
    )
    """Signals that must be quiet; process and allocation always belong. One that can't exist here
    is left out and named. Default [process, allocation, memory, activity]: each catches what the
    others miss."""

    activity_below: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Busy share of an instance (above 0, below 1) under which it counts as quiet. Default 0.01:
    above what idle ones measure."""

    memory_margin: Bytes = 64 * 1024 * 1024
    """Memory above the instance's own measured empty baseline that still counts as empty. Default
    64MiB: less than any CUDA context."""


class AtLeastSection(Section):
    """A floor that holds while a window is open."""

    count: Count
    """Instances of the rule's size. Required."""

    when: Window
    """Window in the file's timezone, e.g. "mon-fri 08:30-19:00". Required."""


class RuleSection(Section):
    """Demand for one size; the order of rules is their priority."""

    name: Name
    """Name in metrics and explanations. Required."""

    size: Size
    """Size class (1g to 7g, 1gx, 1g+me) or profile name (3g.20gb); no two rules have the same.
    Required."""

    from_: Annotated[tuple[Name, ...], Field(alias="from")] = ("scheduler",)
    """Sources whose numbers it follows. Default [scheduler]: what waits on the node itself."""

    min: Count = 0
    """Instances that are always kept there. Default 0: nothing for nobody."""

    max: Count | None = None
    """Most instances that demand can ask for. Default none: the hardware is the limit."""

    spare: Count = 0
    """Free instances beyond those wanted, made after every rule has what it wants. Default 0: spare
    costs others."""

    at_least: tuple[AtLeastSection, ...] = ()
    """Floors that hold while a window is open. Default []: min holds always."""

    combine: Literal["max", "sum"] = "max"
    """How the waitings of several sources are joined. Default max: two views of the same queue are
    not two queues."""

    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Worth of one missing instance beside those of other rules' floors and spares. Default 1: all
    alike."""

    raise_after: Annotated[Duration, within("0s", "24h")] | None = None
    """How long a higher target must last before anything is created. Default none: that of pace."""

    lower_after: Annotated[Duration, within("0s", "24h")] | None = None
    """How long a lower target must last before anything is destroyed. Default none: that of
    pace."""

    reserve_after: Annotated[Duration, within("1m", "24h")] | None = None
    """How long the size must be missing before the GPU that is free soonest is reserved for it.
    Default none: a reservation keeps capacity unused. This version reads it and makes no
    reservations yet."""


class PaceSection(Section):
    """How fast things may change."""

    raise_after: Annotated[Duration, within("0s", "24h")] = timedelta(seconds=30)
    """How long a higher target must last before anything is created; an answer that a source fails
    to give starts it anew. Default 30s: a burst that is over is not served."""

    lower_after: Annotated[Duration, within("0s", "24h")] = timedelta(minutes=10)
    """How long a lower target must last before anything is destroyed. Default 10m: what left often
    comes back."""

    gpus_at_once: PositiveCount = 2
    """Most GPUs that one plan changes. Default 2: a mistake stays small."""

    per_day: PositiveCount = 48
    """Most changes of a GPU in 24 hours on the node. Default 48: two an hour; more is a sign of
    flapping."""

    rest: Annotated[Duration, within("0s", "24h")] = timedelta(minutes=2)
    """Rest of a GPU after a change. Default 2m: jobs need time to come to what was made for
    them."""

    rest_after_failure: Annotated[Duration, within("10s", "24h")] = timedelta(minutes=10)
    """Rest of a GPU after a failed change. Default 10m: what blocked it is seldom gone sooner."""

    fence_max: Annotated[Duration, within("5s", "1h")] = timedelta(minutes=2)
    """Longest time for which instances are withdrawn from the scheduler for a change. Default 2m: a
    change takes seconds."""


class FreezeSection(Section):
    """A window in which nothing is changed, or not in one direction."""

    when: Window
    """Window in the file's timezone. Required."""

    only: Literal["finer", "coarser"] | None = None
    """The one direction that is frozen. Default none: both."""


class OnBootSection(Section):
    """What happens when the node has rebooted, or all instances of a recorded GPU are gone."""

    layout: Literal["restore", "adopt", "report"] = "restore"
    """Make the last wanted layout again, take what is there as wanted, or only say so. Default
    restore: the driver forgets instances at every reboot, and jobs expect them."""

    mig_mode: bool = True
    """Switch MIG mode on first for GPUs that are recorded with it. Default true: Hopper and newer
    lose the mode at a reboot."""


class HooksSection(Section):
    """Commands that are run on events."""

    after_change: tuple[Command, ...] = ()
    """Commands after a changed GPU, each a list of words, run without a shell. Default []: nothing
    is known to need it."""

    timeout: Annotated[Duration, within("1s", "10m")] = timedelta(seconds=30)
    """How long one command may take before it is ended. Default 30s: a signal takes less."""


class ReadsSection(Section):
    """Who may read over TCP besides the users and client certificates of config_file."""

    token_file: SecretPath | None = None
    """File with tokens, one a line, of which a reader must carry one as its bearer token. Default
    none: reading needs no token."""


class WritesSection(Section):
    """Commands over TCP; the Unix socket always takes them from root and the daemon's own user."""

    enabled: bool = False
    """Whether commands are taken over TCP. Default false: whoever can reach the port could stop the
    node's scaling."""

    token_file: SecretPath | None = None
    """File with tokens, one a line, of which a command must carry one. Default none: without one or
    client_sans, nothing can be enabled."""

    client_sans: tuple[Text, ...] = ()
    """Alternative names (DNS, IP, e-mail, URI) of client certificates that may command; config_file
    says who signs them. Default []: a certificate reads."""


class WebSection(Section):
    """The HTTP server: page, metrics, API, health."""

    listen: Listen = "127.0.0.1:9836"
    """Address and port; port 0 takes any free one. Default 127.0.0.1:9836: nothing is exposed
    unasked."""

    unprotected_reads: bool = False
    """Allow an address other than loopback without authentication: whoever reaches it may read
    metrics and layouts (holders stay hidden). Default false: it must be said."""

    config_file: FilePath | None = None
    """Web configuration file of Prometheus' exporter-toolkit (TLS, client certificates, users), see
    security.md. Default none: plain HTTP without users."""

    unix_socket: SocketPath | None = None
    """Path of the socket for the command line. Default none: migscaler.sock in the state
    directory."""

    reads: ReadsSection = ReadsSection()
    """Who may read over TCP. Default: whoever may connect."""

    writes: WritesSection = WritesSection()
    """Commands over TCP. Default: not taken."""


class LogSection(Section):
    """Log lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written. Default info: one line per decision that differs, and per
    change."""

    format: Literal["logfmt", "json"] = "logfmt"
    """key=value or one JSON object a line. Default logfmt: read by people and machines."""


class Config(Section):
    """The whole file. Nothing is required: an empty one exports and manages nothing."""

    mode: ModeWord = "observe"
    """Default of the lines in gpus: observe measures, recommend plans and publishes, enforce acts.
    Default observe: trust is earned first."""

    timezone: Timezone = "UTC"
    """IANA time zone of every window and date. Default UTC: the same on all nodes."""

    sampling: SamplingSection = SamplingSection()
    """How the hardware is read. Default: every 5s."""

    tick: Annotated[Duration, within("1s", "10m")] = timedelta(seconds=15)
    """Time between two decisions. Default 15s: as often as demand is asked for."""

    gpus: tuple[GpuSection, ...] = ()
    """GPUs that are managed. Default []: nothing is managed unless named; all are exported."""

    idle: IdleSection = IdleSection()
    """When an instance counts as idle. Default: as its keys say."""

    activity: ActivitySection = ActivitySection()
    """Activity per instance from DCGM, for A100 and A30. Default: none but NVML's own."""

    sources: dict[Name, AnySource] = Field(default_factory=dict)
    """Where demand comes from, by name; scheduler is always there. Default {}: no other."""

    rules: tuple[RuleSection, ...] = ()
    """What is wanted, by size, in order of priority. Default []: nothing."""

    pace: PaceSection = PaceSection()
    """How fast things may change. Default: as its keys say."""

    freeze: tuple[FreezeSection, ...] = ()
    """Windows in which nothing is changed. Default []: none."""

    veto: tuple[VetoSection, ...] = ()
    """Conditions that forbid changes. Default []: none."""

    on_boot: OnBootSection = OnBootSection()
    """What happens after a reboot. Default: restore."""

    hooks: HooksSection = HooksSection()
    """Commands on events. Default: none."""

    web: WebSection = WebSection()
    """The HTTP server. Default: on loopback."""

    scheduler: Literal["bare"] = "bare"
    """What hands instances to jobs. Default bare: leases of migscaler itself, no other; the only
    one in this version."""

    state_dir: FilePath | None = None
    """Directory of the journal and the socket. Default none: $STATE_DIRECTORY if systemd sets it,
    /var/lib/migscaler for root, else migscaler in $XDG_STATE_HOME (~/.local/state)."""

    log: LogSection = LogSection()
    """Log lines. Default: info in logfmt."""
