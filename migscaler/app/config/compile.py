"""From the checked file to the policy of decisions and the settings of the daemon's parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from migscaler.app.config.activity_model import ActivitySection, DcgmQuerySection
from migscaler.app.config.model import Config, GpuSection, RuleSection, WebSection
from migscaler.app.config.references import SCHEDULER
from migscaler.app.config.settings import (
    HookSettings,
    LogSettings,
    OnBootSettings,
    PushSettings,
    SchedulerSettings,
    Settings,
    SourceSettings,
    WebSettings,
)
from migscaler.app.config.source_model import (
    AnySource,
    PrometheusSection,
    PushSection,
    SchedulerSection,
    VetoSection,
)
from migscaler.app.config.texts import SettingRefused, is_loopback, parse_until, split_listen
from migscaler.model.demand import Counts
from migscaler.model.ids import GpuUuid, RuleName, SourceName
from migscaler.model.plan import Direction
from migscaler.model.policy import (
    AtLeast,
    Freeze,
    GpuEntry,
    IdlePolicy,
    Mode,
    Pace,
    Policy,
    Rule,
    SourcePolicy,
)
from migscaler.sources.dcgm import DcgmSettings
from migscaler.sources.prometheus import PrometheusSettings, VetoSettings
from migscaler.sources.prometheus_api import Connection
from migscaler.web.protection import canonical

_ASK_AGAIN = timedelta(seconds=15)
"""How often a veto with an address of its own is asked: the default of sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What a file means: for decisions, and for everything else."""

    policy: Policy
    settings: Settings


def compile_config(config: Config) -> Compiled:
    """Return the meaning of a file that passed every check."""
    sources: dict[str, AnySource] = dict(config.sources)
    declared = SCHEDULER in sources
    sources.setdefault(SCHEDULER, SchedulerSection(type="scheduler"))
    return Compiled(policy=_policy(config, sources), settings=_settings(config, sources, declared))


def _policy(config: Config, sources: dict[str, AnySource]) -> Policy:
    """Return what decisions depend on."""
    idle, pace = config.idle, config.pace
    return Policy(
        gpus=tuple(_gpu_entry(line, config) for line in config.gpus),
        rules=tuple(_rule(rule) for rule in config.rules),
        sources=tuple(_source_policy(name, source) for name, source in sources.items()),
        pace=Pace(
            raise_after=pace.raise_after,
            lower_after=pace.lower_after,
            gpus_at_once=pace.gpus_at_once,
            per_day=pace.per_day,
            rest=pace.rest,
            rest_after_failure=pace.rest_after_failure,
            fence_max=pace.fence_max,
        ),
        freezes=tuple(
            Freeze(window=f.when, only=Direction(f.only) if f.only else None) for f in config.freeze
        ),
        vetoes=tuple(_veto_name(number, veto) for number, veto in enumerate(config.veto, 1)),
        idle=IdlePolicy(
            after=idle.after,
            evidence=frozenset(idle.evidence),
            activity_below=idle.activity_below,
            memory_margin_bytes=idle.memory_margin,
        ),
        sampling=config.sampling.interval,
        tick=config.tick,
    )


def _gpu_entry(line: GpuSection, config: Config) -> GpuEntry:
    """Return one line of gpus; its mode falls back to the file's."""
    return GpuEntry(
        mode=Mode(line.mode or config.mode),
        uuid=GpuUuid(line.uuid) if line.uuid else None,
        index=line.index,
        model=line.model,
        baseline=line.baseline,
        reason=line.reason,
        until=parse_until(line.until, config.timezone) if line.until else None,
    )


def _rule(rule: RuleSection) -> Rule:
    """Return one rule."""
    return Rule(
        name=RuleName(rule.name),
        size=rule.size,
        sources=tuple(SourceName(name) for name in rule.from_),
        minimum=rule.min,
        maximum=rule.max,
        spare=rule.spare,
        at_least=tuple(AtLeast(count=floor.count, window=floor.when) for floor in rule.at_least),
        sum_waiting=rule.combine == "sum",
        weight=rule.weight,
        raise_after=rule.raise_after,
        lower_after=rule.lower_after,
        reserve_after=rule.reserve_after,
    )


def _source_policy(name: str, source: AnySource) -> SourcePolicy:
    """Return what decisions need to know of a source."""
    return SourcePolicy(
        name=SourceName(name),
        counts=Counts(source.counts),
        max_age=source.max_age,
        unknown_for=source.unknown_for,
        shared=source.scope == "shared",
        share=source.share,
    )


def _settings(config: Config, sources: dict[str, AnySource], declared: bool) -> Settings:
    """Return what the daemon's parts are told."""
    return Settings(
        mode=config.mode,
        timezone=config.timezone,
        windows=tuple(dict.fromkeys(_windows(config))),
        sources=tuple(
            _source_settings(name, source, config, declared) for name, source in sources.items()
        ),
        vetoes=tuple(_veto(number, veto, config) for number, veto in enumerate(config.veto, 1)),
        web=web_settings(config.web),
        on_boot=OnBootSettings(layout=config.on_boot.layout, mig_mode=config.on_boot.mig_mode),
        hooks=HookSettings(after_change=config.hooks.after_change, timeout=config.hooks.timeout),
        scheduler=config.scheduler,
        log=LogSettings(level=config.log.level, format=config.log.format),
        state_dir=Path(config.state_dir) if config.state_dir else None,
        activity=_activity(config.activity),
    )


