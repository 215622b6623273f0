"""One assembled node: the loop and everything commands need beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.app.arguments import Arguments
from migscaler.control.loop import Loop
from migscaler.control.mig_mode import ModeSwitch
from migscaler.errors import CommandRefused, NotFound, ParseError
from migscaler.model.decision import DecisionInput
from migscaler.model.demand import Counts
from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.ids import GpuUuid, SourceName
from migscaler.model.plan import Outcome
from migscaler.model.ports import Clock
from migscaler.model.profile import InstanceSpec
from migscaler.store.store import Store
from migscaler.web.ports import Actor
from migscaler.web.words import unread_words

Handler = Callable[[Arguments, Actor], dict[str, object]]
"""Carries out one command."""


@dataclass(frozen=True, slots=True)
class Command:
    """What carries a command out, and the names of all arguments that it takes."""

    handler: Handler
    takes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Parts of a running (or briefly assembled) node.

    `mode_switch` is None where nothing may be changed, and `why_no_writer` says so to people.
    `reload` reads the configuration anew and returns its problems; `release_driver` and
    `resume_driver` end and begin the NVML session.
    """

    loop: Loop
    store: Store
    clock: Clock
    why_no_writer: str
    reload: Callable[[], tuple[str, ...]]
    release_driver: Callable[[], None]
    resume_driver: Callable[[], None]
    state_of_the_node: Callable[[], dict[str, object]]
    pushable: Callable[[], Mapping[SourceName, Counts]]
    mode_switch: ModeSwitch | None
    settle: Callable[[bool], tuple[Outcome, ...]]

    def snapshot(self) -> NodeSnapshot:
        """Return the last picture.

        Raises:
            CommandRefused: nothing was read yet.
        """
        status = self.loop.status()
        if status.snapshot is None:
            raise CommandRefused(f"{unread_words(status)}; see `migscaler doctor`")
        return status.snapshot

    def input_of_decision(self) -> DecisionInput:
        """Return what a decision would depend on now; who was never asked is asked first.

        A daemon asks by itself; a command without one would else find every source unknown.

        Raises:
            CommandRefused: nothing was read yet.
        """
        self.snapshot()
        self.ask_unasked()
        for veto in self.loop.parts.gatherer.unasked_vetoes():
            self.loop.gather_veto(veto)
        inp = self.loop.assemble()
        assert inp is not None  # noqa: S101  # there is a picture, as was just seen
        return inp

    def ask_unasked(self) -> None:
        """Ask the sources that were never asked, as they are where no daemon runs."""
        for source in self.loop.parts.gatherer.unasked():
            self.loop.gather(source)

    def find_gpu(self, named: str) -> GpuState:
        """Return the GPU of an index or UUID (a unique beginning of it will do).

        Raises:
            NotFound: no such GPU; the message lists what there is.
        """
        gpus = self.snapshot().gpus
        if named.isdigit():
            # Not as a number: `²` is a digit too, and one of 5,000 digits is none that int() takes.
            index = named.lstrip("0") or "0"
            found = [gpu for gpu in gpus if str(gpu.reading.index) == index]
        else:
            found = [gpu for gpu in gpus if gpu.uuid.startswith(named)]
        if len(found) != 1:
            known = ", ".join(f"{gpu.reading.index} ({gpu.uuid})" for gpu in gpus)
            which = "more than one GPU begins with" if found else "no GPU"
            raise NotFound(f"{which} {named!r}; there are {known}")
        return found[0]

    def spec_on(self, gpu: GpuState, named: str) -> InstanceSpec:
        """Return the instance of a GPU that a text names, whether or not it is there now.

        Raises:
            CommandRefused: the GPU has no MIG profiles.
            ParseError: its model has no such instance; the message lists what is there.
        """
        model = gpu.reading.model
        if model is None:
            raise CommandRefused(f"GPU {gpu.reading.index} has no MIG profiles to name")
        try:
            return model.spec(named)
        except ParseError as error:
            there = "" if gpu.layout is None else f"; GPU {gpu.reading.index} has {gpu.layout}"
            raise ParseError(f"{error}{there}") from error

    def after(self, duration: timedelta | None) -> datetime | None:
        """Return the moment that lies this long ahead, None for no end."""
        return None if duration is None else self.clock.now() + duration

    def acting_on(self) -> frozenset[GpuUuid]:
        """Return the GPU under change, if any."""
        return frozenset(self.loop.status().withheld)
