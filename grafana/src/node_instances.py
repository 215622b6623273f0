"""Panels of the Node dashboard about instances: who holds them and how busy they are."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src.look import GOOD, PLAIN, words
from grafana.src.panels import series, timeline
from grafana.src.parts import Size, panel_text
from grafana.src.query import on_gpu, on_instance, query
from grafana.src.tables import column, rows

_BY = "gpu, placement, profile"
_LEGEND = "GPU {{gpu}} {{profile}} @{{placement}}"
_IDLE = words(v0=("kept", PLAIN), v1=("idle", GOOD))


def _each(family: str, *more: str) -> str:
    """Return a family of instances, one series per instance, with further labels kept."""
    return f"max by ({', '.join((_BY, *more))}) ({on_instance(family)})"


def _memory() -> str:
    """Return the share of each instance's memory that is in use."""
    return f"{_each('instance_memory_used_bytes')} / {_each('instance_memory_total_bytes')}"


def instances() -> list[model.Panel]:
    """Return the table of instances, and idleness over time."""
    asked = [
        _each("instance_idle"),
        _each("instance_pinned_info", "reason"),
        _each("instance_allocation_info", "holder"),
        _each("instance_processes"),
        _each("instance_sm_activity_ratio"),
        _memory(),
        f"time() - {_each('instance_quiet_since_timestamp_seconds')}",
        f"time() - {_each('instance_last_activity_timestamp_seconds')}",
    ]
    return [
        rows(
            panel_text(
                "Instances",
                """Each instance: whether it is proven idle or why it keeps its place, who holds
                it, how busy it is, and for how long it has shown no sign of use. Empty cells are
                not known, not zero.""",
            ),
            [query(expr) for expr in asked],
            [
                column("gpu", "GPU", width=50),
                column("placement", "Slices", width=70),
                column("profile", "Profile", width=90),
                column("A", "State", mappings=_IDLE, width=70),
                column("reason", "Kept for"),
                column("holder", "Holder"),
                column("D", "Processes", width=80),
                column("E", "SM activity", "percentunit", is_gauge=True),
                column("F", "Memory", "percentunit", is_gauge=True),
                column("G", "Quiet for", "s"),
                column("H", "Last used", "s"),
            ],
            size=Size(width=24, height=11),
        ),
        timeline(
            panel_text(
                "Kept or idle over time",
                "Blue while the instance keeps its place, green once it is proven idle.",
            ),
            [query(_each("instance_idle"), _LEGEND)],
            _IDLE,
            size=Size(width=12, height=10),
        ),
        series(
            panel_text(
                "Quiet time",
                """Time since the last sign of use. Counting starts at the end of the last sign;
                instances in use have no line.""",
            ),
            [query(asked[6], _LEGEND)],
            "s",
            size=Size(width=12, height=10),
        ),
    ]


def activity() -> list[model.Panel]:
    """Return how busy instances are."""

    def one(title: str, about: str, family: str) -> model.Panel:
        return series(
            panel_text(title, about),
            [query(_each(family), _LEGEND)],
            "percentunit",
            size=Size(width=8, height=9),
            maximum=1,
        )

    return [
        series(
            panel_text(
                "SM activity by GPU",
                """Instances weighted by compute slices, idle room counting 0: how busy the card
                is. Needs figures for all of a GPU's instances.""",
            ),
            [query(f"max by (gpu) ({on_gpu('gpu_sm_activity_ratio')})", "GPU {{gpu}}")],
            "percentunit",
            size=Size(width=8, height=9),
            maximum=1,
        ),
        one(
            "SM activity",
            "Share of the instance's SMs that were busy.",
            "instance_sm_activity_ratio",
        ),
        one(
            "Graphics engine activity",
            "Share of time in which the instance's compute engine was busy.",
            "instance_graphics_activity_ratio",
        ),
        one(
            "Tensor core activity",
            "Share of time in which the instance's tensor cores were busy.",
            "instance_tensor_activity_ratio",
        ),
        one(
            "Memory bandwidth",
            "Share of the instance's memory bandwidth that was used.",
            "instance_dram_activity_ratio",
        ),
        series(
            panel_text("Memory in use", "Memory in use, of the instance's own."),
            [query(_memory(), _LEGEND)],
            "percentunit",
            size=Size(width=8, height=9),
            maximum=1,
        ),
    ]
