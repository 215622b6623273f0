import os
from pathlib import Path

from migscaler.hardware.host import ProcHost


def fake_proc(root: Path, processes: dict[int, str]) -> ProcHost:
    for pid, comm in processes.items():
        (root / str(pid)).mkdir()
        (root / str(pid) / "comm").write_text(comm + "\n")
    return ProcHost(root)


def test_host_is_visible_where_kernel_threads_are(tmp_path: Path) -> None:
    assert fake_proc(tmp_path, {1: "systemd", 2: "kthreadd"}).visible()


def test_container_with_its_own_pids_does_not_see_the_host(tmp_path: Path) -> None:
    assert not fake_proc(tmp_path, {1: "sh", 2: "python3"}).visible()


def test_hidden_processes_mean_the_host_is_not_visible(tmp_path: Path) -> None:
    assert not fake_proc(tmp_path, {77: "python3"}).visible()


def test_process_has_comm_and_account(tmp_path: Path) -> None:
    host = fake_proc(tmp_path, {77: "python3 train"})
    assert host.exists(77)
    name, user = host.name_and_user(77)
    assert name == "python3 train"
    assert user is not None
    assert not host.exists(78)
    assert host.name_and_user(78) == (None, None)


def test_own_process_is_found_in_the_real_proc() -> None:
    assert ProcHost().exists(os.getpid())
    assert ProcHost().name_and_user(os.getpid())[0] is not None
