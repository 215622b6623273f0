"""A dcgm-exporter for a simulated node, with the real one's blindness after a layout change.

It reads the layout when it starts and at `reread` (SIGHUP), and keeps that list: an instance made
since is not shown, one that is gone goes on with its last figures, also when another instance has
taken its id. Source: NVIDIA/dcgm-exporter, issues 53 and 216.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState
from migscaler.sim.telemetry import instance_activity

OLD_NAMES = (
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
)
NEW_NAMES = (
    "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO",
    "DCGM_FI_PROF_SM_UTIL_RATIO",
    "DCGM_FI_PROF_TENSOR_UTIL_RATIO",
    "DCGM_FI_PROF_DRAM_UTIL_RATIO",
)
# Share of the job's activity that each series shows, the same as GPM's (`calls_gpm`).
_SHARES = (1.0, 0.9, 0.5, 0.6)


@dataclass(slots=True)
class _Entry:
    """One instance of the list; `labels` as they were read, `activity` as last measured."""

    gpu_uuid: str
    gi_id: int
    born: int
    labels: str
    activity: float = 0.0


class DcgmExporter:
    """Gives the exporter's page; may be used from several threads.

    `renamed` shows DCGM 4.6's names, and `hostname` instead of `Hostname`. `without` names series
    that the list of counters leaves out (the default one has no SM_ACTIVE).
    """

    def __init__(
        self,
        node: SimNode,
        *,
        host: str = "simulated",
        renamed: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> None:
        """Read the layout for the first time."""
        self._node = node
        self._host = f'{"hostname" if renamed else "Hostname"}="{host}"'
        self._names = NEW_NAMES if renamed else OLD_NAMES
        self._without = without
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self.reread()

    def reread(self) -> None:
        """Read the layout anew, as a restart does."""
        with self._lock:
            self._entries = [entry for gpu in self._node.state.gpus for entry in self._listed(gpu)]

    def page(self) -> str:
        """Return the page in the text format 0.0.4."""
        with self._lock:
            self._measure()
            lines: list[str] = []
            for name, share in zip(self._names, _SHARES, strict=True):
                if name in self._without:
                    continue
                lines += (f"# HELP {name} Simulated.", f"# TYPE {name} gauge")
                lines += (f"{name}{{{e.labels}}} {e.activity * share:.6f}" for e in self._entries)
            return "\n".join(lines) + "\n"

    def _listed(self, gpu: GpuState) -> Iterator[_Entry]:
        """Yield the instances of a GPU as they are now; only those with something to run on."""
        for gi in sorted(gpu.instances.values(), key=lambda gi: gi.start):
            if not gpu.lost and gi.compute:
                labels = (
                    f'gpu="{gpu.index}",UUID="{gpu.uuid}",pci_bus_id="{gpu.bus_id}",'
                    f'device="nvidia{gpu.minor}",modelName="{gpu.name}",'
                    f'GPU_I_PROFILE="{gi.profile}",GPU_I_ID="{gi.id}",{self._host},'
                    f'DCGM_FI_DRIVER_VERSION="{self._node.state.driver}"'
                )
                yield _Entry(gpu_uuid=gpu.uuid, gi_id=gi.id, born=gi.born, labels=labels)

    def _measure(self) -> None:
        """Bring the figures of those that are still there up to now; the others keep theirs."""
        gpus = {gpu.uuid: gpu for gpu in self._node.state.gpus}
        for entry in self._entries:
            gpu = gpus.get(entry.gpu_uuid)
            gi = None if gpu is None else gpu.instances.get(entry.gi_id)
            if gpu is not None and gi is not None and gi.born == entry.born:
                entry.activity = instance_activity(gpu, gi)


class ExporterServer:
    """Serves the page at every path, in threads of its own."""

    def __init__(self, exporter: DcgmExporter, host: str, port: int) -> None:
        """Listen at once; port 0 takes any free one.

        Raises:
            OSError: the address is taken.
        """

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.page().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing: a scrape is no event."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Return the page's address."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/metrics"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
