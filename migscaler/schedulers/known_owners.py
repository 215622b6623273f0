"""Programs that change MIG layouts themselves: what they are called, and how to end that.

Processes go by the kernel's name (comm), cut after 15 characters. Each name comes from the source
given beside it; a renamed build is not recognized.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOwner:
    """A program that shapes GPUs: its processes, its name for people, and the way out."""

    processes: tuple[str, ...]
    name: str
    remedy: str


MIG_MANAGER_UNIT = "nvidia-mig-manager.service"
"""mig-parted's systemd unit. Source: NVIDIA/mig-parted deployments/systemd/."""

# NVIDIA/gpu-operator assets/state-mig-manager/0600_daemonset.yaml, controllers/state_manager.go:
# the DaemonSet runs on nodes with this label. The wish itself is the label nvidia.com/mig.config,
# which only the Kubernetes API shows.
MIG_MANAGER = KnownOwner(
    processes=("nvidia-mig-mana",),  # nvidia-mig-manager, NVIDIA/mig-parted cmd/nvidia-mig-manager
    name="the GPU operator's mig-manager",
    remedy="kubectl label node NODE nvidia.com/gpu.deploy.mig-manager=false --overwrite",
)

# A single run; started by mig-manager, by the systemd unit, by HAMi, or by hand.
# NVIDIA/mig-parted cmd/nvidia-mig-parted.
MIG_PARTED = KnownOwner(
    processes=("nvidia-mig-part", "mig-parted"),
    name="mig-parted",
    remedy="let it end; then end what starts it (mig-manager, "
    f"systemctl disable --now {MIG_MANAGER_UNIT}, HAMi, a cron job)",
)

# kubernetes-sigs/dra-driver-nvidia-gpu deployments/helm/.../templates/kubeletplugin.yaml: command
# gpu-kubelet-plugin; its feature gates are in the environment variable FEATURE_GATES.
DRA_DRIVER = KnownOwner(
    processes=("gpu-kubelet-plu",),
    name="the NVIDIA DRA driver (gpu-kubelet-plugin)",
    remedy="keep its kubelet plugin off this node (kubeletPlugin.affinity), or "
    "helm upgrade with resources.gpus.enabled=false",
)

# Project-HAMi/HAMi charts/hami/templates/device-plugin/daemonsetnvidia.yaml: the monitor beside its
# device plugin, which itself is called nvidia-device-plugin like NVIDIA's. docs/dynamic-mig-
# support.md: with operatingmode "mig" it reshapes GPUs by mig-parted.
HAMI = KnownOwner(
    processes=("vGPUmonitor",),
    name="HAMi, which reshapes GPUs where its operatingmode is mig",
    remedy="kubectl label node NODE gpu- (its nvidiaNodeSelector is gpu=on)",
)

# openshift/instaslice-operator cmd/das-daemonset, before that cmd/instaslice-daemonset.
DAS = KnownOwner(
    processes=("das-daemonset", "instaslice-daem"),
    name="the Dynamic Accelerator Slicer (DAS, InstaSlice)",
    remedy="oc delete dasoperator cluster -n das-operator; it can't leave single nodes out",
)

# nebuly-ai/nos build/migagent/Dockerfile, config/migagent/manager/mig_agent.yaml.
NOS = KnownOwner(
    processes=("migagent",),
    name="nos' MIG agent",
    remedy="remove the label that nos partitions this node by, or its mig-agent DaemonSet",
)

KNOWN_OWNERS = (MIG_MANAGER, MIG_PARTED, DRA_DRIVER, HAMI, DAS, NOS)

LSF_DAEMONS = ("sbatchd", "mbatchd", "lim")
"""IBM Spectrum LSF, quick reference: batch daemons and load information manager."""
LSF_SWITCH = "LSF_MANAGE_MIG"
"""With Y, LSF makes and removes instances as jobs need them. Source: lsf.conf reference."""
LSF = KnownOwner(
    processes=LSF_DAEMONS,
    name=f"LSF with {LSF_SWITCH}=Y",
    remedy=f"when no MIG job runs: {LSF_SWITCH}=N in lsf.conf, then restart the LSF daemons",
)
LSF_UNREAD_REMEDY = "let migscaler read the lsf.conf of these daemons, or end them on this node"
