"""The page: the node's picture and, in words, what was last decided and why."""

from migscaler.model.decision import Decision, RuleDecision
from migscaler.model.plan import Gate, Hold
from migscaler.model.status import Status
from migscaler.policy.discretion import problems_of, sentence_for, told
from migscaler.web.explanation import explanation_section
from migscaler.web.gpu_rows import gpu_section
from migscaler.web.history import outcome_list, regret_list
from migscaler.web.html import Markup, join, tag
from migscaler.web.views import gate_view, index_of, modes_view
from migscaler.web.words import (
    GATE_WORDS,
    ago,
    clock,
    count_of,
    unread_words,
    until,
)

_MOST_PIPS = 48


def page(status: Status | None, *, trusted: bool) -> str:
    """Return the whole page; it is complete without JavaScript, which only keeps it fresh."""
    if status is None:
        body = tag("main", tag("p", "The daemon is starting.", class_="sentence"))
        return _document(join(_header(None), body))
    outcomes = _panel("Recent changes", "outcomes", outcome_list(status, trusted=trusted))
    body = tag(
        "main",
        tag("div", *_banners(status, trusted=trusted), data_part="banners"),
        _decision(status, trusted=trusted),
        gpu_section(status, trusted=trusted),
        tag("div", _rules(status), _gates(status, trusted=trusted), class_="columns"),
        tag("div", outcomes, tag("div", _sources(status), _regret(status)), class_="columns"),
        explanation_section(status, trusted=trusted),
    )
    return _document(join(_header(status), body, _footer(status)))


def _document(body: Markup) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "migscaler"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/static/style.css"),
        tag("script", src="/static/app.js", defer=True),
    )
    silent = tag("p", class_="banner bad", id="silent", role="status", hidden=True)
    return "<!doctype html>\n" + tag("html", head, tag("body", silent, body), lang="en") + "\n"


def _header(status: Status | None) -> Markup:
    """Return the line on top: what node this is, how old the picture, which modes."""
    facts, badges = "", []
    if status is not None and status.snapshot is not None:
        snapshot = status.snapshot
        driver = f" · driver {snapshot.driver_version}" if snapshot.driver_version else ""
        gpus = count_of(len(snapshot.gpus), "GPU", "GPUs")
        facts = f"{gpus}{driver} · as of {clock(snapshot.taken_at)}"
        for mode, count in modes_view(status).items():
            if count:
                text = f"{mode.replace('_', ' ')} {count}"
                badges.append(tag("li", text, class_=f"badge {mode}"))
    return tag(
        "header",
        tag("img", src="/static/icon.svg", alt="", width=34, height=34),
        tag("div", tag("h1", "migscaler"), tag("p", facts)),
        tag("ul", *badges, aria_label="GPUs by mode"),
        class_="top",
        data_part="top",
    )


def _banners(status: Status, *, trusted: bool) -> list[Markup]:
    """Return what a reader must know before believing the rest."""
    banners = []
    pause = status.pause
    if pause is not None:
        who = f" by {pause.who}" if trusted else ""
        end = "until resumed" if pause.until is None else f"until {clock(pause.until)}"
        banners.append(_banner("Paused", f"{pause.why}{who}, {end}. Nothing is changed meanwhile."))
    unread = unread_words(status)
    if unread is not None:
        unread = told(unread, names=trusted)
        title = "No figures" if status.snapshot is None else "Old figures"
        banners.append(_banner(title, f"{unread[0].upper()}{unread[1:]}.", "bad"))
    if status.config.forced_observe is not None:
        why = told(status.config.forced_observe, names=trusted)
        banners.append(_banner("Only observing", why, "bad"))
    if not status.state_writable:
        banners.append(
            _banner("Not acting", "The journal can't be written, so nothing is changed.", "bad")
        )
    problems = problems_of(status.config, names=trusted)
    banners += [_banner("Configuration", problem, "bad") for problem in problems]
    banners += [_banner("Configuration", warning) for warning in status.config.warnings]
    return banners


def _banner(title: str, text: str, kind: str = "mild") -> Markup:
    return tag("p", tag("strong", title), " ", text, class_=f"banner {kind}")


def _decision(status: Status, *, trusted: bool) -> Markup:
    """Return the last decision in its one sentence, and what it means."""
    decision = status.decision
    if decision is None:
        text, chip = "Nothing has been decided yet.", Markup()
    else:
        text, chip = sentence_for(decision, names=trusted), _chip(decision)
    when = "" if status.decision_at is None else ago(status.decision_at, status.now)
    return tag(
        "section",
        tag("p", chip, tag("span", when), class_="when"),
        tag("p", text, class_="sentence"),
        class_="decision",
        data_part="decision",
        aria_label="Last decision",
        aria_live="polite",
    )


