from pathlib import Path

import pytest

from migscaler.schedulers.owners import OwnerSearch, job_runtime
from migscaler.schedulers.proc import processes
from tests.unit.schedulers.host_files import HostFiles
from tests.unit.schedulers.test_bare import READING, scheduler


@pytest.fixture
def host(tmp_path: Path) -> HostFiles:
    return HostFiles(tmp_path)


def runtime(host: HostFiles) -> str | None:
    return job_runtime(processes(host.roots.proc), host.roots.run)


def found(host: HostFiles) -> tuple[str | None, str]:
    owners = OwnerSearch(host.roots).look()
    assert owners.unknown is None
    return owners.found, owners.remedy


def test_plain_host_has_no_runtime_and_no_foreign_owner(host: HostFiles) -> None:
    assert runtime(host) is None
    assert found(host) == (None, "")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("dockerd", "Docker"),
        ("containerd", "containerd"),
        ("containerd-shim", "containerd"),
        ("conmon", "Podman"),
        ("crio", "CRI-O"),
        ("slurmd", "Slurm (slurmd)"),
        ("kubelite", "Kubernetes (MicroK8s)"),
        ("raylet", "Ray (raylet)"),
        ("sbatchd", "LSF (sbatchd)"),
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
    ("name", "known", "way_out"),
    [
        ("nvidia-mig-mana", "the GPU operator's mig-manager", "nvidia.com/gpu.deploy.mig-manager"),
        ("nvidia-mig-part", "mig-parted", "nvidia-mig-manager.service"),
        ("vGPUmonitor", "HAMi", "kubectl label node NODE gpu-"),
        ("das-daemonset", "the Dynamic Accelerator Slicer", "oc delete dasoperator"),
        ("instaslice-daem", "the Dynamic Accelerator Slicer", "oc delete dasoperator"),
        ("migagent", "nos' MIG agent", "mig-agent DaemonSet"),
    ],
)
def test_owner_is_seen_by_its_process(host: HostFiles, name: str, known: str, way_out: str) -> None:
    host.process(77, name)

    words, remedy = found(host)

    assert str(words).startswith(known)
    assert str(words).endswith(f"(process 77, {name})")
    assert way_out in remedy


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (("NODE_NAME=n1", "FEATURE_GATES=DynamicMIG=true,"), "with DynamicMIG"),
        (("FEATURE_GATES=TimeSlicingSettings=true,DynamicMIG=true",), "with DynamicMIG"),
        (("FEATURE_GATES=DynamicMIG=false,",), "DynamicMIG not named in its FEATURE_GATES"),
        (("NODE_NAME=n1",), "DynamicMIG not named in its FEATURE_GATES"),
        ((), "its feature gates can't be read"),
    ],
)
def test_dra_driver_is_an_owner_and_its_gate_is_told(
    host: HostFiles, environment: tuple[str, ...], said: str
) -> None:
    host.process(77, "gpu-kubelet-plu", environment=environment)

    words, remedy = found(host)

    assert words == (
        f"the NVIDIA DRA driver (gpu-kubelet-plugin) (process 77, gpu-kubelet-plu, {said})"
    )
    assert "resources.gpus.enabled=false" in remedy


@pytest.mark.parametrize("group", ["system.slice", "systemd/system.slice"])
def test_unit_is_seen_while_it_runs(host: HostFiles, group: str) -> None:
    (host.root / "cgroup" / group / "nvidia-mig-manager.service").mkdir(parents=True)

    assert found(host) == (
        "mig-parted (nvidia-mig-manager.service is running)",
        "systemctl disable --now nvidia-mig-manager.service",
    )


@pytest.mark.parametrize("target", ["multi-user.target.wants", "multi-user.target.requires"])
def test_unit_is_seen_while_it_is_enabled(host: HostFiles, target: str) -> None:
    wants = host.root / "units" / target
    wants.mkdir()
    # Where the link leads does not matter; here it leads nowhere.
    (wants / "nvidia-mig-manager.service").symlink_to("/nowhere/nvidia-mig-manager.service")

    words, remedy = found(host)

    assert "is enabled and reshapes the GPUs at boot" in str(words)
    assert remedy == "systemctl disable --now nvidia-mig-manager.service"


def test_masked_unit_is_not_started_though_its_link_is_there(host: HostFiles) -> None:
    """`systemctl mask` leaves the link of an enabled unit, and a bare host was refused for it."""
    units = host.root / "units"
    (units / "multi-user.target.wants").mkdir()
    link = units / "multi-user.target.wants" / "nvidia-mig-manager.service"
    link.symlink_to("/lib/systemd/system/nvidia-mig-manager.service")
    (units / "nvidia-mig-manager.service").symlink_to("/dev/null")

    assert found(host) == (None, "")


