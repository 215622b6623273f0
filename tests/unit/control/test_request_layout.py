"""A layout that a person names: placed around what is in use, or refused with words."""

from dataclasses import replace

import pytest

from migscaler.control.request import plan_layout, refuse_switched_off
from migscaler.errors import CommandRefused, ParseError
from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import GpuState, PinReason
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import GpuPlan
from tests.builders import A100, gpu_state


def steps(plan: GpuPlan | None) -> list[str]:
    assert plan is not None
    return [str(step) for step in plan.steps]


def busy(text: str, *pinned: str) -> GpuState:
    return gpu_state(A100, text, dict.fromkeys(pinned, PinReason.PROCESS))


def test_named_layout_is_taken_as_it_is() -> None:
    plan = plan_layout(gpu_state(A100, "7g@0"), "3g@0 3g@4")

    assert plan is not None
    assert (str(plan.before), str(plan.after)) == ("7g.40gb@0", "3g.20gb@0 3g.20gb@4")
    assert steps(plan) == ["destroy 7g.40gb@0", "create 3g.20gb@0", "create 3g.20gb@4"]


def test_sizes_are_placed_beside_what_is_in_use() -> None:
    plan = plan_layout(busy("3g@0 3g@4", "3g@4"), "1g 1g 2g 3g")

    assert plan is not None
    assert "3g.20gb@4" in str(plan.after)
    assert plan.after.profiles() == {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}


def test_sizes_are_placed_where_least_changes() -> None:
    plan = plan_layout(gpu_state(A100, "2g@2 3g@4"), "2g 2g 3g")

    assert steps(plan) == ["create 2g.10gb@0"]


def test_exact_profile_names_are_sizes_too() -> None:
    plan = plan_layout(gpu_state(A100, "3g@0"), "3g.20gb 3g.20gb")

    assert steps(plan) == ["create 3g.20gb@4"]


def test_layout_that_is_there_already_needs_no_plan() -> None:
    assert plan_layout(gpu_state(A100, "3g@0 3g@4"), "3g 3g") is None
    assert plan_layout(gpu_state(A100, "3g@0 3g@4"), "3g@4 3g@0") is None


def test_named_layout_without_an_instance_in_use_is_refused_with_its_reason() -> None:
    gpu = busy("3g@0 3g@4", "3g@4")
    why = tuple(
        replace(state, explanation="process 4242 (python3)") if state.pin else state
        for state in gpu.instances or ()
    )

    with pytest.raises(CommandRefused) as refusal:
        plan_layout(replace(gpu, instances=why), "3g@0 2g@4")

    assert str(refusal.value) == "3g.20gb@4 on GPU 0 must stay: process 4242 (python3)"


def test_sizes_that_do_not_fit_beside_what_is_in_use_are_refused() -> None:
    with pytest.raises(CommandRefused) as refusal:
        plan_layout(busy("3g@0 1g@4", "1g@4"), "3g 3g")

    assert str(refusal.value) == "'3g 3g' does not fit beside what must stay: 1g.5gb@4 (process)"


def test_sizes_that_no_gpu_of_the_model_holds_are_refused() -> None:
    with pytest.raises(CommandRefused, match=r"^'4g 4g' does not fit on one NVIDIA A100"):
        plan_layout(gpu_state(A100, "-"), "4g 4g")


def test_unknown_pin_stays_where_it_is() -> None:
    gpu = gpu_state(A100, "7g@0", {"7g@0": PinReason.UNKNOWN})

    with pytest.raises(CommandRefused) as refusal:
        plan_layout(gpu, "3g@0 3g@4")

    assert str(refusal.value) == "7g.40gb@0 on GPU 0 must stay: unknown"


@pytest.mark.parametrize("text", ["9g", "3g@1", "3g@0 2g@2", "x@y"])
def test_text_that_is_no_layout_is_a_mistake_of_the_caller(text: str) -> None:
    with pytest.raises(ParseError):
        plan_layout(gpu_state(A100, "-"), text)


def test_gpu_without_readable_layout_is_refused() -> None:
    gpu = gpu_state(A100, "-", mig=False)
    off = replace(gpu, instances=None, reading=replace(gpu.reading, instances=None))

    with pytest.raises(CommandRefused) as refusal:
        plan_layout(off, "3g 3g")

    assert str(refusal.value) == "GPU 0 has no readable MIG layout (is MIG on?)"


def test_gpu_is_never_left_empty() -> None:
    with pytest.raises(CommandRefused) as refusal:
        plan_layout(gpu_state(A100, "3g@0"), " ")

    assert str(refusal.value) == "a GPU is never left without an instance; name a layout"


def test_refusal_for_want_of_room_names_why_each_must_stay() -> None:
    """An idle but held instance was called "in use"."""
    gpu = busy("1g@0 1g@1", "1g@0")

    with pytest.raises(CommandRefused) as refusal:
        plan_layout(gpu, "7g")

    assert str(refusal.value) == ("'7g' does not fit beside what must stay: 1g.5gb@0 (process)")


def test_hold_that_is_younger_than_the_picture_binds() -> None:
    """The plan was made, and given up at its first step with exit code 0."""
    gpu = gpu_state(A100, "3g@0 3g@4")
    whole, one = hold(gpu, None), hold(gpu, "3g@4")

    with pytest.raises(CommandRefused, match=r"GPU 0 must stay as it is: held by ada: long run; "):
        plan_layout(gpu, "7g", [whole])
    with pytest.raises(CommandRefused, match=r"beside what must stay: 3g.20gb@4 \(held by ada: lo"):
        plan_layout(gpu, "7g", [one])
    plan = plan_layout(gpu, "3g 2g", [one])

    assert "3g.20gb@4" in str(plan and plan.after)
    assert plan_layout(gpu, "3g 3g", [whole]) is None


def test_hold_of_another_gpu_binds_nothing() -> None:
    elsewhere = replace(hold(gpu_state(A100, "7g@0"), None), gpu_uuid=GpuUuid("GPU-other"))

    assert plan_layout(gpu_state(A100, "7g@0"), "3g 3g", [elsewhere]) is not None


def test_no_layout_at_all_is_refused() -> None:
    with pytest.raises(CommandRefused, match="never left without an instance"):
        plan_layout(gpu_state(A100, "7g@0"), "")


@pytest.mark.parametrize(
    ("enabled", "pending", "words"),
    [
        (False, False, "MIG mode of GPU 0 is off; first: migscaler mig-mode on --gpu 0, which"),
        (False, True, "MIG mode on of GPU 0 is pending; reset the GPU first"),
        (True, False, "MIG mode off of GPU 0 is pending; reset the GPU first"),
    ],
)
def test_gpu_whose_mig_mode_is_off_or_changing_takes_no_layout(
    enabled: bool, pending: bool, words: str
) -> None:
    gpu = gpu_state(A100, "")
    gpu = replace(gpu, reading=replace(gpu.reading, mig_enabled=enabled, mig_pending=pending))

    with pytest.raises(CommandRefused, match=words):
        refuse_switched_off(gpu)


def test_gpu_with_mig_on_takes_a_layout() -> None:
    refuse_switched_off(gpu_state(A100, "7g@0"))


def hold(gpu: GpuState, spec: str | None) -> HoldRecord:
    assert gpu.reading.model is not None
    return HoldRecord(
        hold_id=1,
        gpu_uuid=gpu.uuid,
        spec=None if spec is None else gpu.reading.model.spec(spec),
        owner="ada",
        reason="long run",
        kind="hold",
    )
