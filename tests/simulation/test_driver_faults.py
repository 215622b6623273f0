"""An NVML function that fails, hangs or is slow costs its GPU, never the exporter nor a job.

What is drawn and judged is in `driver_faults`; `make crash-matrix` tries all of it.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from migscaler.sim.codes import Code
from tests.simulation.driver_faults import (
    SICK,
    WELL,
    Case,
    Delay,
    Tally,
    Ward,
    cases_of,
    drawn,
    run,
    sickbed,
)

_ROOT = Path(__file__).resolve().parents[2]
_SEED = 20261123


def show(tally: Tally) -> None:
    """Write the figures, for `make crash-matrix` and for a failed run."""
    for name in Tally.__slots__:
        if name != "wrongs":
            sys.stdout.write(f"{name}: {getattr(tally, name)}\n")
    sys.stdout.write("\n".join(tally.wrongs[:20]) + "\n")


def test_sampled_faults_cost_neither_jobs_nor_the_other_gpu() -> None:
    ward = Ward()
    cases = list(cases_of(ward.calls, ward.warm))
    tally = run(drawn(cases, _SEED, 10), ward)

    show(tally)
    assert len(ward.calls) > 40  # the functions that the loop calls
    assert len(cases) > 4_000
    assert tally.wrongs == []


@pytest.mark.parametrize(
    "case",
    [
        Case(
            function="nvmlDeviceGetMemoryInfo_v2",
            kind="fail",
            code=int(Code.LIB_RM_VERSION_MISMATCH),
            times="for ever",
        ),
        Case(
            function="nvmlGpuInstanceCreateComputeInstance",
            kind="fail",
            code=int(Code.UNKNOWN),
            times="for ever",
        ),
        Case(function="nvmlEventSetWait_v2", kind="fail", code=1, times="for ever", cold=True),
        Case(function="nvmlInitWithFlags", kind="hang", times="for ever", cold=True),
        Case(
            function="nvmlDeviceGetGpuInstanceProfileInfoV",
            kind="fail",
            code=int(Code.NOT_SUPPORTED),
            times="3 times",
            cold=True,
        ),
    ],
    ids=str,
)
def test_fault_that_once_broke_a_promise_does_not_again(case: Case) -> None:
    """What it was, in order.

    A mismatch that one GPU reported blinded the node; a create_ci that kept failing emptied a GPU;
    an event call restarted the worker at each sample; a start ended in an exception; profiles that
    the driver denied once stayed unknown, and their instances unseen.
    """
    ward = Ward()
    tally = run([case], ward)

    assert tally.wrongs == []


@pytest.mark.parametrize(
    "function",
    [
        "nvmlGpmQueryDeviceSupport",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlGpuInstanceGetComputeInstanceProfileInfoV",
    ],
)
def test_what_was_denied_at_the_start_is_seen_once_it_is_offered(function: str) -> None:
    """It was believed for the life of the worker: no activity, no process, no compute instance."""
    denied = int(Code.NOT_SUPPORTED)
    tally = run([Case(function=function, kind="fail", code=denied, cold=True)], Ward())

    assert tally.wrongs == []


@pytest.mark.parametrize(
    "case",
    [
        Case(function="nvmlGpuInstanceDestroy", kind="hang", times="for ever"),
        Case(function="nvmlDeviceCreateGpuInstanceWithPlacement", kind="slow", seconds=90.0),
        Case(function="nvmlGpuInstanceCreateComputeInstance", kind="slow", seconds=3.0),
    ],
    ids=str,
)
def test_change_that_takes_long_withholds_nothing_of_the_other_gpu(case: Case) -> None:
    """Every reading waited for it, up to 60 s, and after 15 s the node's series went."""
    tally = run([case], Ward())

    assert tally.wrongs == []
    assert tally.node_blind == 0
    assert tally.plans > 0


@pytest.mark.parametrize(
    "function", ["nvmlComputeInstanceDestroy", "nvmlDeviceCreateGpuInstanceWithPlacement"]
)
def test_call_given_up_on_that_comes_through_later_finds_its_plan_open(function: str) -> None:
    """The plan was settled by a look, and the instance made or gone after that was nobody's."""
    tally = run([Case(function=function, kind="late", seconds=200.0)], Ward())

    assert tally.wrongs == []
    assert tally.plans > 0


@pytest.mark.parametrize("function", ["nvmlDeviceGetMigMode", "nvmlInitWithFlags"])
def test_reading_whose_process_can_not_be_ended_leaves_no_second_one(function: str) -> None:
    """Each attempt left one more, until the worker's service took no connection."""
    cold = function == "nvmlInitWithFlags"
    case = Case(function=function, kind="late", seconds=400.0, times="for ever", cold=cold)
    tally = run([case], Ward())

    assert tally.wrongs == []


def test_gpu_that_is_down_shows_nothing_and_the_other_everything() -> None:
    ward = Ward()
    fault = Case(
        function="nvmlDeviceGetHandleByIndex_v2",
        kind="fail",
        code=int(Code.GPU_IS_LOST),
        times="for ever",
    )
    tally = run([fault], ward)

    assert tally.wrongs == []
    assert tally.gpu_down == 16  # at each judged moment


def test_worker_of_a_gpu_that_hangs_is_replaced_and_the_gpu_left_alone_longer_each_time() -> None:
    with sickbed() as bed:
        bed.runtime.begin()
        bed.watch(40)
        workers = bed.workers
        bed.delays.append(Delay("nvmlDeviceGetMigMode", None, None))
        began = bed.clock.monotonic()
        while bed.clock.monotonic() < began + 1_800:
            bed.cycle()
        snapshot = bed.runtime.loop.status().snapshot

    assert snapshot is not None
    assert snapshot.gpus[WELL].reading.gaps == ()
    assert snapshot.gpus[SICK].instances is None
    # 30 s, then twice as long each time, up to 10 minutes: seven attempts in half an hour.
    assert bed.workers - workers <= 7


@pytest.mark.chaos
def test_every_fault_costs_neither_jobs_nor_the_other_gpu() -> None:
    of = int(os.environ.get("WORKERS", "2"))
    words = [sys.executable, "-m", "tests.simulation.driver_faults", str(_SEED)]
    started = [
        subprocess.Popen([*words, str(share), str(of)], cwd=_ROOT, stdout=subprocess.PIPE)
        for share in range(of)
    ]
    total = Tally()
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0
        for name, value in json.loads(out).items():
            known = getattr(total, name)
            added = Counter(known) + Counter(value) if isinstance(known, Counter) else known + value
            setattr(total, name, added)

    show(total)
    assert total.wrongs == []
