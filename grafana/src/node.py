"""The Node dashboard: each GPU's layout now and over time, its instances, and the hardware."""

from grafana_foundation_sdk.models import dashboard as model

from grafana.src import shell
from grafana.src.look import BAD, FREE, GOOD, bad_above, layouts, slices, yes_no
from grafana.src.node_instances import activity, instances, instances_over_time
from grafana.src.panels import figure, series, timeline
from grafana.src.parts import Size, panel_text
from grafana.src.query import named_gpu, on_gpu, on_instance, on_node, query
from grafana.src.tables import column, rows, strip

_YES_NO = yes_no(GOOD, FREE)


def node() -> model.Dashboard:
    """Return the dashboard."""
    return shell.assemble(
        "migscaler-node",
        "migscaler / Node",
        "One node: the layout of each GPU now and over time, its instances, and who holds them.",
        [*shell.places(one_node=True), shell.gpu(), shell.profile(by_gpu=True)],
        [
            shell.Section(title="Now", panels=[*_now(), *_layout_now(), *_gpus()]),
            shell.Section(title="Instances", panels=[*instances(), *instances_over_time()]),
            shell.Section(title="Activity", panels=activity()),
            shell.Section(title="Layout over time", panels=_layout_over_time()),
            shell.Section(title="Hardware", panels=[*_hardware(), *_hardware_rare()]),
        ],
    )


def _now() -> list[model.Panel]:
    """Return the figures on top."""
    pinned = on_gpu("gpu_compute_slices", 'state="pinned"')
    free = on_instance("gpu_profile_unused_instances")
    return [
        figure(
            panel_text(
                "Last decision",
                "What the last decision came to: a plan, or the reason why nothing is done.",
            ),
            query(f"max by (outcome) ({on_node('decision_outcome')} == 1)", "{{outcome}}"),
            "none",
            width=6,
            names=True,
        ),
        figure(panel_text("GPUs", "GPUs of the node."), query(f"sum ({on_node('gpus')})"), "none"),
        figure(
            panel_text("Instances", "GPU instances that exist."),
            query(f"sum ({on_gpu('gpu_instances')})"),
            "none",
        ),
        figure(
            panel_text("Unused instances", "Instances that a job could take now."),
            query(f"sum ({free})"),
            "none",
        ),
        figure(
            panel_text(
                "Compute in use", "Compute slices of instances that keep their place, of all."
            ),
            query(f"sum ({pinned}) / sum ({on_gpu('gpu_compute_slices')})"),
            "percentunit",
        ),
        figure(
            panel_text("Power", "Power draw of all GPUs."),
            query(f"sum ({on_gpu('gpu_power_watts')})"),
            "watt",
        ),
        figure(
            panel_text("Age of figures", "Time since the sample behind all hardware figures."),
            query(f"time() - max ({on_node('snapshot_timestamp_seconds')})"),
            "s",
            bad_above(60),
        ),
    ]


def _layout_now() -> list[model.Panel]:
    """Return the strips of slices."""
    cover = f"max by (gpu, slice) ({named_gpu(on_gpu('gpu_slice_cover'))})"
    return [
        strip(
            panel_text(
                "Layout now",
                """Memory slices of each GPU and the size of the instance that covers each. Equal
                neighbors may be one instance or several: the table beside it says which.""",
            ),
            query(cover),
            slices(),
            label="gpu",
            slot="slice",
            title="GPU",
            size=Size(width=8, height=11),
        ),
    ]


