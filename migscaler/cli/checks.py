"""What the doctor looks at: each check says what is the case and, if it is wrong, the way out."""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from migscaler.model.gpu import GpuOwner, GpuState, NodeSnapshot
from migscaler.web.words import count_of, evidence_words, unseen_words

# The second is the usage of NVIDIA/gpu-admin-tools, nvidia_gpu_tools.py.
_WAYS_OUT = {
    GpuOwner.HYPERVISOR: "run migscaler on the hypervisor's host, or pass the whole GPU through",
    GpuOwner.CONFIDENTIAL_COMPUTING: "keep the GPU as it is, or switch that off: "
    "nvidia_gpu_tools.py --gpu=N --set-cc-mode=off --reset-after-cc-mode-switch",
}


class Verdict(enum.Enum):
    """Fine; to be known; keeps migscaler from its work."""

    FINE = "fine"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at the node: the subject, what was found, and what to do about it."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def fine(subject: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(subject=subject, verdict=Verdict.FINE, found=found)


def warning(subject: str, found: str, remedy: str = "") -> Check:
    """Return a check that found something to know."""
    return Check(subject=subject, verdict=Verdict.WARNING, found=found, remedy=remedy)


def problem(subject: str, found: str, remedy: str) -> Check:
    """Return a check that found what keeps migscaler from its work."""
    return Check(subject=subject, verdict=Verdict.PROBLEM, found=found, remedy=remedy)


def driver_missing(why: str) -> Check:
    """Return the check for a node that can't be read at all."""
    return problem(
        "driver",
        why,
        "install or load the NVIDIA driver (modprobe nvidia; nvidia-smi must work), and in a "
        "container give it libnvidia-ml.so.1 (NVIDIA_DRIVER_CAPABILITIES=utility)",
    )


def node_checks(snapshot: NodeSnapshot, old: str | None = None) -> Iterator[Check]:
    """Yield what the picture of the node says about the whole node; `old`: why it is not new."""
    version = snapshot.driver_version or "of unknown version"
    if old is not None:
        yield problem(
            "driver",
            f"{old}; what follows is as it was then",
            "released: migscaler resume; else it hangs: see `dmesg | grep -i -e xid -e nvrm`",
        )
    elif snapshot.gpus:
        yield fine("driver", f"{version}, {count_of(len(snapshot.gpus), 'GPU', 'GPUs')}")
    else:
        yield problem(
            "driver", f"{version}, but no GPU", "check `nvidia-smi -L` and NVIDIA_VISIBLE_DEVICES"
        )
    if snapshot.processes_visible:
        yield fine("processes", "those of the whole host are visible")
    else:
        yield problem(
            "processes",
            "the host's processes are not visible, so nothing counts as idle",
            "run in the host's PID namespace (--pid=host, hostPID: true)",
        )
    yield _owner(snapshot)
    if snapshot.allocations_known:
        yield fine("allocations", "known: leases, and what holds MIG devices open")
    else:
        yield problem(
            "allocations",
            snapshot.allocations_why,
            "stop that service on this node, or leave its GPUs in observe: it has no adapter yet",
        )


def _owner(snapshot: NodeSnapshot) -> Check:
    """Check that nobody else shapes the GPUs; nobody seen is not nobody there."""
    if snapshot.foreign_owner is not None:
        remedy = snapshot.foreign_owner_remedy or "stop or disable it on this node"
        return problem(
            "layout owner",
            f"{snapshot.foreign_owner} shapes these GPUs too; nothing is changed beside it",
            f"let only one of the two do it: {remedy}",
        )
    if snapshot.foreign_owner_unknown is not None:
        return problem(
            "layout owner",
            f"not known: {snapshot.foreign_owner_unknown}",
            (f"{snapshot.foreign_owner_remedy}; " if snapshot.foreign_owner_remedy else "")
            + "nothing is changed until that can be seen; other owners are listed in"
            " docs/operating.md",
        )
    return fine("layout owner", "no other tool shapes these GPUs")


def gpu_checks(gpu: GpuState) -> Iterator[Check]:
    """Yield what there is to say about one GPU: readable, MIG mode, and what idleness rests on."""
    reading = gpu.reading
    subject = f"GPU {reading.index}"
    if gpu.excluded is not None:
        yield problem(
            subject,
            f"it does not answer: {gpu.excluded}",
            f"see `dmesg | grep -i xid`; when idle: nvidia-smi -i {reading.index} --gpu-reset",
        )
        return
    for gap in reading.gaps:
        yield _gap(subject, gap.what, gap.why)
    if reading.foreign_owner is not None:
        remedy = _WAYS_OUT[reading.foreign_owner]
        yield problem(subject, f"left alone: {reading.foreign_owner.words}", remedy)
    yield from _orphans(subject, gpu)
    if reading.mig_enabled is None:
        yield warning(subject, f"{reading.name} is not MIG-capable; it is measured only")
    elif reading.mig_enabled != reading.mig_pending:
        wanted = "on" if reading.mig_pending else "off"
        yield warning(
            subject,
            f"MIG mode {wanted} is pending",
            f"reset it when it is idle: nvidia-smi -i {reading.index} --gpu-reset",
        )
    elif not reading.mig_enabled:
        yield warning(subject, "MIG mode is off", f"migscaler mig-mode on --gpu {reading.index}")
    elif reading.instances is None:
        yield warning(
            subject,
            "its instances can't be read: they have no metrics, and the GPU is left as it is",
            "see above what is missing; to measure instances takes the mig/config capability too",
        )
    else:
        yield fine(subject, f"{reading.name}: idleness rests on {evidence_words(reading)}")
        unseen = unseen_words(reading)
        if unseen is not None:
            yield warning(
                subject,
                unseen,
                "they count as in use; restart the dcgm-exporter, and let hooks.after_change do it",
            )


