"""The Fleet dashboard: all nodes, what they have, what is missing, what is wasted and blocked."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src import shell
from grafana.src.look import (
    BAD,
    FREE,
    GOOD,
    PLAIN,
    SIZE_NAMES,
    STATES,
    WARN,
    bad_above,
    steps,
    yes_no,
)
from grafana.src.panels import figure, gauges, series
from grafana.src.parts import Size, panel_text
from grafana.src.query import by_size, of_profile, on_node, per_hour, query
from grafana.src.tables import column, rows

_TO_NODE = (
    "/d/migscaler-node?var-node=${__value.text}&var-datasource=${datasource}&${__url_time_range}"
)


def fleet() -> model.Dashboard:
    """Return the dashboard."""
    return shell.assemble(
        "migscaler-fleet",
        "migscaler / Fleet",
        "All nodes: capacity by profile, demand against supply, waste, and what is blocked.",
        [*shell.places(), shell.profile(by_gpu=False)],
        [
            shell.Section(title="Now", panels=[*_now(), *_now_wrong()]),
            shell.Section(title="Capacity", panels=_capacity()),
            shell.Section(title="Demand and supply", panels=[*_demand(), *_rules()]),
            shell.Section(title="Use and waste", panels=_waste()),
            shell.Section(title="Changes and obstacles", panels=[*_changes(), *_nodes()]),
        ],
    )


def _now() -> list[model.Panel]:
    """Return the figures on top."""
    compute = on_node("gpu_compute_slices")
    pinned = on_node("gpu_compute_slices", 'state="pinned"')
    up = 'up{cluster=~"$cluster", job=~"$job", instance=~"$node"}'
    return [
        figure(
            panel_text("Nodes down", "Scrape targets of migscaler that are down."),
            query(f"count ({up} == 0) or vector(0)"),
            "none",
            bad_above(1),
        ),
        figure(
            panel_text("GPUs", "GPUs that the nodes' last samples list."),
            query(f"sum ({on_node('gpus')})"),
            "none",
        ),
        figure(
            panel_text(
                "Compute in use",
                """Compute slices of instances that keep their place (process, allocation, hold or
                not yet proven idle), of all slices of GPUs in MIG mode.""",
            ),
            query(f"sum ({pinned}) / sum ({compute})"),
            "percentunit",
        ),
        figure(
            panel_text("Missing instances", "Instances that rules want and that are not there."),
            query(f"sum ({on_node('rule_unmet_instances')})"),
            "none",
            bad_above(1, WARN),
        ),
    ]


def _now_wrong() -> list[model.Panel]:
    """Return the figures that should be small."""
    memory = on_node("gpu_memory_slices")
    stranded = on_node("gpu_memory_slices", 'state="stranded"')
    return [
        figure(
            panel_text(
                "Stranded memory",
                "Memory slices that no profile can use beside the layout, of all memory slices.",
            ),
            query(f"sum ({stranded}) / sum ({memory})"),
            "percentunit",
            bad_above(0.25, WARN),
        ),
        figure(
            panel_text("Open breakers", "GPUs that are left alone after repeated failures."),
            query(f"sum ({on_node('gpu_breaker_open')})"),
            "none",
            bad_above(1),
        ),
        figure(
            panel_text("Paused nodes", "Nodes on which a person switched acting off."),
            query(f"sum ({on_node('paused')})"),
            "none",
            bad_above(1, WARN),
        ),
        figure(
            panel_text("Changes of layout", "GPU plans that ended in the range shown."),
            query(f"round (sum (increase({on_node('gpu_plans_total')}[$__range])))"),
            "none",
        ),
    ]


def _capacity() -> list[model.Panel]:
    """Return what there is, by profile."""
    families = ("present", "unused", "creatable", "reachable")
    asked = [
        query(f"sum by (profile) ({of_profile(f'gpu_profile_{name}_instances')})")
        for name in families
    ]
    colors = {f"^{state}$": color for state, color in STATES.items()}
    return [
        rows(
            panel_text(
                "Capacity by profile",
                """Instances that exist, those of them a job could take now, how many of this
                profile alone could be created beside what exists, and how many if all idle
                instances were dissolved. Rows are not additive: profiles share slices.""",
            ),
            asked,
            [
                column("profile", "Profile", width=125),
                column("A", "There", width=90),
                column("B", "Unused", width=95),
                column("C", "Creatable", width=110),
                column("D", "If idle go", width=110),
            ],
            size=Size(width=10, height=10),
            most="There",
        ),
        series(
            panel_text("Instances by profile", "Instances that exist."),
            [query(f"{asked[0].expr} > 0", "{{profile}}")],
            "none",
            size=Size(width=7, height=10),
            stacked=True,
        ),
        series(
            panel_text(
                "Compute slices by state",
                """pinned: under instances that keep their place; idle: under instances proven
                idle; free: usable by some profile; stranded: usable by none.""",
            ),
            [query(f"sum by (state) ({on_node('gpu_compute_slices')})", "{{state}}")],
            "none",
            size=Size(width=7, height=10),
            stacked=True,
            colors=colors,
        ),
    ]


def _demand() -> list[model.Panel]:
    """Return what is wanted, what is there, and why something is missing."""
    return [
        series(
            panel_text(
                "Wanted, by size", "Instances wanted by rules of a size: in use and waiting."
            ),
            [query(by_size("rule_wanted_instances"), "{{size}}")],
            "none",
            colors=SIZE_NAMES,
        ),
        series(
            panel_text("Missing, by size", "Instances wanted that are not there, at this moment."),
            [query(by_size("rule_unmet_instances"), "{{size}}")],
            "none",
            colors=SIZE_NAMES,
            stacked=True,
        ),
        series(
            panel_text(
                "Missing, by cause",
                """Instances that stay missing after what was decided. gate: a closed gate keeps
                the change back; held: instances in use stand in the way; capacity: there are not
                enough GPUs; configuration: no GPU may serve the rule.""",
            ),
            [query(f"sum by (cause) ({on_node('rule_unmet_by_cause_instances')})", "{{cause}}")],
            "none",
            stacked=True,
            colors={"^gate$": WARN, "^held$": PLAIN, "^capacity$": FREE, "^configuration$": BAD},
        ),
    ]


def _rules() -> list[model.Panel]:
    """Return what each rule has on each node."""
    labels = "cluster, instance, rule"
    wanted, unmet = on_node("rule_wanted_instances"), on_node("rule_unmet_instances")
    there = f"{on_node('rule_in_use_instances')} + {on_node('rule_supply_instances')}"
    since = f"time() - {on_node('rule_unmet_since_timestamp_seconds')}"
    return [
        rows(
            panel_text(
                "Rules by node",
                """What each rule wants and has on each node, and for how long something has been
                missing.""",
            ),
            [
                query(f"max by ({labels}) ({wanted})"),
                query(f"max by ({labels}) ({there})"),
                query(f"max by ({labels}) ({unmet})"),
                query(f"max by ({labels}) ({since}) or max by ({labels}) ({unmet}) * 0"),
            ],
            [
                column("instance", "Node", link=_TO_NODE),
                column("rule", "Rule"),
                column("A", "Wanted"),
                column("B", "There"),
                column("C", "Missing"),
                column("D", "Missing for", "s"),
            ],
            most="Missing",
        ),
    ]


def _share(state: str) -> str:
    """Return the share of each node's memory slices that is in a state."""
    of_state = on_node("gpu_memory_slices", f'state="{state}"')
    whole = on_node("gpu_memory_slices")
    return f"sum by (instance) ({of_state}) / sum by (instance) ({whole})"


