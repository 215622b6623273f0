"""Which container a process runs in, by the text of its `/proc/PID/cgroup`.

One line per hierarchy, `NUMBER:CONTROLLERS:PATH`; version 2 has the line `0::PATH` only. Runtimes
put a container's id, 64 hexadecimal digits, into one part of the path:

    /docker/ID    /system.slice/docker-ID.scope        docker, cgroupfs and systemd
    /kubepods/burstable/podUID/ID                      kubelet with cgroupfs, any runtime
    /kubepods.slice/.../kubepods-podUID.slice/cri-containerd-ID.scope    kubelet with systemd
    /.../kubepods-podUID.slice:cri-containerd:ID       the same, containerd without SystemdCgroup
    /.../crio-ID.scope    /machine.slice/libpod-ID.scope/container       cri-o, podman

Transcribed from hosts by programs that read them: neuvector/neuvector `share/system/cgroup_test.go`
(Docker on four systems, containerd 1.2 and 1.4, cri-o 1.17 and 1.19), Datadog's tracers, tracee. A
path is relative to the reader's own control group: from a container with a group namespace of its
own it starts with `/..`, and its end is the same.
"""

import re

from migscaler.model.process import Container

# A part of the path that ends in an id; what stands before it names the runtime.
_PART = re.compile(r"^(?:.*[:-])?([0-9a-f]{64})(?:\.scope)?$")
_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
}
# Helpers that runtimes run beside a container, in a group that also carries its id.
_MONITOR = "conmon"
# A pod's UID, systemd writing its dashes as underscores; that of a static pod is 32 digits.
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})")


def container_of(text: str) -> Container | None:
    """Return the innermost container that the groups of a process name, None outside of any.

    Hierarchies of version 1 may lie differently, so the first that names a container counts.
    """
    for line in text.splitlines():
        path = line.split(":", 2)[-1].strip()
        found = _in_path(path)
        if found is not None:
            return found
    return None


def _in_path(path: str) -> Container | None:
    """Return the container that a path names last; a container may run others in it."""
    parts = path.split("/")
    for place in range(len(parts) - 1, -1, -1):
        match = _PART.match(parts[place])
        if match is None:
            continue
        before = parts[place][: match.start(1)].rstrip("-:")
        if before.endswith(_MONITOR):
            return None
        outer = parts[place - 1] if not before and place else ""
        return Container(
            container_id=match[1],
            runtime=_RUNTIMES.get(before.rsplit(":", 1)[-1] or outer),
            pod_uid=_pod_in(parts[: place + 1]),
        )
    return None


def _pod_in(parts: list[str]) -> str | None:
    """Return the pod of the last part that names one."""
    for part in reversed(parts):
        match = _POD.search(part)
        if match is not None:
            return match[1].replace("_", "-")
    return None
