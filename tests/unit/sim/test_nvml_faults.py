import threading
import time

import pynvml
import pytest

from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, hangs, loses_answer, slow
from tests.unit.sim.conftest import Build
from tests.unit.sim.smi_nvml import cgi, gpu, lgi

CREATE = "nvmlDeviceCreateGpuInstance"


def test_fault_strikes_the_nth_call_once(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(fails(CREATE, Code.NO_PERMISSION, nth=2))
    cgi(19)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        cgi(19)
    cgi(19)
    assert len(lgi()) == 2


def test_fault_without_end_strikes_until_cleared(build: Build) -> None:
    node = build("2xA100-SXM4-40GB")
    node.add_fault(fails("nvmlDeviceGetMigMode", Code.UNKNOWN, times=None, gpu=1))
    for _ in range(3):
        with pytest.raises(pynvml.NVMLError_Unknown):
            pynvml.nvmlDeviceGetMigMode(gpu(1))
    assert pynvml.nvmlDeviceGetMigMode(gpu(0)) == [1, 1]
    node.clear_faults()
    assert pynvml.nvmlDeviceGetMigMode(gpu(1)) == [1, 1]


def test_lost_answer_has_done_its_work(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(loses_answer(CREATE, Code.TIMEOUT))
    with pytest.raises(pynvml.NVMLError_Timeout):
        cgi(9)
    assert lgi() == [(9, 2, 4, 4)]


def test_slow_call_is_slow_and_works(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(slow(CREATE, 0.05))
    start = time.monotonic()
    cgi(9)
    assert time.monotonic() - start >= 0.05
    assert len(lgi()) == 1


def test_slow_call_works_at_once_when_cleared(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(slow(CREATE, 600.0))
    caller = threading.Thread(target=cgi, args=(9,))
    caller.start()
    caller.join(0.1)
    assert caller.is_alive()
    assert lgi() == []
    node.clear_faults()
    caller.join(60)
    assert len(lgi()) == 1


def test_hanging_call_comes_back_when_cleared(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(hangs(CREATE))
    answers: list[str] = []

    def call() -> None:
        try:
            cgi(9)
        except pynvml.NVMLError as error:
            answers.append(type(error).__name__)

    caller = threading.Thread(target=call)
    caller.start()
    caller.join(0.1)
    assert caller.is_alive()
    node.clear_faults()
    caller.join(60)
    assert answers == ["NVMLError_Timeout"]
    assert lgi() == []


def test_hang_is_bounded(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_fault(hangs(CREATE, at_most=0.03))
    with pytest.raises(pynvml.NVMLError_Timeout):
        cgi(9)
