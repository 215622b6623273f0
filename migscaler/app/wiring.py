"""Puts a node together from its configuration: one place that knows all parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from migscaler import __version__
from migscaler.app.config.load import LoadedConfig
from migscaler.app.config.settings import (
    HookSettings,
    PushSettings,
    SchedulerSettings,
    Settings,
    SourceSettings,
)
from migscaler.app.hooks import run_hooks
from migscaler.control.activity import ActivityBook
from migscaler.control.enforce import Enforcer
from migscaler.control.executor import AfterChange, Executor
from migscaler.control.gather import Gatherer
from migscaler.control.observe import Observer
from migscaler.control.parts import Parts
from migscaler.control.site import Site
from migscaler.model.decision import WindowState
from migscaler.model.demand import Counts
from migscaler.model.host import HostTable
from migscaler.model.ids import GpuUuid, SourceName
from migscaler.model.layout import Layout
from migscaler.model.policy import Mode, Policy
from migscaler.model.ports import Clock, GpuReader, GpuWriter, HostProcesses
from migscaler.model.stats import CallStats, SchedulerStats, WebStats
from migscaler.model.status import ConfigStatus, Status
from migscaler.schedulers.bare import BareHost, BareScheduler
from migscaler.schedulers.owners import HostRoots
from migscaler.sources import calendar
from migscaler.sources.dcgm import DcgmSettings, DcgmSource
from migscaler.sources.ports import DemandSource
from migscaler.sources.prometheus import PrometheusSettings, PrometheusSource, PrometheusVeto
from migscaler.sources.prometheus_api import Connection, open_client
from migscaler.sources.push import PushSource
from migscaler.sources.scheduler import SchedulerSource
from migscaler.store.store import Store

if TYPE_CHECKING:
    import httpx

# What waits on the node itself is asked every few seconds; it holds for one missed minute.
_WAITS_HOLD = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What stays the same while a process lives, whatever its configuration says.

    `read_host` looks at the host's processes where somebody else has to (see `BareHost`).
    """

    clock: Clock
    reader: GpuReader
    writer: GpuWriter
    host: HostProcesses
    store: Store
    boot_id: str
    roots: HostRoots = field(default_factory=HostRoots)
    tell_node: tuple[AfterChange, ...] = ()
    read_host: Callable[[bool], HostTable] | None = None


class Assembly:
    """Builds the loop's parts for a configuration, over parts that outlive it."""

    def __init__(self, ground: Ground) -> None:
        """Build what does not depend on the configuration."""
        self.ground = ground
        self.scheduler = BareScheduler(
            book=ground.store,
            clock=ground.clock,
            host=BareHost(host=ground.host, roots=ground.roots, read=ground.read_host),
            wait_max_age=_WAITS_HOLD,
        )
        self.site = Site(
            store=ground.store,
            reader=ground.reader,
            writer=ground.writer,
            scheduler=self.scheduler,
            clock=ground.clock,
            boot_id=ground.boot_id,
        )
        self.activity = ActivityBook()
        self.observer = Observer(
            reader=ground.reader,
            scheduler=self.scheduler,
            store=ground.store,
            host=ground.host,
            boot_id=ground.boot_id,
            find_owners=self.scheduler.foreign_owners,
            activity=self.activity,
        )
        self._clients: dict[Connection, httpx.Client] = {}
        self._hooks = HookSettings(after_change=(), timeout=timedelta(seconds=30))
        self.enforcer = self._make_enforcer()

    def parts(
        self,
        loaded: LoadedConfig,
        *,
        publish: Callable[[Status], None],
        call_stats: Callable[[], CallStats],
        job_stats: Callable[[], SchedulerStats],
        web_stats: Callable[[], WebStats] = WebStats,
        config: ConfigStatus,
        may_act: bool,
    ) -> Parts:
        """Return the parts of a loop under this configuration.

        There is an enforcer only if `may_act` and some GPU is more than observed.
        """
        policy, settings = loaded.policy, loaded.settings
        self._hooks = settings.hooks
        self.activity.configure(self._dcgm(settings.activity))
        return Parts(
            observer=self.observer,
            gatherer=self._gatherer(settings),
            store=self.ground.store,
            clock=self.ground.clock,
            policy=policy,
            evaluate_windows=_windows(settings),
            call_stats=call_stats,
            publish=publish,
            version=__version__,
            enforcer=self.enforcer if may_act and acts(policy) else None,
            job_stats=job_stats,
            web_stats=web_stats,
            config=config,
            activity=self.activity,
        )

    def close(self) -> None:
        """Close the connections to Prometheus servers."""
        for client in self._clients.values():
            client.close()

    def run_hooks(self, uuid: GpuUuid, layout: Layout) -> str | None:
        """Run the hooks of the configuration in force; return what went wrong."""
        return run_hooks(self._hooks, uuid, layout)

    def _gatherer(self, settings: Settings) -> Gatherer:
        """Return the sources of a configuration; connections are kept where they stay the same."""
        return Gatherer(
            sources={source.name: self._source(source) for source in settings.sources},
            vetoes={
                veto.name: PrometheusVeto(
                    settings=veto, client=self._client(veto.connection), clock=self.ground.clock
                )
                for veto in settings.vetoes
            },
            clock=self.ground.clock,
            overrides=self.ground.store.all_pushed,
            # Three questions missed, and the two requests of the next: whatever it said is old.
            veto_holds={
                veto.name: 3 * veto.interval + 2 * veto.connection.timeout
                for veto in settings.vetoes
            },
        )

    def _source(self, source: SourceSettings) -> DemandSource:
        """Return one source."""
        match source:
            case PrometheusSettings():
                return PrometheusSource(
                    settings=source,
                    client=self._client(source.connection),
                    clock=self.ground.clock,
                )
            case PushSettings():
                return PushSource(name=source.name, book=self.ground.store, clock=self.ground.clock)
            case SchedulerSettings():
                return SchedulerSource(self.scheduler)

    def _dcgm(self, settings: DcgmSettings | None) -> DcgmSource | None:
        """Return what measures activity where NVML does not, None if nothing does."""
        if settings is None:
            return None
        client = self._client(settings.connection)
        return DcgmSource(settings=settings, client=client, clock=self.ground.clock)

    def _client(self, connection: Connection) -> "httpx.Client":
        """Return the client for a server, opened once."""
        if connection not in self._clients:
            self._clients[connection] = open_client(connection)
        return self._clients[connection]

    def _make_enforcer(self) -> Enforcer:
        """Return what acts; it keeps its books over reloads."""
        ground = self.ground
        executor = Executor(self.site, (*ground.tell_node, self.run_hooks))
        return Enforcer(executor=executor, observer=self.observer, clock=ground.clock)


def acts(policy: Policy) -> bool:
    """Say whether some GPU may be changed, by itself or by `apply`."""
    return any(entry.mode is not Mode.OBSERVE for entry in policy.gpus)


def push_sources(settings: Settings, policy: Policy) -> Mapping[SourceName, Counts]:
    """Return the push sources by name, with what their numbers count."""
    counts = {source.name: source.counts for source in policy.sources}
    return {s.name: counts[s.name] for s in settings.sources if isinstance(s, PushSettings)}


def _windows(settings: Settings) -> Callable[[datetime], tuple[WindowState, ...]]:
    """Return the calendar of a configuration."""

    def evaluate(now: datetime) -> tuple[WindowState, ...]:
        return calendar.evaluate(settings.windows, settings.timezone, now)

    return evaluate
