from pathlib import Path

import pytest

from migscaler.schedulers.owners import foreign_owner, job_runtime
from migscaler.schedulers.proc import processes
from tests.unit.schedulers.host_files import HostFiles
from tests.unit.schedulers.test_bare import READING, scheduler


@pytest.fixture
def host(tmp_path: Path) -> HostFiles:
    return HostFiles(tmp_path)


def runtime(host: HostFiles) -> str | None:
    return job_runtime(processes(host.roots.proc), host.roots.run)


def test_plain_host_has_no_runtime_and_no_foreign_owner(host: HostFiles) -> None:
    assert runtime(host) is None
    assert foreign_owner(host.roots) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("dockerd", "Docker"),
        ("containerd", "containerd"),
        ("containerd-shim", "containerd"),
        ("conmon", "Podman"),
        ("crio", "CRI-O"),
        ("slurmd", "Slurm (slurmd)"),
        ("kubelet", "Kubernetes (kubelet)"),
        ("k3s-server", "Kubernetes (k3s)"),
    ],
)
def test_runtime_is_seen_by_its_process(host: HostFiles, name: str, known: str) -> None:
    host.process(77, name)

    assert runtime(host) == f"{known} runs here (process 77, {name})"


def test_runtime_is_seen_by_the_socket_that_starts_it(host: HostFiles) -> None:
    host.socket("docker.sock")

    assert str(runtime(host)).startswith("Docker can be started here (")


def test_plain_file_is_no_socket(host: HostFiles) -> None:
    (host.root / "run" / "docker.sock").write_text("")

    assert runtime(host) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("nvidia-mig-mana", "nvidia-mig-manager"),
        ("nvidia-mig-part", "nvidia-mig-parted"),
        ("gpu-kubelet-plu", "the NVIDIA DRA driver"),
    ],
)
def test_foreign_owner_is_seen_by_its_process(host: HostFiles, name: str, known: str) -> None:
    host.process(77, name)

    assert str(foreign_owner(host.roots)).startswith(f"{known}")
    assert "process 77" in str(foreign_owner(host.roots))


@pytest.mark.parametrize("group", ["system.slice", "systemd/system.slice"])
def test_foreign_owner_is_seen_while_its_unit_runs(host: HostFiles, group: str) -> None:
    (host.root / "cgroup" / group / "nvidia-mig-manager.service").mkdir(parents=True)

    assert foreign_owner(host.roots) == (
        "nvidia-mig-manager.service is running; "
        "run: systemctl disable --now nvidia-mig-manager.service"
    )


def test_foreign_owner_is_seen_while_its_unit_is_enabled(host: HostFiles) -> None:
    wants = host.root / "units" / "multi-user.target.wants"
    wants.mkdir()
    # Where the link leads does not matter; here it leads nowhere.
    (wants / "nvidia-mig-manager.service").symlink_to("/nowhere/nvidia-mig-manager.service")

    assert "is enabled and reshapes the GPUs at boot" in str(foreign_owner(host.roots))


def test_names_with_blanks_and_brackets_are_read_whole(host: HostFiles) -> None:
    host.process(78, "tmux: server (1) x", parent=77)

    assert [(p.pid, p.name, p.parent) for p in processes(host.roots.proc) if p.pid == 78] == [
        (78, "tmux: server (1) x", 77)
    ]


def test_owner_is_sought_among_the_processes_just_read(host: HostFiles) -> None:
    looking = scheduler(host)
    looking.allocations(READING)
    assert looking.foreign_owner() is None

    host.process(77, "nvidia-mig-mana")
    assert looking.foreign_owner() is None
    looking.allocations(READING)

    assert str(looking.foreign_owner()).startswith("nvidia-mig-manager runs (process 77)")


def test_owner_is_sought_also_before_allocations_were_asked_for(host: HostFiles) -> None:
    host.process(77, "nvidia-mig-mana")

    assert str(scheduler(host).foreign_owner()).startswith("nvidia-mig-manager runs (process 77)")
