"""The Policy dashboard: targets, gates, what was done and how it went."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src import shell
from grafana.src.look import BAD, GOOD, WARN, bad_above, steps, words
from grafana.src.panels import figure, series, timeline
from grafana.src.parts import Size, panel_text
from grafana.src.policy_acting import acting, aftermath, brakes, durations
from grafana.src.query import on_gpu, on_node, query
from grafana.src.tables import column, rows


def policy() -> model.Dashboard:
    """Return the dashboard."""
    return shell.assemble(
        "migscaler-policy",
        "migscaler / Policy",
        "Targets, gates, plans and their outcomes, durations, regret, breakers and budget.",
        [*shell.places(), shell.gpu()],
        [
            shell.Section(title="Now", panels=[*_now(), *_now_wrong()]),
            shell.Section(title="Targets", panels=_targets()),
            shell.Section(title="Sources", panels=_sources()),
            shell.Section(title="Gates", panels=_gates()),
            shell.Section(
                title="Plans and outcomes", panels=[*acting(), *durations(), *aftermath()]
            ),
            shell.Section(title="Brakes", panels=brakes()),
        ],
    )


def _now() -> list[model.Panel]:
    """Return the figures on top."""

    def total(family: str) -> str:
        return f"sum ({on_node(family)})"

    enforced = on_gpu("gpu_mode", 'mode="enforce"')
    return [
        figure(
            panel_text("Enforced GPUs", "GPUs whose layout migscaler may change."),
            query(f"sum ({enforced})"),
            "none",
        ),
        figure(
            panel_text("Paused nodes", "Nodes on which a person switched acting off."),
            query(total("paused")),
            "none",
            bad_above(1, WARN),
        ),
        figure(
            panel_text("Unknown sources", "Sources of demand that do not answer; rules wait."),
            query(f"count ({on_node('source_known')} == 0) or vector(0)"),
            "none",
            bad_above(1),
        ),
        figure(
            panel_text("Plans wanted", "GPU plans that would be carried out with every gate open."),
            query(f"{total('wanted_gpu_plans')} or 0 * {total('decision_timestamp_seconds')}"),
            "none",
        ),
    ]


def _now_wrong() -> list[model.Panel]:
    """Return the figures that should be small, and the budget."""
    return [
        figure(
            panel_text("Open breakers", "GPUs that are left alone after repeated failures."),
            query(f"sum ({on_gpu('gpu_breaker_open')})"),
            "none",
            bad_above(1),
        ),
        figure(
            panel_text("Flapping GPUs", "GPUs whose last change went against the one before."),
            query(f"sum ({on_gpu('gpu_flapping')})"),
            "none",
            bad_above(1, WARN),
        ),
        figure(
            panel_text("Least budget left", "GPU plans that per_day still allows, worst node."),
            query(f"min ({on_node('change_budget_left')})"),
            "none",
            steps((None, BAD), (1, WARN), (5, GOOD)),
        ),
        figure(
            panel_text("Invalid configs", "Nodes whose configuration file is not valid as it is."),
            query(f"count ({on_node('config_valid')} == 0) or vector(0)"),
            "none",
            bad_above(1),
        ),
    ]


def _targets() -> list[model.Panel]:
    """Return what the rules want and have."""
    labels = "instance, rule"

    def each(family: str) -> str:
        return f"max by ({labels}) ({on_node(family)})"

    return [
        rows(
            panel_text(
                "Rules",
                """In use: with a process or allocation. Wanted: in use and waiting, within floor
                and maximum. Target: wanted and spare. Free: there and not in use.""",
            ),
            [
                query(f"max by ({labels}, size) ({on_node('rule_info')})"),
                query(each("rule_in_use_instances")),
                query(each("rule_wanted_instances")),
                query(each("rule_target_instances")),
                query(each("rule_floor_instances")),
                query(each("rule_supply_instances")),
                query(each("rule_unmet_instances")),
            ],
            [
                column("instance", "Node", width=110),
                column("rule", "Rule", width=120),
                column("size", "Size", width=55),
                column("B", "In use", width=70),
                column("C", "Wanted", width=75),
                column("D", "Target", width=70),
                column("E", "Floor", width=65),
                column("F", "Free", width=60),
                column("G", "Missing", width=75),
            ],
            size=Size(width=12),
            most="Missing",
        ),
        series(
            panel_text("Target by rule", "Instances wanted, spare included, over all nodes."),
            [query(f"sum by (rule) ({on_node('rule_target_instances')})", "{{rule}}")],
            "none",
            size=Size(width=6),
        ),
        series(
            panel_text("Missing by rule", "Instances wanted that are not there, over all nodes."),
            [query(f"sum by (rule) ({on_node('rule_unmet_instances')})", "{{rule}}")],
            "none",
            size=Size(width=6),
        ),
    ]


def _sources() -> list[model.Panel]:
    """Return what the sources of demand say and whether they are heard."""
    age = f"time() - max by (instance, source) ({on_node('source_reading_timestamp_seconds')})"
    reading = on_node("source_reading_instances")
    veto = f"max by (instance, veto) ({on_node('veto_stands')})"
    return [
        timeline(
            panel_text(
                "Sources and vetoes",
                """Whether each source answers and whether a veto forbids changes. A source that
                is not known stops lowering and raising for its rules.""",
            ),
            [
                query(
                    f"max by (instance, source) ({on_node('source_known')})",
                    "{{instance}} {{source}}",
                ),
                query(f"2 + {veto}", "{{instance}} veto {{veto}}"),
            ],
            words(
                v0=("unknown", BAD),
                v1=("known", GOOD),
                v2=("no veto", GOOD),
                v3=("forbids changes", WARN),
            ),
            size=Size(width=8),
        ),
        series(
            panel_text("Readings", "What each source said last, as it said it."),
            [query(f"max by (source, size) ({reading})", "{{source}} {{size}}")],
            "none",
        ),
        series(
            panel_text("Age of readings", "Time since the moment for which a reading is true."),
            [query(age, "{{instance}} {{source}}")],
            "s",
        ),
    ]


def _gates() -> list[model.Panel]:
    """Return which gates were closed when, and why decisions came to nothing."""
    node = f"max by (reason) ({on_node('gate_closed')} == 1)"
    rule = f"max by (reason) ({on_node('rule_gate_closed')} == 1)"
    card = f"max by (reason) ({on_gpu('gpu_gate_closed')} == 1)"
    held = f"sum by (reason) (rate({on_node('hold_ticks_total')}[$__rate_interval]))"
    ticks = f"sum (rate({on_node('ticks_total')}[$__rate_interval]))"
    return [
        timeline(
            panel_text(
                "Closed gates over time",
                """When each gate was closed for at least one node, rule or GPU of those chosen.
                Nothing drawn means open; Fleet has the list of those closed now.""",
            ),
            [
                query(node, "nodes: {{reason}}"),
                query(rule, "rules: {{reason}}"),
                query(card, "GPUs: {{reason}}"),
            ],
            words(v1=("closed", WARN)),
            size=Size(width=16, height=10),
        ),
        series(
            panel_text(
                "Why nothing was done",
                "Share of decisions that came to nothing being done, by reason.",
            ),
            [query(f"({held} > 0) / on () group_left () {ticks}", "{{reason}}")],
            "percentunit",
            size=Size(width=8, height=10),
            stacked=True,
        ),
    ]