def _chip(decision: Decision) -> Markup:
    outcome = decision.outcome
    if not isinstance(outcome, Hold):
        return tag("span", "changing", class_="badge enforce")
    if outcome.reason.value == "satisfied":
        return tag("span", "satisfied", class_="badge enforce")
    return tag("span", f"on hold: {GATE_WORDS[outcome.reason]}", class_="badge waiting")


def _rules(status: Status) -> Markup:
    """Return what each rule wants, has and lacks."""
    rules = () if status.decision is None else status.decision.rules
    head = ("Rule", "Size", "Wanted", "In use", "Free", "Missing")
    lines = [line for rule in rules for line in _rule_lines(rule)]
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head))),
        tag("tbody", *lines),
        class_="rules",
    )
    nothing = tag("p", "No rules: nothing is wanted.", class_="quiet")
    return _panel("Demand", "rules", tag("div", table, class_="scroll") if rules else nothing)


def _rule_lines(rule: RuleDecision) -> tuple[Markup, Markup]:
    """Return a rule's numbers, and below them its pips and its reason."""
    missing = "missing" if rule.unmet else None
    numbers = tag(
        "tr",
        tag("th", rule.rule, scope="row"),
        tag("td", rule.size),
        *(tag("td", str(n), class_="n") for n in (rule.wanted, rule.in_use, rule.supply)),
        tag("td", str(rule.unmet), class_=f"n {missing or ''}".rstrip()),
    )
    why = tag("td", _pips(rule), tag("span", rule.explanation), colspan=6)
    return numbers, tag("tr", why, class_="why")


def _pips(rule: RuleDecision) -> Markup:
    """Return one square per instance: in use, free, missing."""
    kinds = ["used"] * rule.in_use + ["idle"] * rule.supply + ["missing"] * rule.unmet
    pips = [tag("i", class_=f"pip {kind}") for kind in kinds[:_MOST_PIPS]]
    return tag("span", *pips, class_="pips", aria_hidden="true")


def _gates(status: Status, *, trusted: bool) -> Markup:
    """Return what stands in the way and when it opens; blocking gates first."""
    gates = () if status.decision is None else status.decision.gates
    ordered = sorted(gates, key=lambda gate: not gate.blocks)
    items = [_gate(status, gate, trusted=trusted) for gate in ordered]
    undecided = status.decision is None
    words = "Nothing has been decided yet." if undecided else "Every gate is open."
    nothing = tag("p", words, class_="quiet")
    return _panel("Closed gates", "gates", tag("ul", *items, class_="list") if items else nothing)


def _gate(status: Status, gate: Gate, *, trusted: bool) -> Markup:
    index = index_of(status.snapshot, gate.gpu_uuid)
    where = gate.rule or ("" if index is None else f"GPU {index}")
    view = gate_view(gate, status.snapshot, trusted=trusted)
    text = str(view["explanation"] or "")
    opens = Markup()
    if gate.opens_at is not None:
        words = f"opens {until(gate.opens_at, status.now)}, {clock(gate.opens_at)}"
        opens = tag("small", words)
    return tag(
        "li",
        tag(
            "p",
            tag("strong", GATE_WORDS[gate.reason]),
            tag("span", where, class_="where"),
            tag("span", "in the way", class_="badge waiting") if gate.blocks else Markup(),
        ),
        tag("p", text) if text else Markup(),
        opens,
    )


def _regret(status: Status) -> Markup:
    """Return what earns or costs trust, in words."""
    note = tag("p", "Enforce only while this stays near 0.", class_="quiet")
    return _panel("Regret since the start", "regret", join(regret_list(status.regret), note))


def _sources(status: Status) -> Markup:
    """Return what the demand sources say."""
    items = []
    for source in status.demand:
        wants = () if source.reading is None else source.reading.wants
        counted = [f"{want.count} x {want.size}" for want in wants if want.count]
        said = ", ".join(counted) or "nothing wanted"
        text = said if source.known else (source.problem or "does not answer")
        badge = ("answers", "enforce") if source.known else ("unknown", "waiting")
        items.append(
            tag(
                "li",
                tag(
                    "p",
                    tag("strong", source.name),
                    tag("span", text, class_="where"),
                    tag("span", badge[0], class_=f"badge {badge[1]}"),
                ),
            )
        )
    nothing = tag("p", "No demand sources: floors and spares only.", class_="quiet")
    return _panel("Sources", "sources", tag("ul", *items, class_="list") if items else nothing)


def _panel(title: str, part: str, body: Markup) -> Markup:
    return tag("section", tag("h2", title), body, class_="panel", data_part=part)


def _footer(status: Status) -> Markup:
    links = [
        tag("a", name, href=href)
        for name, href in (
            ("metrics", "/metrics"),
            ("status as JSON", "/api/v1/status"),
            ("explanation", "/api/v1/explain"),
            ("health", "/-/healthy"),
        )
    ]
    return tag("footer", tag("span", f"migscaler {status.version}"), tag("nav", *links))