def _activity(section: ActivitySection) -> DcgmSettings | None:
    """Return where DCGM's figures come from, None if from nowhere."""
    if section.dcgm is not None:
        page = section.dcgm
        return DcgmSettings(
            connection=Connection(url=page.url, timeout=page.timeout),
            interval=page.interval,
            max_age=page.max_age,
            through_prometheus=False,
        )
    if section.prometheus is None:
        return None
    return DcgmSettings(
        connection=_connection(section.prometheus),
        interval=section.prometheus.interval,
        max_age=section.prometheus.max_age,
        through_prometheus=True,
        host=section.prometheus.host,
    )


def _windows(config: Config) -> Iterator[str]:
    """Yield the text of every window."""
    for rule in config.rules:
        for floor in rule.at_least:
            yield floor.when
    for freeze in config.freeze:
        yield freeze.when


def _source_settings(
    name: str, source: AnySource, config: Config, declared: bool
) -> SourceSettings:
    """Return how one source is reached."""
    match source:
        case PrometheusSection():
            return PrometheusSettings(
                name=SourceName(name),
                connection=_connection(source),
                query=source.query,
                label=source.label,
                counts=Counts(source.counts),
                interval=source.interval,
                max_age=source.max_age,
                size=source.size or _only_size(name, config),
                alive=source.alive,
                true_at=source.true_at,
            )
        case PushSection():
            return PushSettings(name=SourceName(name), max_age=source.max_age)
        case SchedulerSection():
            return SchedulerSettings(
                name=SourceName(name),
                interval=source.interval,
                max_age=source.max_age,
                declared=declared,
            )


def _connection(source: PrometheusSection | DcgmQuerySection) -> Connection:
    """Return how a Prometheus server is reached."""
    return Connection(
        url=source.url,
        timeout=source.timeout,
        bearer_token_file=Path(source.bearer_token_file) if source.bearer_token_file else None,
        ca_file=Path(source.ca_file) if source.ca_file else None,
    )


def _only_size(source: str, config: Config) -> str | None:
    """Return the size of the one rule that uses a source, None if several or none do."""
    sizes = [rule.size for rule in config.rules if source in rule.from_]
    return sizes[0] if len(sizes) == 1 else None


def _veto_name(number: int, veto: VetoSection) -> str:
    return veto.name or f"veto-{number}"


def _veto(number: int, veto: VetoSection, config: Config) -> VetoSettings:
    """Return how a veto is asked: the server of its source, or its own address."""
    source = veto_source(veto, config)
    if source is None:
        connection = Connection(url=veto.url or "", timeout=timedelta(seconds=5))
    elif veto.url is not None:
        # Another address: the source's token is not for it.
        connection = Connection(url=veto.url, timeout=source.timeout)
    else:
        connection = _connection(source)
    return VetoSettings(
        name=_veto_name(number, veto),
        connection=connection,
        query=veto.query,
        interval=source.interval if source else _ASK_AGAIN,
        # Not the source's own alive: that speaks of another exporter's data.
        alive=veto.alive,
    )


def veto_source(veto: VetoSection, config: Config) -> PrometheusSection | None:
    """Return the source whose server a veto asks; None if it stands alone with its address."""
    named = config.sources.get(veto.source)
    if isinstance(named, PrometheusSection):
        return named
    all_of_them = (s for s in config.sources.values() if isinstance(s, PrometheusSection))
    return next(all_of_them, None)


def web_settings(web: WebSection, listen: str | None = None) -> WebSettings:
    """Return where HTTP is served; `listen` (of the command line) takes the place of the file's.

    Raises:
        SettingRefused: `listen` is no address, or others can reach it and nothing in the file
            says that they may, or protects it.
    """
    address = web.listen if listen is None else listen
    host, port = split_listen(address)
    token = web.writes.token_file if web.writes.enabled else None
    is_open = is_loopback(host) or web.unprotected_reads or web.reads.token_file
    if listen is not None and not is_open and not web.config_file:
        raise SettingRefused(
            f"--listen {listen} can be reached from outside without authentication",
            "listen on 127.0.0.1, or put web.unprotected_reads: true or web.config_file into the"
            " configuration",
        )
    return WebSettings(
        host=host,
        port=port,
        unix_socket=Path(web.unix_socket) if web.unix_socket else None,
        write_token_file=Path(token) if token else None,
        writes=web.writes.enabled,
        write_names=frozenset(map(canonical, web.writes.client_sans)),
        read_token_file=Path(web.reads.token_file) if web.reads.token_file else None,
        config_file=Path(web.config_file) if web.config_file else None,
        open_to=None if is_open else address,
    )
