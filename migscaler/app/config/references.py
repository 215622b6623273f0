"""Rules that hold between settings: names that must exist, numbers that must fit together.

Each check yields (path, problem, remedy); it passes over values that are broken by themselves.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

from migscaler.app.config.activity_model import DcgmQuerySection, DcgmSection
from migscaler.app.config.model import Config, IdleSection, PaceSection, SamplingSection
from migscaler.app.config.quoting import quoted_address
from migscaler.app.config.raw import Raw
from migscaler.app.config.source_model import PrometheusSection, PushSection, SchedulerSection
from migscaler.app.config.texts import (
    SettingRefused,
    did_you_mean,
    has_page,
    is_loopback,
    split_listen,
)
from migscaler.app.config.yaml_text import Path

Problem = tuple[Path, str, str]
AskedSection = PrometheusSection | SchedulerSection
AnySection = AskedSection | PushSection

SCHEDULER = "scheduler"
"""The source that is always there: what waits on the node itself."""
PROMETHEUS = "prometheus"
"""As the source of a veto: the one server that all prometheus sources share."""
GAPS_ALLOWED = 3
"""A signal silent for more than three samples resets idle timers, so idle.after must be longer."""


def problems_between(value: object) -> Iterator[Problem]:
    """Yield every broken rule of the file, in no particular order."""
    root = Raw.of(value)
    checks: tuple[Callable[[Raw], Iterator[Problem]], ...] = (
        _gpu_lines,
        _rule_names,
        _rule_numbers,
        _rule_sources,
        _source_kinds,
        _shared_sources,
        _source_times,
        _vetoes,
        _times,
        _evidence,
        _activity,
        _web,
    )
    for check in checks:
        yield from check(root)


def server_of(source: Raw) -> tuple[object, object, object]:
    """Return what makes two sources ask the same server the same way."""
    return source.text("url"), source.text("bearer_token_file"), source.text("ca_file")


def _gpu_lines(root: Raw) -> Iterator[Problem]:
    """Each line chooses by exactly one key, and no later line repeats an unlimited one."""
    seen: dict[tuple[str, object], int] = {}
    for number, line in enumerate(root.parts("gpus")):
        chosen = [key for key in ("uuid", "index", "model") if line.has(key)]
        if len(chosen) != 1:
            problem = f"has {' and '.join(chosen)}" if chosen else "names no GPU"
            yield line.path, problem, "choose by exactly one of uuid, index, model"
            continue
        who = (chosen[0], line.plain(chosen[0]))
        if who[1] is None:
            continue
        if who in seen:
            first = f"line gpus[{seen[who]}] already speaks of {chosen[0]} {who[1]}"
            yield line.at(chosen[0]), first, "remove one of the two, or give the first an until"
        elif not line.has("until"):
            seen[who] = number


def _rule_names(root: Raw) -> Iterator[Problem]:
    """Names and sizes of rules are their own."""
    for key, remedy in (
        ("name", "give each rule its own name"),
        ("size", "join the two rules into one"),
    ):
        seen: dict[str, int] = {}
        for number, rule in enumerate(root.parts("rules")):
            text = rule.text(key)
            if text is not None and text in seen:
                yield rule.at(key), f"rules[{seen[text]}] has the {key} {text!r} already", remedy
            elif text is not None:
                seen[text] = number


def _rule_numbers(root: Raw) -> Iterator[Problem]:
    """Floors lie under the maximum."""
    for rule in root.parts("rules"):
        least, most = rule.number("min"), rule.number("max")
        if most is None:
            continue
        if least is not None and least > most:
            yield (
                rule.at("min"),
                f"min {least} is more than max {most}",
                f"write min at most {most}",
            )
        for floor in rule.parts("at_least"):
            count = floor.number("count")
            if count is not None and count > most:
                problem = f"at_least {count} is more than max {most}"
                yield floor.at("count"), problem, f"write at most {most}, or raise max"


def _rule_sources(root: Raw) -> Iterator[Problem]:
    """A rule's sources exist, each named once."""
    known = {SCHEDULER, *root.part("sources").values}
    for rule in root.parts("rules"):
        seen: set[str] = set()
        for path, name in rule.texts("from"):
            if name not in known:
                near = did_you_mean(name, known)
                remedy = (
                    f"did you mean {near}?"
                    if near
                    else f"declare it under sources: ({', '.join(sorted(known))})"
                )
                yield path, f"there is no source {name!r}", remedy
            elif name in seen:
                yield path, f"source {name!r} stands twice", "name it once"
            seen.add(name)


