"""Lays out a host's /proc, /run and units in a directory, as far as the bare scheduler looks."""

import socket
from dataclasses import dataclass
from pathlib import Path

from migscaler.schedulers.owners import HostRoots

OWN_PID = 4000


@dataclass
class HostFiles:
    """A host that can be filled with processes and sockets."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("proc", "run", "cgroup", "units", "etc"):
            (self.root / name).mkdir()
        self.process(1, "systemd", parent=0)
        self.process(OWN_PID, "migscaler")

    @property
    def roots(self) -> HostRoots:
        return HostRoots(
            proc=self.root / "proc",
            run=self.root / "run",
            cgroup=self.root / "cgroup",
            units=self.root / "units",
            etc=self.root / "etc",
        )

    def process(
        self,
        pid: int,
        name: str,
        *,
        parent: int = 1,
        files: tuple[str, ...] = (),
        environment: tuple[str, ...] = (),
    ) -> Path:
        """Add a process; files are the targets of its open descriptors."""
        directory = self.root / "proc" / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560 0\n")
        (directory / "environ").write_bytes("\0".join(environment).encode())
        for number, target in enumerate(files):
            (directory / "fd" / str(number)).symlink_to(target)
        return directory

    def mig_minors(self, text: str) -> None:
        """Write the driver's map of capability nodes."""
        path = self.root / "proc" / "driver" / "nvidia-caps" / "mig-minors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def socket(self, name: str) -> None:
        """Make a socket below /run."""
        path = self.root / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
