"""Panels of the Policy dashboard about what was done, and what holds migscaler back."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src.look import BAD, GOOD, bad_above, words
from grafana.src.panels import figure, gauges, series, timeline
from grafana.src.parts import Size, panel_text
from grafana.src.query import on_gpu, on_node, per_hour, quantile, query

_CARD = "{{instance}} GPU {{gpu}}"


def acting() -> list[model.Panel]:
    """Return plans, their failures and their steps."""
    return [
        series(
            panel_text(
                "GPU plans per hour",
                """Plans begun and GPU plans ended, by direction (finer, coarser): so many in an
                hour, at the pace of the moment.""",
            ),
            [
                query(per_hour("gpu_plans_total", "direction"), "ended: {{direction}}"),
                query(per_hour("plans_total", "direction"), "begun: {{direction}}"),
            ],
            "none",
        ),
        series(
            panel_text("Failures per hour", "GPU plans abandoned or failed, by reason; as above."),
            [query(f"{per_hour('gpu_plan_failures_total', 'reason')} > 0", "{{reason}}")],
            "short",
            nothing="No failures.",
        ),
        series(
            panel_text(
                "Steps per hour",
                """NVML calls that changed a GPU, by kind, those that did not succeed, and GPU
                plans of which something was put back; as above.""",
            ),
            [
                query(per_hour("steps_total", "kind"), "{{kind}}"),
                query(per_hour("step_failures_total", "kind"), "failed: {{kind}}"),
                query(per_hour("rollbacks_total"), "put back"),
            ],
            "short",
            colors={"^failed": BAD},
        ),
    ]


def durations() -> list[model.Panel]:
    """Return how long things take."""
    return [
        series(
            panel_text(
                "Duration of GPU plans", "How long changing one GPU takes, median and 90 %."
            ),
            [
                query(quantile(0.5, "gpu_plan_duration_seconds"), "median"),
                query(quantile(0.9, "gpu_plan_duration_seconds"), "90 %"),
            ],
            "s",
        ),
        series(
            panel_text("Duration of steps", "How long one step takes, by kind, 90 %."),
            [query(quantile(0.9, "step_duration_seconds", "kind"), "{{kind}}")],
            "s",
        ),
        series(
            panel_text("Duration of deciding", "How long one decision takes, planning included."),
            [
                query(quantile(0.5, "plan_duration_seconds"), "median"),
                query(quantile(0.9, "plan_duration_seconds"), "90 %"),
            ],
            "s",
        ),
    ]


def aftermath() -> list[model.Panel]:
    """Return what came of it later."""
    in_range = "sum by (verdict) (increase({}[$__range]))"
    verdicts = in_range.format(on_node("idle_verdicts_total"))
    regrets = in_range.format(on_node("idle_regrets_total")).replace(
        "(verdict)", "(verdict, window_seconds)"
    )
    lost = f"sum ({on_gpu('gpu_usable_instances_lost')})"
    return [
        gauges(
            panel_text(
                "Regret",
                """Of the instances found idle (destroyed, or would have been), the share that got
                a process or allocation within the window after it; in the range shown.""",
            ),
            query(
                f"{regrets} / on (verdict) group_left () clamp_min({verdicts}, 1)",
                "{{verdict}}, {{window_seconds}} s",
            ),
            "percentunit",
            bad_above(0.05),
            size=Size(height=6),
            maximum=1,
        ),
        figure(
            panel_text("Plans settled", "Plans found open at a start and brought to an end."),
            query(f"sum ({on_node('settle_duration_seconds_count')})"),
            "none",
            width=5,
            height=6,
        ),
        figure(
            panel_text("Restores", "Times that layouts were restored after a boot."),
            query(f"sum ({on_node('restore_duration_seconds_count')})"),
            "none",
            width=5,
            height=6,
        ),
        figure(
            panel_text(
                "Usable instances lost",
                "Instances that could be used before a plan and cannot now.",
            ),
            query(lost),
            "none",
            bad_above(1),
            width=6,
            height=6,
        ),
    ]


def brakes() -> list[model.Panel]:
    """Return what makes migscaler leave GPUs alone, or may."""
    by = "instance, gpu"
    fenced = f"count by (instance) ({on_gpu('gpu_fenced_since_timestamp_seconds')})"
    nodes = f"max by (instance) ({on_node('paused')})"
    return [
        timeline(
            panel_text("Breakers", "Whether each GPU's breaker is open, after repeated failures."),
            [query(f"max by ({by}) ({on_gpu('gpu_breaker_open')})", _CARD)],
            words(v0=("closed", GOOD), v1=("open", BAD)),
            size=Size(width=12),
        ),
        series(
            panel_text("Failures in a row", "Failed plans in a row; the breaker opens at a limit."),
            [query(f"max by ({by}) ({on_gpu('gpu_consecutive_failures')})", _CARD)],
            "none",
            size=Size(width=12),
        ),
        series(
            panel_text("Budget left", "GPU plans that per_day still allows."),
            [query(f"max by (instance) ({on_node('change_budget_left')})", "{{instance}}")],
            "none",
        ),
        series(
            panel_text("Reversals", "Changes in a row against the direction of the one before."),
            [query(f"max by ({by}) ({on_gpu('gpu_reversals')})", _CARD)],
            "none",
        ),
        series(
            panel_text("Fenced GPUs", "GPUs whose instances the scheduler may not hand out now."),
            [query(f"{fenced} or {nodes} * 0", "{{instance}}")],
            "none",
        ),
    ]
