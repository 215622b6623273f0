"""A node at work in one process: builds it, reloads it, and gives it to commands."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from migscaler.app.comeback import Comeback
from migscaler.app.commands import NodeCommands
from migscaler.app.config.against import warnings_against_snapshot
from migscaler.app.config.load import LoadedConfig, load_file
from migscaler.app.config.unforeseen import unforeseen
from migscaler.app.memory import give_back
from migscaler.app.mode_switch import mode_switch
from migscaler.app.node import Node
from migscaler.app.settling import Settling
from migscaler.app.start import (
    InForce,
    finding_text,
    fixed_changes,
    good_status,
    not_in_force,
    with_rival,
    with_state_problem,
    without_rival,
)
from migscaler.app.telling import Telling
from migscaler.app.wiring import Assembly, acts, push_sources
from migscaler.control.leases import end_dead_leases
from migscaler.control.loop import Loop
from migscaler.control.parts import Parts
from migscaler.errors import ConfigError, HardwareError, StoreError
from migscaler.model.decision import Decision
from migscaler.model.ids import GpuUuid
from migscaler.model.policy import Mode
from migscaler.model.ports import HostProcesses
from migscaler.model.stats import CallStats, SchedulerStats, WebStats
from migscaler.model.status import Status
from migscaler.web.views import status_view

_log = logging.getLogger("migscaler.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the process around a runtime gives it.

    `publish` shows a status; `real_host` sees this machine's processes (leases belong to them even
    on simulated GPUs); `release_driver` and `resume_driver` end and begin the NVML session.
    """

    publish: Callable[[Status], None]
    call_stats: Callable[[], CallStats]
    job_stats: Callable[[], SchedulerStats]
    web_stats: Callable[[], WebStats] = WebStats
    real_host: HostProcesses
    release_driver: Callable[[], None]
    resume_driver: Callable[[], None]
    config_changed: Callable[[], None]