def _waste() -> list[model.Panel]:
    """Return how busy nodes are, idle and stranded slices, and fragmentation."""
    quarter = Size(width=6)
    return [
        series(
            panel_text(
                "Activity by node",
                """Share of compute slices that are busy: compute-engine activity of instances by
                their slices, room without instance counting 0. GPUs without figures are left
                out.""",
            ),
            [query(f"max by (instance) ({on_node('activity_ratio')})", "{{instance}}")],
            "percentunit",
            size=quarter,
            maximum=1,
        ),
        series(
            panel_text(
                "Idle memory by node", "Share of memory slices under instances proven idle."
            ),
            [query(_share("idle"), "{{instance}}")],
            "percentunit",
            size=quarter,
            maximum=1,
        ),
        series(
            panel_text(
                "Stranded memory by node", "Share of memory slices that no profile can use."
            ),
            [query(_share("stranded"), "{{instance}}")],
            "percentunit",
            size=quarter,
            maximum=1,
        ),
        series(
            panel_text(
                "Fragmentation by node",
                """Share of the free memory slices, averaged over profiles, that no instance of
                the profile could use. No line while nothing is free.""",
            ),
            [query(f"max by (instance) ({on_node('fragmentation_ratio')})", "{{instance}}")],
            "percentunit",
            size=quarter,
            maximum=1,
        ),
    ]


