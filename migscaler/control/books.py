"""What the state file says of the node, kept for when it can't be read.

A damaged or unreadable file stops changes (the tick reads it directly, and does not get far), not
the exporter: what is shown goes on from what was last known.
"""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from migscaler.control.aftermath import after_foreign_change
from migscaler.errors import StoreError
from migscaler.model.decision import GpuHistory, HoldRecord, PauseRecord
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.policy import Pace
from migscaler.store.store import Store

_log = logging.getLogger("migscaler.books")

BUDGET_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """What the state file says; `changes` are those of the last 24 hours.

    `problem`: why it can't be read, and these are what it last said.
    """

    holds: tuple[HoldRecord, ...] = ()
    pause: PauseRecord | None = None
    histories: tuple[GpuHistory, ...] = ()
    changes: int = 0
    problem: str | None = None


class Books:
    """Reads the state file and remembers; may be asked by several threads."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._last = Entries()
        self.problem: str | None = None
        # Changes of others still to be recorded, and whether all of them left the GPU empty.
        self._owed: dict[GpuUuid, bool] = {}
        self._told: set[GpuUuid] = set()
        self._owing = threading.Lock()

    def read(self, store: Store, now: datetime) -> Entries:
        """Return the entries, as last known where the file can't be read."""
        try:
            self._last = Entries(
                holds=store.holds(now),
                pause=store.pause(),
                histories=store.gpu_histories(),
                changes=store.changes_since(now - BUDGET_WINDOW),
            )
        except StoreError as error:
            self._note(str(error))
            return replace(self._last, problem=str(error))
        self.problem = None
        return self._last

    def holds(self, store: Store, now: datetime) -> tuple[HoldRecord, ...]:
        """Return who holds what, as last known where the file can't be read: nobody has let go."""
        try:
            return store.holds(now)
        except StoreError as error:
            self._note(str(error))
            return self._last.holds

    def adopt_foreign_changes(self, store: Store, snapshot: NodeSnapshot, pace: Pace) -> None:
        """Let a GPU rest after somebody else changed its layout; what is there is wanted now.

        One that was emptied keeps what was wanted: a driver loaded anew looks the same.
        """
        with self._owing:
            for gpu in snapshot.gpus:
                if not gpu.foreign_change:
                    continue
                _log.warning("foreign_change gpu=%s layout=%s", gpu.uuid, gpu.layout)
                is_empty = gpu.instances == ()
                self._owed[gpu.uuid] = is_empty and self._owed.get(gpu.uuid, True)
        self.adopt_owed(store, pace, snapshot.taken_at)

    def adopt_owed(self, store: Store, pace: Pace, now: datetime) -> str | None:
        """Record the changes of others that could not be recorded when they were seen.

        The rest begins with that. Returns why some are still owed: without them the next decision
        would undo what somebody has just made.
        """
        problem = None
        with self._owing:
            for uuid, is_empty in tuple(self._owed.items()):
                adopt = partial(after_foreign_change, pace=pace, now=now, is_empty=is_empty)
                try:
                    store.update_gpu_history(uuid, adopt)
                except StoreError as error:
                    problem = str(error)
                    if uuid not in self._told:
                        self._told.add(uuid)
                        _log.error("foreign_change_not_recorded gpu=%s error=%s", uuid, error)
                    continue
                del self._owed[uuid]
                if uuid in self._told:
                    self._told.remove(uuid)
                    _log.warning("foreign_change_recorded gpu=%s", uuid)
        return problem

    def _note(self, problem: str) -> None:
        """Tell once that the file can't be read."""
        if self.problem is None:
            _log.error("state_unreadable error=%s", problem)
        self.problem = problem