class Runtime:
    """One node under its configuration."""

    def __init__(self, assembly: Assembly, in_force: InForce, outside: Outside) -> None:
        """Build the loop; nothing is read yet."""
        self._assembly = assembly
        self._outside = outside
        self.in_force = in_force
        self._begun = False
        self._is_released = False
        # SIGHUP, a written file, a command and a rival's end may come at the same moment.
        self._swapping = threading.RLock()
        self.loop = Loop(self._first_parts())
        self._comeback = Comeback(assembly, self.loop)
        self._telling = Telling(assembly)
        self._settling = Settling(assembly, self.loop, self._comeback, self._telling)
        self.commands = NodeCommands(self._node())

    @property
    def loaded(self) -> LoadedConfig:
        """Return the configuration in force."""
        return self.in_force.loaded

    def begin(self) -> None:
        """Read the node, settle what was left open, restore what a reboot took away.

        Without a driver nothing of it can be done; `tick` does it as soon as there is one.
        """
        snapshot = self.loop.sample()
        if snapshot is None:
            return
        self._warn_against_hardware()
        store = self._assembly.ground.store
        try:
            alone = self._acts_alone()
            self._settling.begin(alone)
            # What settling made, or found gone, is in no picture taken before it.
            if self.loop.sample() is None:
                return
            self._telling.changed(self._comeback.begin(self.loaded.settings.on_boot, alone))
            self._begun = True
            if self.in_force.status.valid and self.in_force.status.path:
                store.write_good_config(self.loaded.text, self.loaded.sha256)
        except (HardwareError, StoreError) as error:
            _log.error("start_not_ended error=%s", error)
        self.loop.sample()

    def sample(self) -> None:
        """Read the node; where nothing answers the driver may be about to be loaded anew."""
        if self.loop.sample() is None:
            self._comeback.driver_was_away()

    def tick(self) -> Decision | None:
        """Do what of the start is still to be done, then decide and act."""
        if not self._begun and self.loop.status().snapshot is not None:
            self.begin()
        try:
            on_boot = self.loaded.settings.on_boot
            self._telling.changed(self._comeback.tick(on_boot, self._acts_alone))
        except StoreError as error:
            _log.error("restore_put_off error=%s", error)
        self._telling.run_hooks()
        return self.loop.tick()

    def reload(self) -> tuple[str, ...]:
        """Read the file anew, all or nothing; returns what is wrong with it, in words."""
        with self._swapping:
            problems = self._reload()
        give_back()
        return problems

    def act_alone(self) -> None:
        """Let the configuration act: whoever else might change these GPUs has ended.

        What a start does with GPUs that it may change is done by the next tick.
        """
        with self._swapping:
            self.in_force = without_rival(self.in_force)
            self._rebuild()
            self._begun = False
        _log.info("acting_alone")

    def note_web(self, problems: tuple[str, ...]) -> None:
        """Tell what is wrong with the web configuration file; the daemon looks after it."""
        with self._swapping:
            self._put_in_force(replace(self.in_force, web_problems=problems))

    def _reload(self) -> tuple[str, ...]:
        """Do what `reload` says, alone."""
        path = self.in_force.status.path
        if path is None:
            return ("there is no configuration file",)
        clock = self._assembly.ground.clock
        try:
            loaded = load_file(Path(path))
        except ConfigError as error:
            return self._reject(path, tuple(map(finding_text, error.findings)), valid=False)
        fixed = fixed_changes(self.loaded, loaded)
        if fixed:
            return self._reject(path, fixed, valid=True)
        taken = InForce(loaded=loaded, status=good_status(loaded, Path(path), clock))
        taken = with_state_problem(taken, self.in_force.status.state_problem)
        taken = replace(taken, web_problems=self.in_force.web_problems)
        before = self.in_force
        try:
            self._put_in_force(with_rival(taken, before.rival))
        except Exception as error:  # noqa: BLE001 - a fault of ours, as in `load_text`
            self.in_force = before
            self._rebuild()
            return self._reject(path, (finding_text(unforeseen(error)),), valid=False)
        try:
            self._assembly.ground.store.write_good_config(loaded.text, loaded.sha256)
        except StoreError as error:
            _log.warning("good_config_not_kept error=%s", error)
        self._warn_against_hardware()
        self._outside.config_changed()
        _log.info("config_loaded file=%s sha256=%s", path, loaded.sha256[:12])
        return ()

    def _reject(self, path: str, problems: tuple[str, ...], *, valid: bool) -> tuple[str, ...]:
        """Keep what is in force and tell why the file is not taken."""
        status = replace(
            self.in_force.status, last_reload_success=False, valid=valid, problems=problems
        )
        self._put_in_force(replace(self.in_force, status=status))
        for problem in problems:
            _log.error("config_rejected file=%s problem=%s", path, problem)
        return problems

    def housekeeping(self) -> None:
        """End leases of dead processes, lift stuck fences, let a pause run out."""
        ground = self._assembly.ground
        pause = ground.store.pause()
        if self._is_released and not (pause is not None and pause.driver_released):
            self.resume_driver()
        end_dead_leases(ground.store, self._outside.real_host, ground.clock.now())
        enforcer = self.loop.parts.enforcer
        if enforcer is not None:
            enforcer.lift_fences()
        self._settling.settle_left_open(self._acts_alone())

    def release_driver(self) -> None:
        """End the NVML session, between two GPU plans: one under way would be left half done."""
        self._is_released = True
        self.loop.between_ticks(self._outside.release_driver)
        self._comeback.driver_was_away()

    def resume_driver(self) -> None:
        """Take the NVML session up again if it was ended."""
        if self._is_released:
            self._is_released = False
            self._comeback.driver_was_away()
            self._assembly.observer.forget_marks()
            self._outside.resume_driver()

    def prune(self) -> None:
        """Remove what retention gives up."""
        ground = self._assembly.ground
        ground.store.prune(ground.clock.now())
        give_back()

    def _first_parts(self) -> Parts:
        """Return the parts to start with; of what can be put in force where the file can't be."""
        for store in (self._assembly.ground.store, None):
            try:
                return self._parts(self.in_force)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the daemon
                finding = unforeseen(error)
                path = self.in_force.status.path
                _log.error("config_rejected file=%s problem=%s", path, finding_text(finding))
                self.in_force = not_in_force(self.in_force, finding, store)
        return self._parts(self.in_force)

    def _parts(self, in_force: InForce) -> Parts:
        """Return the loop's parts under a configuration."""
        outside = self._outside
        return self._assembly.parts(
            in_force.loaded,
            publish=outside.publish,
            call_stats=outside.call_stats,
            job_stats=outside.job_stats,
            web_stats=outside.web_stats,
            config=in_force.shown,
            may_act=in_force.status.forced_observe is None,
        )

    def _put_in_force(self, in_force: InForce) -> None:
        """Swap the configuration between two ticks."""
        same = in_force.loaded is self.in_force.loaded
        self.in_force = in_force
        if same:
            self.loop.reconfigure(replace(self.loop.parts, config=in_force.shown))
            return
        self._rebuild()

    def _rebuild(self) -> None:
        """Build loop and commands for what is in force now."""
        self.loop.reconfigure(self._parts(self.in_force))
        self.commands = NodeCommands(self._node())

    def _warn_against_hardware(self) -> None:
        """Compare the file with the GPUs that are there."""
        snapshot = self.loop.status().snapshot
        if snapshot is None:
            return
        with self._swapping:
            findings = (*self.loaded.warnings, *warnings_against_snapshot(self.loaded, snapshot))
            warnings = tuple(map(finding_text, findings))
            for warning in warnings:
                _log.warning("config_doubt warning=%s", warning)
            status = replace(self.in_force.status, warnings=warnings)
            self._put_in_force(replace(self.in_force, status=status))

    def _acts_alone(self) -> frozenset[GpuUuid]:
        """Return the GPUs that may be changed at start without being asked.

        None beside somebody who owns the layouts, or may: two would undo each other's work.
        """
        snapshot, policy = self.loop.status().snapshot, self.loaded.policy
        if snapshot is None or not snapshot.is_ours or self.loop.parts.enforcer is None:
            return frozenset()
        if self._assembly.ground.store.pause() is not None:
            return frozenset()
        entries = {
            gpu.uuid: policy.entry_for(gpu.reading, snapshot.taken_at)
            for gpu in snapshot.gpus
            if gpu.reading.foreign_owner is None
        }
        return frozenset(
            uuid for uuid, entry in entries.items() if entry and entry.mode is Mode.ENFORCE
        )

    def _node(self) -> Node:
        """Return what commands need."""
        loaded = self.loaded
        return Node(
            loop=self.loop,
            store=self._assembly.ground.store,
            clock=self._assembly.ground.clock,
            mode_switch=mode_switch(self._assembly, self.loop) if self._may_switch() else None,
            why_no_writer=self._why_no_writer(),
            reload=self.reload,
            release_driver=self.release_driver,
            resume_driver=self.resume_driver,
            state_of_the_node=lambda: status_view(self.loop.status(), trusted=True),
            pushable=lambda: push_sources(loaded.settings, loaded.policy),
            settle=self._settling.settle,
        )

    def _may_switch(self) -> bool:
        """Say whether a person may change the MIG mode of a GPU."""
        return self.in_force.status.forced_observe is None and acts(self.loaded.policy)

    def _why_no_writer(self) -> str:
        """Say to people why nothing may be changed."""
        forced = self.in_force.status.forced_observe
        if forced is not None:
            return forced
        return (
            "every GPU is only observed; set mode: recommend or enforce for those that may change"
        )
