import os
import pwd
from pathlib import Path

from migscaler.hardware.host import ProcHost, may_be_signalled
from migscaler.model.process import Container, HostProcess


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


def test_process_has_comm_account_and_container(tmp_path: Path) -> None:
    host = fake_proc(tmp_path, {77: "python3 train"})
    (tmp_path / "77" / "cgroup").write_text(f"0::/system.slice/docker-{64 * 'a'}.scope\n")

    found = host.process(77)

    assert host.exists(77)
    assert found.name == "python3 train"
    assert found.user == pwd.getpwuid(os.getuid()).pw_name
    assert found.container == Container(container_id=64 * "a", runtime="docker")


def test_name_that_orders_a_terminal_about_is_written_out(tmp_path: Path) -> None:
    assert fake_proc(tmp_path, {77: "\x1b[2Jpwn"}).process(77).name == r"\x1b[2Jpwn"


def test_nothing_is_told_of_a_process_that_ended(tmp_path: Path) -> None:
    host = fake_proc(tmp_path, {77: "python3"})

    assert not host.exists(78)
    assert host.process(78) == HostProcess()


def test_process_without_readable_control_group_is_in_no_container(tmp_path: Path) -> None:
    assert fake_proc(tmp_path, {77: "python3"}).process(77).container is None


def test_own_process_is_found_in_the_real_proc() -> None:
    assert ProcHost().exists(os.getpid())
    assert ProcHost().process(os.getpid()).name is not None


def test_process_that_proc_hides_is_still_there(tmp_path: Path) -> None:
    """With hidepid, others' leases would else end while their owners live."""
    assert ProcHost().exists(os.getpid())
    assert not ProcHost().exists(2**22 + 1)
    assert not ProcHost(tmp_path).exists(os.getpid())
    assert may_be_signalled(os.getpid())
    assert may_be_signalled(1)
    assert not may_be_signalled(2**22 + 1)
    assert not may_be_signalled(2**70)
    assert not may_be_signalled(0)
