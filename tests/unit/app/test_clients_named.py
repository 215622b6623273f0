"""Who keeps a GPU busy: its processes by name, then the host's services that hold devices."""

from pathlib import Path

from migscaler.app.clients import client_finder, known_services
from migscaler.model.gpu import GpuProcess
from tests.builders import A100, gpu_reading, instance_reading, spec


def host(root: Path, *names: str) -> Path:
    for pid, name in enumerate(names, start=100):
        (root / str(pid)).mkdir()
        (root / str(pid) / "comm").write_text(f"{name}\n")
    return root


def test_services_are_named_once_and_in_order(tmp_path: Path) -> None:
    proc = host(
        tmp_path, "nv-hostengine", "Xorg", "bash", "dcgm-exporter", "nvsm_core", "nvsm_core"
    )

    assert known_services(proc) == (
        "DCGM (nvidia-dcgm.service)",
        "NVSM (nvsm.service)",
        "dcgm-exporter",
        "the X server",
    )


def test_name_is_matched_as_the_kernel_cuts_it(tmp_path: Path) -> None:
    proc = host(tmp_path, "nvsm_api_gatewa", "nvidia-persiste")

    assert known_services(proc) == ("NVSM (nvsm.service)", "nvidia-persistenced")


def test_process_that_ended_while_looking_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "comm").mkdir()

    assert known_services(host(tmp_path, "dcgm-exporter")) == ("dcgm-exporter",)


def test_processes_of_gpu_and_instances_come_before_services(tmp_path: Path) -> None:
    half = instance_reading(
        spec(A100, "3g@0"),
        processes=(GpuProcess(pid=7, name="train.py"), GpuProcess(pid=8)),
    )
    twice = instance_reading(
        spec(A100, "3g@4"), gi_id=2, processes=(GpuProcess(pid=7, name="train.py"),)
    )
    gpu = gpu_reading(A100, readings=(half, twice))

    assert client_finder(host(tmp_path, "nv-hostengine"))(gpu) == (
        "train.py (pid 7)",
        "a process (pid 8)",
        "DCGM (nvidia-dcgm.service)",
    )


def test_gpu_that_nobody_uses_has_no_clients(tmp_path: Path) -> None:
    assert client_finder(tmp_path)(gpu_reading(A100, "3g@0")) == ()