def _gpus() -> list[model.Panel]:
    """Return the table of GPUs."""
    wanted = f'label_replace({on_gpu("gpu_wanted_layout_info")}, "wanted", "$1", "layout", "(.*)")'
    other = f"max by (gpu) ({on_gpu('gpu_layout_as_wanted')}) == 0"
    model_of = f'label_replace({on_gpu("gpu_info")}, "model", "$1", "model", "NVIDIA (.*)")'
    mode = f"max by (gpu, mode) ({on_gpu('gpu_mode')} == 1)"
    asked = [
        f"max by (gpu, model) ({model_of})",
        mode,
        f"max by (gpu, layout) ({on_gpu('gpu_layout_info')})",
        f"max by (gpu, wanted) ({wanted}) and on (gpu) {other}",
        f"max by (gpu) ({on_gpu('gpu_mig_enabled')})",
        f"time() - max by (gpu) ({on_gpu('gpu_layout_changed_timestamp_seconds')})",
        f"max by (gpu, source) ({on_gpu('gpu_activity_source_info')})",
        f"max by (gpu) ({on_gpu('dcgm_unseen_instances')})",
    ]
    return [
        rows(
            panel_text(
                "GPUs",
                """Layout there (profile@first slice), the wanted one if it is another, and what
                may be done. No mode: it is not managed. Activity: where its figures come from;
                with none, idleness rests on processes, allocations and memory. Unseen: instances
                that DCGM should tell of and does not; their activity is unknown, so they stay.""",
            ),
            [query(expr) for expr in asked],
            [
                column("gpu", "GPU", width=50),
                column("model", "Model", width=150),
                column("mode", "Mode", width=75),
                column("E", "MIG", mappings=_YES_NO, width=50),
                column("F", "Changed", "s", width=85),
                column("source", "Activity", width=75),
                column("H", "Unseen", width=65),
                column("layout", "Layout"),
                column("wanted", "Wanted instead"),
            ],
            size=Size(width=16, height=11),
            least=["GPU"],
        ),
    ]


def _layout_over_time() -> list[model.Panel]:
    """Return layouts as text, and each GPU's slices, over time."""
    layout = f"max by (gpu, layout) ({named_gpu(on_gpu('gpu_layout_info'))})"
    cover = f"max by (slice) ({on_gpu('gpu_slice_cover')})"
    return [
        timeline(
            panel_text(
                "Layouts over time",
                """Layout of each GPU in canonical text, colored by its largest instance. Gaps:
                no sample, or a change under way.""",
            ),
            [query(layout)],
            layouts(),
            matrix=("gpu", "layout"),
            values=True,
            size=Size(width=24, height=10),
        ),
        timeline(
            panel_text(
                "GPU $gpu: slices over time",
                "Per memory slice the size of the instance that covers it; gray is free.",
            ),
            [query(cover, "slice {{slice}}")],
            slices(),
            repeat="gpu",
            size=Size(width=12, height=7),
        ),
    ]


def _hardware() -> list[model.Panel]:
    """Return what concerns the cards themselves."""
    memory = f"{on_gpu('gpu_memory_used_bytes')} / {on_gpu('gpu_memory_total_bytes')}"
    return [
        series(
            panel_text("Power by GPU", "Power draw of each GPU."),
            [query(f"max by (gpu) ({on_gpu('gpu_power_watts')})", "GPU {{gpu}}")],
            "watt",
        ),
        series(
            panel_text("Temperature by GPU", "Temperature of the GPU."),
            [query(f"max by (gpu) ({on_gpu('gpu_temperature_celsius')})", "GPU {{gpu}}")],
            "celsius",
        ),
        series(
            panel_text("Memory in use by GPU", "Memory in use, of the whole GPU's."),
            [query(f"max by (gpu) ({memory})", "GPU {{gpu}}")],
            "percentunit",
            maximum=1,
        ),
    ]


def _hardware_rare() -> list[model.Panel]:
    """Return what only some cards have, and errors."""
    errors = f"sum by (gpu) ({on_gpu('gpu_ecc_uncorrected_errors_total')})"
    xid = f"time() - max by (gpu, xid) ({on_gpu('gpu_xid_last_timestamp_seconds')})"
    return [
        series(
            panel_text(
                "Utilization of GPUs without MIG",
                "Share of time in which the GPU was busy; NVML has it only while MIG is off.",
            ),
            [query(f"max by (gpu) ({on_gpu('gpu_utilization_ratio')})", "GPU {{gpu}}")],
            "percentunit",
            maximum=1,
        ),
        series(
            panel_text("SM clock by GPU", "Clock of the streaming multiprocessors."),
            [query(f"max by (gpu) ({on_gpu('gpu_sm_clock_hertz')})", "GPU {{gpu}}")],
            "hertz",
        ),
        rows(
            panel_text(
                "Errors",
                """Uncorrectable memory errors since the driver was loaded, GPUs that do not
                answer, and how long ago the last XID error was.""",
            ),
            [
                query(f"max by (gpu) ({on_gpu('gpu_up')})"),
                query(errors),
                query(xid),
            ],
            [
                column("gpu", "GPU", width=50),
                column("A", "Answers", mappings=yes_no(GOOD, BAD)),
                column("B", "Memory errors"),
                column("xid", "Last XID"),
                column("C", "XID ago", "s"),
            ],
            size=Size(width=8),
            least=["GPU"],
        ),
    ]