def test_installed_unit_that_is_not_enabled_is_no_owner(host: HostFiles) -> None:
    (host.root / "units" / "nvidia-mig-manager.service").write_text("[Service]\n")

    assert found(host) == (None, "")


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("LSF_MANAGE_MIG=Y\n", True),
        ("LSF_MANAGE_MIG = y\n", True),
        ('  LSF_MANAGE_MIG="Y"\n', True),
        ("LSF_MANAGE_MIG=N\nLSF_MANAGE_MIG=Y\n", True),
        ("LSF_MANAGE_MIG=Y\nLSF_MANAGE_MIG=N\n", False),
        ("# LSF_MANAGE_MIG=Y\n", False),
        ("LSF_MANAGE_MIG=\n", False),
        ("LSF_GPU_AUTOCONFIG=Y\n", False),
    ],
)
@pytest.mark.parametrize("place", ["LSF_ENVDIR", "/etc"])
def test_lsf_is_an_owner_where_it_manages_mig(
    host: HostFiles, text: str, owner: bool, place: str
) -> None:
    directory = host.root / "etc" if place == "/etc" else host.root / "lsf/conf"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lsf.conf").write_text(text)
    environment = () if place == "/etc" else (f"LSF_ENVDIR={directory}",)
    host.process(77, "sbatchd", environment=environment)

    words, remedy = found(host)

    assert (words is not None) is owner
    if owner:
        assert words == "LSF with LSF_MANAGE_MIG=Y (process 77, sbatchd)"
        assert "LSF_MANAGE_MIG=N in lsf.conf" in remedy


def test_lsf_conf_without_a_daemon_is_nobody(host: HostFiles) -> None:
    (host.root / "etc" / "lsf.conf").write_text("LSF_MANAGE_MIG=Y\n")

    assert found(host) == (None, "")


def test_lsf_whose_configuration_can_not_be_read_is_not_known(host: HostFiles) -> None:
    host.process(77, "sbatchd")

    owners = OwnerSearch(host.roots).look()

    assert owners.found is None
    assert str(owners.unknown).startswith(
        "LSF runs here (process 77, sbatchd), and whether it manages MIG can't be read in "
    )
    assert "read the lsf.conf" in owners.remedy


@pytest.mark.parametrize(("text", "is_known"), [("LSF_MANAGE_MIG=Y\n", True), ("", False)])
def test_lsf_whose_environment_can_not_be_read_may_mean_another_file(
    host: HostFiles, text: str, is_known: bool
) -> None:
    """Without the rights to read it, /etc/lsf.conf can say yes, never no."""
    (host.root / "etc" / "lsf.conf").write_text(text)
    environ = host.process(77, "sbatchd") / "environ"
    environ.unlink()
    environ.mkdir()

    owners = OwnerSearch(host.roots).look()

    assert (owners.found is not None, owners.unknown is None) == (is_known, is_known)


def test_lsf_conf_is_read_once_per_daemon(host: HostFiles) -> None:
    """The file lies on a shared file system, and a change needs a restart of the daemons."""
    conf = host.root / "etc" / "lsf.conf"
    conf.write_text("LSF_MANAGE_MIG=Y\n")
    first = host.process(77, "sbatchd")
    search = OwnerSearch(host.roots)
    assert search.look().found is not None

    conf.write_text("LSF_MANAGE_MIG=N\n")
    assert search.look().found is not None
    for path in (*first.glob("fd/*"), first / "fd", first / "stat", first / "environ", first):
        path.rmdir() if path.is_dir() else path.unlink()
    host.process(99, "sbatchd")

    assert search.look().found is None


def test_several_owners_are_all_named(host: HostFiles) -> None:
    host.process(77, "nvidia-mig-mana")
    host.process(78, "nvidia-mig-part", parent=77)
    host.process(79, "nvidia-mig-part", parent=77)

    words, remedy = found(host)

    assert words == (
        "the GPU operator's mig-manager (process 77, nvidia-mig-mana); "
        "mig-parted (process 78, nvidia-mig-part)"
    )
    assert remedy.count("; ") == 2


def test_processes_that_can_not_be_listed_are_not_nobody(host: HostFiles) -> None:
    (host.root / "proc").rename(host.root / "gone")

    owners = OwnerSearch(host.roots).look()

    assert owners.found is None
    assert owners.unknown == "processes can't be listed: No such file or directory"


def test_names_with_blanks_and_brackets_are_read_whole(host: HostFiles) -> None:
    host.process(78, "tmux: server (1) x", parent=77)

    assert [(p.pid, p.name, p.parent) for p in processes(host.roots.proc) if p.pid == 78] == [
        (78, "tmux: server (1) x", 77)
    ]


def test_owner_is_sought_among_the_processes_just_read(host: HostFiles) -> None:
    looking = scheduler(host)
    looking.allocations(READING)
    assert looking.foreign_owners().found is None

    host.process(77, "nvidia-mig-mana")
    assert looking.foreign_owners().found is None
    looking.allocations(READING)

    assert "process 77" in str(looking.foreign_owners().found)


def test_owner_is_sought_also_before_allocations_were_asked_for(host: HostFiles) -> None:
    host.process(77, "nvidia-mig-mana")

    assert "process 77" in str(scheduler(host).foreign_owners().found)


def test_nobody_seen_from_a_container_is_not_nobody(host: HostFiles) -> None:
    owners = scheduler(host, sees_all=False).foreign_owners()

    assert owners.found is None
    assert "host's PID namespace" in str(owners.unknown)
