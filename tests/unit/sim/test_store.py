"""The directory of a simulated node, read by several processes."""

from pathlib import Path

from migscaler.sim.node import build_node, open_node


def test_line_of_the_call_log_that_is_half_written_is_left_for_later(tmp_path: Path) -> None:
    """The kernel shows a reader the first page of a write before the second."""
    build_node("A30", directory=tmp_path).foreign_create(0, "2g@0")
    log = tmp_path / "calls.jsonl"
    whole = log.read_text()
    log.write_text(whole[:-20])

    (first,) = open_node(tmp_path).call_log()
    log.write_text(whole)
    calls = open_node(tmp_path).call_log()

    assert first.function == "nvmlDeviceCreateGpuInstanceWithPlacement"
    assert [call.function for call in calls] == [
        first.function,
        "nvmlGpuInstanceCreateComputeInstance",
    ]
