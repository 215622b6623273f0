"""A process as its host shows it: name, account, and the container that it runs in."""

from dataclasses import dataclass

SHORT_ID = 12
"""Characters of a container id that people are shown, as in `docker ps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The innermost container of a process.

    `container_id` is the runtime's whole id. `runtime` (docker, containerd, cri-o, podman) and
    `pod_uid` are None where the control group does not tell them.
    """

    container_id: str
    runtime: str | None = None
    pod_uid: str | None = None

    @property
    def short_id(self) -> str:
        """Return the id as people are shown it."""
        return self.container_id[:SHORT_ID]

    def __str__(self) -> str:
        """Return `docker 4f797c539e6c`, with `of pod UID` where there is one."""
        words = f"{self.runtime or 'container'} {self.short_id}"
        return words if self.pod_uid is None else f"{words} of pod {self.pod_uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProcess:
    """What the host shows of a process; None where not readable. Never its arguments.

    `name` is the kernel's comm, `user` the account, its number where it has no name. `container` is
    also None for a process outside any container.
    """

    name: str | None = None
    user: str | None = None
    container: Container | None = None