def _source_kinds(root: Raw) -> Iterator[Problem]:
    """The name scheduler and the type scheduler belong together."""
    for name, source in root.named_parts("sources"):
        kind = source.text("type")
        if kind is not None and (name == SCHEDULER) != (kind == SCHEDULER):
            remedy = "name it scheduler" if kind == SCHEDULER else "choose another name"
            yield (
                source.path,
                f"source {name!r} is of type {kind}; {SCHEDULER} means the node's own",
                remedy,
            )


def _shared_sources(root: Raw) -> Iterator[Problem]:
    """A number that reaches every node needs this node's share before anything acts on it."""
    modes = {line.text("mode") or root.text("mode") for line in root.parts("gpus")}
    for _, source in root.named_parts("sources"):
        shared = source.text("scope") == "shared"
        if shared and "enforce" in modes and not source.has("share"):
            remedy = (
                "add share: (this node's part, e.g. 0.25 on each of four nodes), or scope: node"
            )
            yield (
                source.at("scope"),
                "in mode enforce every node would serve the whole of a shared number",
                remedy,
            )
        if source.has("share") and not shared:
            yield (
                source.at("share"),
                "a share has no meaning with scope node",
                "add scope: shared, or remove share",
            )


def _source_times(root: Raw) -> Iterator[Problem]:
    """An answer holds at least until the next one."""
    models: dict[str, type[AskedSection]] = {
        "prometheus": PrometheusSection,
        "scheduler": SchedulerSection,
    }
    for _, source in root.named_parts("sources"):
        model = models.get(source.text("type") or "")
        if model is None:
            if source.text("type") == "push":
                yield from _ordered(source, "max_age", "unknown_for", PushSection)
            continue
        yield from _ordered(source, "interval", "max_age", model)
        yield from _ordered(source, "max_age", "unknown_for", model)


def _ordered(
    source: Raw,
    shorter: str,
    longer: str,
    model: type[AnySection],
) -> Iterator[Problem]:
    """One duration of a source is shorter than another."""
    low = source.duration(shorter, model.model_fields[shorter].default)
    high = source.duration(longer, model.model_fields[longer].default)
    if low is not None and high is not None and low >= high:
        where = source.at(longer if source.has(longer) else shorter)
        yield (
            where,
            f"{shorter} is not shorter than {longer}",
            f"write a longer {longer} or a shorter {shorter}",
        )


def _vetoes(root: Raw) -> Iterator[Problem]:
    """A veto asks a prometheus source, or the one server they all share, or its own address."""
    sources = dict(root.named_parts("sources"))
    prometheus = {n: s for n, s in sources.items() if s.text("type") == "prometheus"}
    names: set[str] = set()
    for veto in root.parts("veto"):
        name, asked = veto.text("name"), veto.text("source")
        if name is not None and name in names:
            yield (
                veto.at("name"),
                f"another veto has the name {name!r}",
                "give each veto its own name",
            )
        names.add(name or "")
        if asked is None or asked in prometheus:
            continue
        where = veto.at("source")
        if asked in sources:
            yield where, f"source {asked!r} is not of type prometheus", "name a prometheus source"
        elif asked != PROMETHEUS:
            near = did_you_mean(asked, [*prometheus, PROMETHEUS])
            yield (
                where,
                f"there is no source {asked!r}",
                f"did you mean {near}?" if near else "declare it under sources:",
            )
        elif not veto.has("url") and len({server_of(s) for s in prometheus.values()}) != 1:
            many = (
                "the prometheus sources ask different servers"
                if prometheus
                else "no prometheus source is declared"
            )
            yield where, many, "name the source whose server is asked, or add url:"


