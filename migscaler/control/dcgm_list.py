"""Which rows of a dcgm-exporter are of the instances that are there now.

dcgm-exporter reads the layout when it starts and keeps that list: after a layout change it shows
instances that are gone, and an instance made anew may have the id and profile of one of them. So a
row is believed of an instance only if the list was read after the instance appeared, or if no other
instance can be meant. When a list was read is nowhere told; it is inferred: one that gained a row
was read since the answer before, and the first one after a refused connection was read after that.
A row that is missing proves nothing: DCGM may have no value for a moment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.profile import InstanceSpec
from migscaler.sources.dcgm import DcgmFetch, RowKey

Identity = tuple[GpuUuid, GiId, InstanceSpec, int]
"""GPU, GPU instance id, profile and placement, and the generation at which it appeared."""
_NEVER = float("-inf")


@dataclass(slots=True)
class _Track:
    """One instance; `first_seen` in monotonic seconds, `from_start`: not seen to appear.

    Once believed, always believed: every later list is read after its birth too.
    """

    first_seen: float
    from_start: bool
    is_believed: bool = False


class DcgmList:
    """Follows the exporter's list and the instances; used under its owner's lock.

    `slack` (seconds) is how old an answer's content may be: the exporter collects every 30 s by
    default, Prometheus scrapes at its own pace.
    """

    def __init__(self, slack: float) -> None:
        """Know nothing."""
        self._slack = slack
        self._answered: float | None = None
        self._refused: float | None = None
        self._read_after = _NEVER
        # The rows of the list, each with the moment after which it came; None: from the start.
        self._rows: dict[RowKey, float | None] = {}
        self._tracks: dict[Identity, _Track] = {}
        self._gone: dict[tuple[GpuUuid, GiId, str], float] = {}
        self._known: set[GpuUuid] = set()
        self._judged: set[GpuUuid] = set()

    def note_answer(self, fetch: DcgmFetch) -> None:
        """Take an attempt's rows, or its failure, into account."""
        if fetch.problem is not None:
            if fetch.is_refused:
                self._refused = fetch.began
            return
        keys = {row.key for row in fetch.rows}
        if self._refused is not None:
            self._read_after = self._refused
            self._rows = dict.fromkeys(keys, self._refused)
        elif self._answered is None:
            self._rows = dict.fromkeys(keys)
        elif keys - self._rows.keys():
            bound = self._answered - self._slack
            self._read_after = max(self._read_after, bound)
            self._rows = {key: self._rows.get(key, bound) for key in keys}
        self._answered, self._refused = fetch.began, None

    def note_instances(self, uuid: GpuUuid, now: float, there: Iterable[Identity]) -> None:
        """Take what is on a GPU at this moment (monotonic seconds) into account."""
        present = set(there)
        for identity in [i for i in self._tracks if i[0] == uuid and i not in present]:
            del self._tracks[identity]
            self._gone[(uuid, identity[1], identity[2].profile)] = now
        from_start = uuid not in self._known
        self._known.add(uuid)
        for identity in present - self._tracks.keys():
            self._tracks[identity] = _Track(first_seen=now, from_start=from_start)

    def judge_start(self, uuid: GpuUuid, fitting: Mapping[Identity, RowKey]) -> None:
        """Believe the first list of a GPU if it is exactly what was there from the start.

        `fitting` are the GPU's instances that have a row of their id and profile. Does nothing
        before the first answer, and nothing after the first time.
        """
        if self._answered is None or uuid in self._judged:
            return
        self._judged.add(uuid)
        listed = {key for key in self._rows if key[0] == uuid}
        mine = {identity for identity in self._tracks if identity[0] == uuid}
        if listed == set(fitting.values()) and mine == fitting.keys():
            for identity in mine:
                self._tracks[identity].is_believed = self._tracks[identity].from_start

    def believes(self, identity: Identity, key: RowKey, measured: float) -> bool:
        """Say whether a row measured at that moment (monotonic seconds) is this instance's."""
        track = self._tracks[identity]
        if track.is_believed or measured < track.first_seen:
            return track.is_believed
        if not track.from_start and self._is_its_own(identity, key):
            # So the list was read after this one's birth, and all that were there then are theirs.
            # Instances first seen in the same sample count as born together.
            self._read_after = max(self._read_after, track.first_seen)
        track.is_believed = self._read_after >= track.first_seen
        return track.is_believed

    def _is_its_own(self, identity: Identity, key: RowKey) -> bool:
        """Say whether the row came after every other instance of that id and profile had gone."""
        came_after = self._rows.get(key)
        if came_after is None:
            return False
        uuid, gi_id, spec, _ = identity
        return self._gone.get((uuid, gi_id, spec.profile), _NEVER) <= came_after
