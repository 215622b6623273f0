"""The daemon: one process per node, from start to SIGTERM."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from migscaler import __version__
from migscaler.app.aside import Aside
from migscaler.app.clock import RealClock, read_boot_id
from migscaler.app.config.compile import web_settings
from migscaler.app.config.load import find_file
from migscaler.app.config.settings import (
    Settings,
    socket_path,
    state_directory,
)
from migscaler.app.daemon_jobs import jobs_of
from migscaler.app.device_nodes import make_nodes_after
from migscaler.app.edges import WindowEdges
from migscaler.app.hardware_lock import HardwareLock, SettledReader, named_hardware
from migscaler.app.jobs import Jobs
from migscaler.app.logs import set_up_logging
from migscaler.app.memory import bound_heaps, collect_again, start_over
from migscaler.app.runtime import Outside, Runtime
from migscaler.app.start import (
    InForce,
    State,
    first_settings,
    load_in_force,
    open_state,
    safe_listen,
    with_rival,
    with_state_problem,
)
from migscaler.app.systemd import notify, watchdog_seconds
from migscaler.app.web_side import WebSide
from migscaler.app.web_watch import WebWatch, stamp
from migscaler.app.wiring import Assembly, Ground
from migscaler.control.executor import AfterChange
from migscaler.errors import StoreError
from migscaler.hardware.host import ProcHost
from migscaler.hardware.worker import NvmlWorker
from migscaler.metrics.exposition import Renderer
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.status import ConfigStatus, Status
from migscaler.schedulers.owners import HostRoots
from migscaler.web.app import create_app
from migscaler.web.ports import Actor, WebOptions
from migscaler.web.protection import Protection
from migscaler.web.refusals import Refusals
from migscaler.web.server import WebServer

_log = logging.getLogger("migscaler.daemon")

_HEARTBEAT_SECONDS = 1.0
# How long a change under way may take to end after SIGTERM; its calls have deadlines too.
_END_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What the command line decides; None means what the configuration or the platform says.

    `prepare` (picklable) runs in the NVML child before it opens the library: the simulated library
    is installed there. `make_host` (picklable) makes the view of the GPUs' processes, `roots` are
    the host's directories that are searched for other owners. `on_ready` gets the page's address.
    `hardware` names the GPUs for the lock of who may change them, see `named_hardware` for None.
    `nvml_socket` is where `migscaler nvml-worker` listens; None: NVML runs in a child. `attended`:
    a person sees at once that an address is taken; otherwise the daemon keeps on without it.
    """

    config: Path | None = None
    state_dir: Path | None = None
    listen: str | None = None
    prepare: Callable[[], None] | None = None
    make_host: Callable[[], HostProcesses] = ProcHost
    boot_id: Callable[[], str] = read_boot_id
    roots: HostRoots = field(default_factory=HostRoots)
    on_ready: Callable[[str], None] | None = None
    hardware: str | None = None
    nvml_socket: Path | None = None
    attended: bool = False