def _times(root: Raw) -> Iterator[Problem]:
    """Sampling is the fastest; idleness and decisions take several samples."""
    sampling = root.part("sampling").duration("interval", SamplingSection().interval)
    tick = root.duration("tick", Config().tick)
    idle = root.part("idle").duration("after", IdleSection().after)
    if sampling is not None and tick is not None and tick < sampling:
        yield (
            root.at("tick") if root.has("tick") else ("sampling", "interval"),
            ("tick is shorter than sampling.interval"),
            "write a tick at least as long: nothing new is known before",
        )
    if sampling is not None and idle is not None and idle <= sampling * GAPS_ALLOWED:
        where: Path = (
            ("idle", "after") if root.part("idle").has("after") else ("sampling", "interval")
        )
        yield where, "idle.after is not longer than three samples", "write a longer idle.after"
    failed = root.part("pace").duration("rest_after_failure", PaceSection().rest_after_failure)
    rest = root.part("pace").duration("rest", PaceSection().rest)
    if rest is not None and failed is not None and failed < max(rest, timedelta(seconds=1)):
        pace = root.part("pace")
        where = pace.at("rest_after_failure" if pace.has("rest_after_failure") else "rest")
        yield where, "rest_after_failure is shorter than rest", "write a longer rest_after_failure"


def _evidence(root: Raw) -> Iterator[Problem]:
    """Without processes and allocations, something in use could count as idle."""
    idle = root.part("idle")
    if not idle.has("evidence"):
        return
    named = [text for _, text in idle.texts("evidence")]
    missing = [signal for signal in ("process", "allocation") if signal not in named]
    if missing:
        problem = f"{' and '.join(missing)} must be among the evidence"
        yield idle.at("evidence"), problem, "add it; what is in use must never count as idle"
    for path, text in idle.texts("evidence"):
        if named.count(text) > 1 and path[-1] != named.index(text):
            yield path, f"{text!r} stands twice", "name it once"


def _activity(root: Raw) -> Iterator[Problem]:
    """Activity comes from one place, and its figures are younger than the time that proves idle."""
    activity = root.part("activity")
    models: dict[str, type[DcgmSection | DcgmQuerySection]] = {
        "dcgm": DcgmSection,
        "prometheus": DcgmQuerySection,
    }
    given = [key for key in models if activity.has(key)]
    if len(given) == 2:
        problem = "activity can't come from dcgm and prometheus at once"
        yield activity.at("prometheus"), problem, "keep the one that is nearer to the exporter"
    for key in given:
        section, fields = activity.part(key), models[key].model_fields
        yield from _figures(root, section, fields["interval"].default, fields["max_age"].default)
    url = activity.part("dcgm").text("url")
    if url is not None and url.startswith("http") and not has_page(url):
        remedy = 'write the whole address: "http://host:9400/metrics"'
        yield activity.part("dcgm").at("url"), f"{quoted_address(url)} names no page", remedy


def _figures(
    root: Raw, section: Raw, default_interval: timedelta, default_age: timedelta
) -> Iterator[Problem]:
    """A figure holds until the next one, and not for as long as idleness takes to prove."""
    interval = section.duration("interval", default_interval)
    max_age = section.duration("max_age", default_age)
    where = section.at("max_age") if section.has("max_age") else section.path
    if interval is not None and max_age is not None and interval >= max_age:
        remedy = "write a longer max_age or a shorter interval"
        yield where, "interval is not shorter than max_age", remedy
    idle = root.part("idle").duration("after", IdleSection().after)
    if max_age is not None and idle is not None and max_age >= idle:
        remedy = "write a shorter max_age, or a longer idle.after"
        yield where, "max_age is not shorter than idle.after", remedy


def _web(root: Raw) -> Iterator[Problem]:
    """Nothing is exposed unasked, and no command is taken without a token."""
    web = root.part("web")
    listen = web.text("listen")
    try:
        host = split_listen(listen)[0] if listen else "127.0.0.1"
    except SettingRefused:
        host = "127.0.0.1"
    is_said = web.values.get("unprotected_reads") is True
    is_protected = web.has("config_file") or web.part("reads").has("token_file")
    if not is_loopback(host) and not is_said and not is_protected:
        remedy = (
            "listen on 127.0.0.1, add config_file (TLS, users), or unprotected_reads: true if"
            " everyone there may read"
        )
        yield (
            web.at("listen"),
            f"{listen} can be reached from outside without authentication",
            remedy,
        )
    writes = web.part("writes")
    names_clients = bool(writes.values.get("client_sans"))
    if writes.values.get("enabled") is True and not (writes.has("token_file") or names_clients):
        yield (
            writes.at("enabled"),
            "commands over TCP need a token",
            "add token_file: /etc/migscaler/token",
        )
    if names_clients and not web.has("config_file"):
        yield (
            writes.at("client_sans"),
            "nobody verifies client certificates",
            "add web.config_file with client_ca_file and client_auth_type",
        )