def _changes() -> list[model.Panel]:
    """Return what was done, what is blocked and by what, and the nodes."""
    scopes = {"rule_gate_closed": "rule, ", "gpu_gate_closed": "gpu, ", "gate_closed": ""}
    gates = [
        f"max by (cluster, instance, {scope}reason) ({on_node(family)} == 1)"
        for family, scope in scopes.items()
    ]
    closed = f"sum by (reason) ({' or '.join(gates)})"
    return [
        series(
            panel_text(
                "Changes of layout per hour",
                """GPU plans that ended, by direction, and plans abandoned or failed: so many in an
                hour, at the pace of the moment.""",
            ),
            [
                query(per_hour("gpu_plans_total", "direction"), "{{direction}}"),
                query(per_hour("gpu_plan_failures_total"), "abandoned or failed"),
            ],
            "short",
            colors={"^abandoned or failed$": BAD},
        ),
        gauges(
            panel_text(
                "What keeps changes back",
                "Closed gates by reason, over nodes, rules and GPUs; the ten most frequent.",
            ),
            query(f"topk (10, {closed})", "{{reason}}"),
            "none",
            steps((None, WARN)),
            nothing="Nothing is kept back.",
        ),
        rows(
            panel_text(
                "Closed gates",
                """Each gate that is closed now: for a GPU, for a rule, or for the node as a
                whole. `migscaler explain` says when it opens and who is in the way.""",
            ),
            [query(" or ".join(gates))],
            [
                column("instance", "Node", link=_TO_NODE, width=110),
                column("gpu", "GPU", width=55),
                column("rule", "Rule", width=110),
                column("reason", "Reason"),
            ],
            size=Size(width=8),
        ),
    ]


def _nodes() -> list[model.Panel]:
    """Return what each node decided last."""
    labels = "cluster, instance"
    outcome = f"max by ({labels}, outcome) ({on_node('decision_outcome')} == 1)"
    return [
        rows(
            panel_text(
                "Nodes", "What each node decided last, its GPUs, and how old its figures are."
            ),
            [
                query(outcome),
                query(f"max by ({labels}) ({on_node('gpus')})"),
                query(f"sum by ({labels}) ({on_node('gpu_instances')})"),
                query(f"sum by ({labels}) ({on_node('rule_unmet_instances')})"),
                query(f"max by ({labels}) ({on_node('paused')})"),
                query(f"time() - max by ({labels}) ({on_node('snapshot_timestamp_seconds')})"),
            ],
            [
                column("instance", "Node", link=_TO_NODE),
                column("outcome", "Last decision"),
                column("B", "GPUs"),
                column("C", "Instances"),
                column("D", "Missing"),
                column("E", "Paused", mappings=yes_no(WARN, GOOD)),
                column("F", "Age of figures", "s"),
            ],
            size=Size(width=24, height=6),
            most="Missing",
        ),
    ]
