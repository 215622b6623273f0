"""Panels of the Node dashboard about instances: who holds them and how busy they are."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src.look import PLAIN, STATES, words
from grafana.src.panels import series, timeline
from grafana.src.parts import Size, panel_text
from grafana.src.query import on_gpu, on_instance, query
from grafana.src.tables import column, rows

_BY = "gpu, placement, profile"
_LEGEND = "GPU {{gpu}} @{{placement}} {{profile}}"
_IDLE = words(v0=("kept", PLAIN), v1=("idle", STATES["idle"]))


def _each(family: str, *more: str) -> str:
    """Return a family of instances, one series per instance, with further labels kept."""
    return f"max by ({', '.join((_BY, *more))}) ({on_instance(family)})"


def _present(family: str) -> str:
    """Return a family of those instances only that exist at the end of the range shown.

    Every layout that ever was would otherwise leave its instances in the panel.
    """
    return f"{_each(family)} and on ({_BY}) {on_instance('instance_idle')} @ end()"


def instances() -> list[model.Panel]:
    """Return the table of instances, their idleness and activity over time."""
    used, whole = _each("instance_memory_used_bytes"), _each("instance_memory_total_bytes")
    asked = [
        _each("instance_idle"),
        _each("instance_pinned_info", "reason"),
        _each("instance_allocation_info", "holder"),
        _each("instance_processes"),
        _each("instance_graphics_activity_ratio"),
        f"{used} / {whole}",
        f"time() - {_each('instance_quiet_since_timestamp_seconds')}",
        f"time() - {_each('instance_last_activity_timestamp_seconds')}",
        f"time() - {_each('instance_held_unused_since_timestamp_seconds')}",
    ]
    return [
        rows(
            panel_text(
                "Instances",
                """Each instance: whether it is proven idle or why it keeps its place, who holds
                it, how busy it is, for how long it has shown no sign of use, and for how long it
                has been held without being used. Empty cells are not known, not zero.""",
            ),
            [query(expr) for expr in asked],
            [
                column("gpu", "GPU", width=50),
                column("placement", "Slices", width=70),
                column("profile", "Profile", width=95),
                column("A", "State", mappings=_IDLE, width=70, is_filled=True),
                column("reason", "Kept for"),
                column("holder", "Holder"),
                column("D", "Processes", width=90),
                column("E", "Activity", "percentunit", is_gauge=True),
                column("F", "Memory", "percentunit", is_gauge=True),
                column("G", "Quiet for", "s", width=95),
                column("H", "Last used", "s", width=95),
                column("I", "Held unused", "s", width=105),
            ],
            size=Size(width=24, height=12),
            least=["GPU", "Slices"],
        ),
    ]


def instances_over_time() -> list[model.Panel]:
    """Return when instances were idle, and how busy."""
    return [
        timeline(
            panel_text(
                "Kept or idle over time",
                """Blue while the instance keeps its place, light once it is proven idle. Only
                instances that exist at the end of the range.""",
            ),
            [query(_present("instance_idle"), _LEGEND)],
            _IDLE,
            size=Size(width=12, height=12),
        ),
        series(
            panel_text(
                "Activity by instance",
                """Share of time in which the instance's compute engine was busy. Only instances
                that exist at the end of the range; choose a GPU if these are too many.""",
            ),
            [query(_present("instance_graphics_activity_ratio"), _LEGEND)],
            "percentunit",
            size=Size(width=12, height=12),
            maximum=1,
        ),
    ]


def activity() -> list[model.Panel]:
    """Return how busy GPUs and profiles are."""

    def mean(title: str, about: str, expr: str) -> model.Panel:
        return series(
            panel_text(title, f"{about} Mean over the instances of a profile."),
            [query(f"avg by (profile) ({expr})", "{{profile}}")],
            "percentunit",
            maximum=1,
        )

    used, whole = (
        on_instance("instance_memory_used_bytes"),
        on_instance("instance_memory_total_bytes"),
    )
    return [
        series(
            panel_text(
                "Activity by GPU",
                """How busy the card is: compute-engine activity of its instances weighted by
                slices, room without instance counting 0. Needs figures of all its instances.""",
            ),
            [query(f"max by (gpu) ({on_gpu('gpu_activity_ratio')})", "GPU {{gpu}}")],
            "percentunit",
            maximum=1,
        ),
        mean(
            "Activity by profile",
            "Share of time in which the compute engine was busy.",
            on_instance("instance_graphics_activity_ratio"),
        ),
        mean(
            "SM activity by profile",
            "Share of SMs that were busy.",
            on_instance("instance_sm_activity_ratio"),
        ),
        mean(
            "Tensor core activity by profile",
            "Share of time in which tensor cores were busy.",
            on_instance("instance_tensor_activity_ratio"),
        ),
        mean(
            "Memory bandwidth by profile",
            "Share of the memory bandwidth that was used.",
            on_instance("instance_dram_activity_ratio"),
        ),
        mean("Memory in use by profile", "Share of memory in use.", f"{used} / {whole}"),
    ]