def _orphans(subject: str, gpu: GpuState) -> Iterator[Check]:
    """Yield a warning for each GPU instance without compute instance."""
    for one in gpu.instances or ():
        if not one.reading.instance.compute_instances:
            yield warning(
                subject,
                f"{one.spec} (GI {one.gi_id}) has no compute instance: nothing can run on it",
                "if no other tool is about to fill it: migscaler doctor --fix",
            )


def together(found: Iterable[Check]) -> Iterator[Check]:
    """Yield the checks of GPUs, those that say the same as one: `GPU 0, 1, 2`."""
    alike: dict[tuple[Verdict, str, str], list[str]] = {}
    for check in found:
        key = (check.verdict, check.found, check.remedy)
        alike.setdefault(key, []).append(check.subject.removeprefix("GPU "))
    for (verdict, what, remedy), indexes in alike.items():
        subject = f"GPU {', '.join(indexes)}"
        yield Check(subject=subject, verdict=verdict, found=what, remedy=remedy)


def _gap(subject: str, what: str, why: str) -> Check:
    """Return the check for something that could not be read."""
    if "NO_PERMISSION" in why:
        remedy = "run as root, or give the account the mig/config capability (see `permission`)"
    else:
        remedy = "it counts as in use until it can be read"
    return warning(subject, f"{what} can't be read: {why}", remedy)


def permission(
    euid: int, proc_root: Path, dev_root: Path, worker: Path = Path("/nonexistent")
) -> Check:
    """Check that instances may be made and destroyed: as root, or by the mig/config capability.

    Or by a privileged worker, whose socket is `worker`.

    Source: MIG User Guide, Device Nodes and Capabilities.
    """
    if euid == 0:
        return fine("permission", "root")
    if _is_socket(worker):
        return fine("permission", f"those of the NVML worker at {worker}")
    listing = proc_root / "driver/nvidia/capabilities/mig/config"
    remedy = (
        "run as root, or give the account access to the device node of the mig/config capability"
    )
    minor = _minor(listing)
    if minor is None:
        return problem("permission", f"not root, and {listing} does not exist", remedy)
    node = dev_root / f"nvidia-caps/nvidia-cap{minor}"
    try:
        with node.open("rb"):
            return fine("permission", f"the mig/config capability ({node})")
    except OSError as error:
        return problem(
            "permission",
            f"not root, and {node}: {error.strerror}",
            f"{remedy}: chown root:GROUP {node} && chmod 0440 {node}",
        )


def _is_socket(path: Path) -> bool:
    """Say whether a socket is there, as far as this account may look."""
    try:
        return path.is_socket()
    except OSError:
        return False


def capability_nodes(dev_root: Path, snapshot: NodeSnapshot) -> Check:
    """Check that device nodes of capabilities exist, without which no job can use an instance."""
    caps = dev_root / "nvidia-caps"
    if not any(gpu.reading.mig_enabled for gpu in snapshot.gpus):
        return fine("capability nodes", "not needed while MIG is off everywhere")
    if caps.is_dir() and any(caps.iterdir()):
        return fine("capability nodes", f"in {caps}")
    return warning(
        "capability nodes",
        f"none in {caps}; jobs can't open an instance without its node",
        "nvidia-modprobe makes them, or: nvidia-ctk system create-device-nodes --control-devices",
    )


def held_by(services: tuple[str, ...]) -> Check:
    """Check who holds the GPUs open, for which a destroy or a mode change can answer IN_USE."""
    if not services:
        return fine("handles", "no service known to hold GPUs open is running")
    return warning(
        "handles",
        f"{', '.join(services)} may hold GPUs open; a change can then be refused as in use "
        "with no process listed",
        "if `held_by_client` shows up, stop it for the change (hooks.after_change can restart it)",
    )


def _minor(listing: Path) -> int | None:
    """Return DeviceFileMinor of a capability, None if it is not there."""
    try:
        lines = listing.read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "DeviceFileMinor" and value.strip().isdigit():
            return int(value)
    return None