def run_daemon(options: DaemonOptions) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Raises:
        NodeLocked: another daemon holds this node.
        AddressTaken: an address can't be listened on, and the daemon is `attended`.
    """
    bound_heaps()
    daemon = Daemon(options)
    daemon.install_signals()
    return daemon.run()


class Daemon:
    """Everything a running daemon consists of."""

    def __init__(self, options: DaemonOptions) -> None:
        """Load the configuration, open the state, build the node; nothing is served yet."""
        self._options = options
        self._clock: Clock = RealClock()
        self._stop = threading.Event()
        self._reload = threading.Event()
        # Older than what is loaded: a write in between shows as a change at the first looks.
        self._config_stamp = self._seen_stamp = stamp(find_file(options.config, os.environ))
        settings = first_settings(options.config, os.environ, options.listen, self._clock)
        set_up_logging(settings.log)
        self._directory = options.state_dir or state_directory(settings, os.environ, os.getuid())
        self._state: State = open_state(self._directory, self._clock)
        in_force = load_in_force(options.config, os.environ, self._state.store, self._clock)
        in_force = with_state_problem(in_force, self._state.problem)
        self._lock = HardwareLock(
            options.hardware or named_hardware(options.prepare, options.boot_id, self._directory)
        )
        in_force = with_rival(in_force, self._lock.take_at_start(self._clock))
        _log_config(in_force.status)
        self._renderer = Renderer(self._clock.monotonic)
        self._shown: Status | None = None
        self._worker = NvmlWorker(
            self._clock, options.prepare, options.make_host, address=options.nvml_socket
        )
        self._worker.bequeath(self._lock.descriptors)
        self._jobs = Jobs(self._clock)
        self._aside = Aside()
        self._refusals = Refusals()
        self._assembly = Assembly(
            Ground(
                clock=self._clock,
                reader=SettledReader(self._worker, self._lock),
                writer=self._worker,
                host=options.make_host(),
                store=self._state.store,
                boot_id=options.boot_id(),
                roots=options.roots,
                tell_node=self._tell_node(),
                read_host=None if options.nvml_socket is None else self._worker.read_host,
            )
        )
        self.runtime = Runtime(self._assembly, in_force, self._outside())
        self._begun = threading.Event()
        self._edges = WindowEdges(
            self.runtime.loop.window_edge, self._clock, partial(self._jobs.soon, "tick")
        )
        self._listen = safe_listen(in_force, options.listen)
        self._web = self._web_side(in_force)
        self._is_web_due = False

    def _web_side(self, in_force: InForce) -> WebSide:
        """Return page and API of what is in force; nothing is served yet."""
        web = web_settings(in_force.loaded.config.web, self._listen)
        watch = WebWatch(web.config_file, web.open_to)
        server = self._make_server(in_force.loaded.settings, watch)
        return WebSide(watch, server, self.runtime.note_web)

    def _tell_node(self) -> tuple[AfterChange, ...]:
        """Return what is told of a changed GPU before any hook."""
        if self._options.nvml_socket is not None:
            return (lambda _uuid, _layout: self._worker.make_device_nodes(),)
        return (make_nodes_after,) if self._options.prepare is None else ()

    def _outside(self) -> Outside:
        """Return what the node is given from here."""
        return Outside(
            publish=self._publish,
            call_stats=self._worker.call_stats,
            job_stats=self._jobs.scheduler,
            web_stats=self._refusals.stats,
            real_host=ProcHost(),
            release_driver=self._worker.release_driver,
            resume_driver=self._worker.resume,
            config_changed=self._reschedule,
        )

    def install_signals(self) -> None:
        """SIGTERM and SIGINT end, SIGHUP reloads; called from the main thread."""

        def end(_number: int, _frame: FrameType | None) -> None:
            self._stop.set()

        def again(_number: int, _frame: FrameType | None) -> None:
            self._reload.set()
            self._web.read_again()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, again)

    def execute(self, name: str, arguments: dict[str, object], actor: Actor) -> dict[str, object]:
        """Carry out a command under the configuration now in force."""
        return self.runtime.commands.execute(name, arguments, actor)

    def run(self) -> int:
        """Serve, settle, tick until told to stop; return the exit code."""
        collect_again()
        page = self._web.start(attended=self._options.attended) or str(self._directory)
        _log.info("serving page=%s version=%s", page, __version__)
        try:
            if self._is_driver_released():
                self.runtime.release_driver()
            self.runtime.begin()
        except Exception:  # noqa: BLE001 - the exporter serves whatever the start met; see `tick`
            _log.exception("start_incomplete")
        self._reschedule()
        self._begun.set()
        notify("READY=1", f"STATUS=serving {page}")
        if self._options.on_ready is not None:
            self._options.on_ready(page)
        start_over()
        self._watch()
        return self._end()

    def stop(self) -> None:
        """End `run` from another thread."""
        self._stop.set()

    def _watch(self) -> None:
        """Supervise until told to stop; runs in the main thread."""
        watchdog = watchdog_seconds()
        told = self._clock.monotonic()
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            try:
                self._look_after()
            except Exception:  # noqa: BLE001 - a thread that died here would end the exporter
                _log.exception("looking_after_failed")
            now = self._clock.monotonic()
            if watchdog is not None and now - told >= watchdog and not self._jobs.silent():
                notify("WATCHDOG=1")
                told = now

    def _look_after(self) -> None:
        """Replace a stalled scheduler, hide what is stale, load a changed configuration.

        Nothing here waits for what acts or reads: nobody would feed the watchdog meanwhile, and it
        would end the daemon in the middle of a plan.
        """
        self._jobs.supervise()
        self.runtime.loop.publish_if_stale()
        self._edges.look()
        self._is_web_due |= self._web.look()
        is_written = self._is_written()
        if self._aside.is_free():
            self._aside.run(self._due(is_written))

    def _is_written(self) -> bool:
        """Say whether the file is another one, and has stood still since the look before.

        What is being written is no configuration yet: it may lack the freeze at its end.
        """
        before, self._seen_stamp = self._seen_stamp, stamp(self._config_path())
        return self._seen_stamp == before != self._config_stamp

    def _due(self, is_written: bool) -> tuple[Callable[[], object], ...]:
        """Return what is to be put in force between two ticks and two samples."""
        works: list[Callable[[], object]] = []
        if self._is_web_due:
            self._is_web_due = False
            works.append(self._web.tell)
        if self._lock.is_ours() and self.runtime.in_force.rival is not None:
            works.append(self.runtime.act_alone)
        if self._reload.is_set() or is_written:
            self._reload.clear()
            self._config_stamp = stamp(self._config_path())
            works.append(self.runtime.reload)
        return tuple(works)

    def _end(self) -> int:
        """Stop acting, let a change under way end, stop serving."""
        notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(_END_SECONDS * 1e6)}")
        _log.info("stopping")
        self._jobs.stop()
        # Also where nothing acts: a configuration that does may be about to be put in force.
        self._assembly.enforcer.stop()
        self._wait_for_change()
        self._web.stop()
        self._worker.close()
        self._assembly.close()
        self._lock.release()
        self._state.close()
        return 0

    def _wait_for_change(self) -> None:
        """Wait for the plan, restore or settling under way; what does not end the next start ends.

        A restore that is cut short counts as a death of the daemon.
        """
        end = self._clock.monotonic() + _END_SECONDS
        enforcer, observer = self._assembly.enforcer, self._assembly.observer
        while (running := enforcer.running()) is not None or observer.acting_on():
            if self._clock.monotonic() > end:
                plan = "none" if running is None else running.plan_id
                _log.error("change_left_open plan=%s", plan)
                return
            self._clock.sleep(0.1)

    def _publish(self, status: Status) -> None:
        """Show a status to scrapers and the page."""
        self._shown = status
        self._renderer.publish(status)

    def _seen(self) -> Status | None:
        """Return the last status as it is to be shown now, whoever was to publish it anew."""
        return None if self._shown is None else self._shown.at(self._clock.monotonic())

    def _reschedule(self) -> None:
        """Run the jobs of the configuration now in force."""
        self._jobs.start(jobs_of(self.runtime, self._sample))

    def _sample(self) -> None:
        """Sample unless the driver was released."""
        if not self._is_driver_released():
            self.runtime.sample()

    def _is_driver_released(self) -> bool:
        """Say whether the pause asks to keep away from the driver; the worker refuses then too."""
        try:
            pause = self._state.store.pause()
        except StoreError:
            return False
        return pause is not None and pause.driver_released

    def _config_path(self) -> Path | None:
        """Return the configuration file, None without one."""
        path = self.runtime.in_force.status.path
        return Path(path) if path else None

    def _make_server(self, settings: Settings, watch: WebWatch) -> WebServer:
        """Return the HTTP server of this configuration."""
        web = settings.web
        options = WebOptions(
            writes_over_tcp=web.writes,
            token_file=web.write_token_file,
            read_token_file=web.read_token_file,
            write_names=web.write_names,
            protection=lambda: watch.protection or Protection(),
            health=self._unhealthy,
            ready=self._unready,
            refusals=self._refusals,
        )
        app = create_app(
            render=self._renderer.render,
            status=self._seen,
            commands=self,
            options=options,
        )
        listen = self._listen or f"{web.host}:{web.port}"
        socket = socket_path(settings, self._directory, os.environ)
        path = socket if self._state.lock is not None else None
        return WebServer(app, listen, path, protection=watch.protection, refusals=self._refusals)

    def _unhealthy(self) -> str | None:
        """Say which loops have stopped, None if all tick."""
        silent, stuck = self._jobs.silent(), self._jobs.stuck()
        words = [f"not running: {', '.join(silent)}"] if silent else []
        words += [f"stuck: {', '.join(stuck)}"] if stuck else []
        return "; ".join(words) or None

    def _unready(self) -> str | None:
        """Say why the node can't be relied on yet: what a crash or a reboot left is put right."""
        return None if self._begun.is_set() else "what was left open is being settled"


def _log_config(status: ConfigStatus) -> None:
    """Say loudly what is wrong with the configuration found at the start."""
    for problem in status.problems:
        _log.error("config_rejected file=%s problem=%s", status.path, problem)
    if status.forced_observe:
        _log.error("observing_only why=%s", status.forced_observe)
