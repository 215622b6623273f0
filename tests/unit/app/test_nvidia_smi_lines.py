"""A plan as the commands that docs/cli.md shows."""

from dataclasses import replace

from migscaler.app.nvidia_smi import command_lines
from migscaler.control.request import plan_layout
from migscaler.model.plan import Plan
from tests.builders import A100, gpu_state, snapshot


def plan(index: int, before: str, after: str) -> tuple[Plan, tuple[str, ...]]:
    gpu = gpu_state(A100, before, index=index)
    made = plan_layout(gpu, after)
    assert made is not None
    wanted = Plan(gpu_plans=(made,))
    return wanted, command_lines(wanted, snapshot(gpu))


def test_destroys_name_ids_and_creates_name_profile_id_and_start() -> None:
    _, lines = plan(2, "3g@0 3g@4", "1g@0 2g@2 3g@4")

    assert lines == (
        "nvidia-smi mig -i 2 -dci -ci 0 -gi 1",
        "nvidia-smi mig -i 2 -dgi -gi 1",
        "nvidia-smi mig -i 2 -cgi 19:0 -C",
        "nvidia-smi mig -i 2 -cgi 14:2 -C",
    )


def test_empty_gpu_gets_creates_only() -> None:
    _, lines = plan(1, "-", "3g 3g")

    assert lines == (
        "nvidia-smi mig -i 1 -cgi 9:0 -C",
        "nvidia-smi mig -i 1 -cgi 9:4 -C",
    )


def test_every_compute_instance_goes_before_its_gpu_instance() -> None:
    gpu = gpu_state(A100, "7g@0")
    (state,) = gpu.instances or ()
    instance = state.reading.instance
    (compute,) = instance.compute_instances
    two = replace(
        instance, compute_instances=(compute, replace(compute, ci_id=type(compute.ci_id)(1)))
    )
    shared = replace(gpu, instances=(replace(state, reading=replace(state.reading, instance=two)),))
    made = plan_layout(gpu, "4g@0")
    assert made is not None

    assert command_lines(Plan(gpu_plans=(made,)), snapshot(shared)) == (
        "nvidia-smi mig -i 0 -dci -ci 0 -gi 1",
        "nvidia-smi mig -i 0 -dci -ci 1 -gi 1",
        "nvidia-smi mig -i 0 -dgi -gi 1",
        "nvidia-smi mig -i 0 -cgi 5:0 -C",
    )


def test_gpu_that_the_picture_lacks_has_no_lines() -> None:
    wanted, _ = plan(0, "-", "7g")

    assert command_lines(wanted, snapshot()) == ()
