"""Activity per MIG instance as DCGM measures it: from a dcgm-exporter, or from Prometheus.

`UUID` on its series is the parent GPU's; an instance is told by (UUID, GPU_I_ID), and GPU_I_PROFILE
says which instance the exporter means: ids are reused, and it keeps a stale list of devices after a
layout change. Which row may be believed is judged elsewhere; here rows are only read.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.ports import Clock
from migscaler.sources.dcgm_series import FIELDS, Series, parse_page, ratio_of, selector_query
from migscaler.sources.prometheus_api import Answer, Connection, ask, get_page

if TYPE_CHECKING:
    import httpx

RowKey = tuple[GpuUuid, GiId, str]
"""GPU, GPU instance id, and the profile that the exporter takes the instance for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmSettings:
    """Where the figures come from: the exporter's page, or else Prometheus.

    `interval` is how often they are asked for, `max_age` how old one may be. `host` limits rows to
    one Hostname, None takes every host's (a GPU's UUID is its own anyway).
    """

    connection: Connection
    interval: timedelta
    max_age: timedelta
    through_prometheus: bool
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmRow:
    """One instance as DCGM tells it.

    `values` are (field, ratio) in the order graphics, sm, tensor, dram, as told: 0..1 of the
    instance's own slices, though up to 1.29 has been seen. `measured` is in monotonic seconds.
    """

    key: RowKey
    values: tuple[tuple[str, float], ...]
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmFetch:
    """One answer: rows by key, or the problem why there are none.

    `began` is in monotonic seconds. `is_refused`: no exporter was running at that moment.
    """

    began: float
    rows: tuple[DcgmRow, ...] = ()
    problem: str | None = None
    is_refused: bool = False


class DcgmSource:
    """Asks for the figures of all instances at once."""

    def __init__(self, *, settings: DcgmSettings, client: "httpx.Client", clock: Clock) -> None:
        """Take the settings and an open client (see `prometheus_api.open_client`)."""
        self.settings = settings
        self._client = client
        self._clock = clock

    def fetch(self, gpus: Collection[GpuUuid]) -> DcgmFetch:
        """Return the rows of these GPUs; a problem is part of the answer, never an exception."""
        began = self._clock.monotonic()
        if self.settings.through_prometheus:
            return self._fetch_query(began, gpus)
        return self._fetch_page(began, gpus)

    def _fetch_page(self, began: float, gpus: Collection[GpuUuid]) -> DcgmFetch:
        """Read the exporter's own page; its figures bear no time, they count as just measured."""
        connection = self.settings.connection
        url = connection.url
        page = get_page(connection, self._client, self._clock, url, {}, accept="text/plain")
        if page.problem is not None:
            return DcgmFetch(began=began, problem=page.problem, is_refused=page.is_refused)
        if page.status != 200:
            return DcgmFetch(began=began, problem=f"{url} answers with HTTP {page.status}")
        try:
            found = parse_page(page.body)
        except ValueError as error:
            return DcgmFetch(began=began, problem=f"{url} can't be read: {error}")
        return DcgmFetch(began=began, rows=self._rows(found, gpus, began))

    def _fetch_query(self, began: float, gpus: Collection[GpuUuid]) -> DcgmFetch:
        """Ask Prometheus for values and for their times, in one query."""
        query = selector_query(sorted(gpus))
        answer = ask(self.settings.connection, self._client, self._clock, query)
        if answer.problem is not None:
            return DcgmFetch(began=began, problem=answer.problem)
        if not answer.samples:
            # An exporter that can't be scraped looks the same as a node without instances.
            return DcgmFetch(began=began, problem="Prometheus has no DCGM series of these GPUs")
        return DcgmFetch(began=began, rows=self._rows(_series_of(answer), gpus, began))

    def _rows(
        self, found: Iterable[Series], gpus: Collection[GpuUuid], now: float
    ) -> tuple[DcgmRow, ...]:
        """Join the series of each instance; of several for one field the busiest fresh one."""
        limit = self.settings.max_age.total_seconds()
        cells: dict[RowKey, dict[str, list[Series]]] = {}
        for one in found:
            key = _key(one)
            if key is None or key[0] not in gpus or not self._is_meant(one):
                continue
            cells.setdefault(key, {}).setdefault(one.field, []).append(one)
        rows = []
        for key, by_field in sorted(cells.items()):
            chosen = {field: _best(several, limit) for field, several in by_field.items()}
            rows.append(
                DcgmRow(
                    key=key,
                    values=tuple((f, chosen[f].value) for f in FIELDS if f in chosen),
                    measured=now - max(one.age_seconds for one in chosen.values()),
                )
            )
        return tuple(rows)

    def _is_meant(self, one: Series) -> bool:
        """Say whether a series is of the host asked for; the label has two spellings."""
        host = self.settings.host
        return host is None or host in (one.label("Hostname"), one.label("hostname"))


def _key(one: Series) -> RowKey | None:
    """Return which instance a series speaks of, None if of a whole GPU or of nothing clear."""
    uuid, gi_id, profile = (one.label(name) for name in ("UUID", "GPU_I_ID", "GPU_I_PROFILE"))
    if not uuid or not profile or gi_id is None or not gi_id.isascii() or not gi_id.isdigit():
        return None
    return GpuUuid(uuid), GiId(int(gi_id)), profile


def _best(several: list[Series], limit: float) -> Series:
    """Return the busiest of the fresh ones (one series per pod is usual), else the youngest."""
    fresh = [one for one in several if one.age_seconds <= limit]
    if fresh:
        return max(fresh, key=lambda one: (one.value, -one.age_seconds))
    return min(several, key=lambda one: one.age_seconds)


def _series_of(answer: Answer) -> Iterable[Series]:
    """Pair each value of the answer with its time, which stands in a series of its own."""
    times: dict[tuple[tuple[str, str], ...], float] = {}
    values = []
    for sample in answer.samples:
        labels = dict(sample.labels)
        what, field = labels.pop("migscaler_what", ""), labels.get("migscaler_field", "")
        identity = tuple(sorted(labels.items()))
        if what == "time":
            times[identity] = _seconds(sample.value)
        elif field in FIELDS:
            values.append((identity, labels, field, sample))
    for identity, labels, field, sample in values:
        value, taken = ratio_of(sample.value), times.get(identity)
        if value is not None and taken is not None:
            # Both times are the server's, so that its clock may differ from ours.
            age = max(0.0, sample.at.timestamp() - taken)
            yield Series(field=field, labels=tuple(labels.items()), value=value, age_seconds=age)


def _seconds(text: str) -> float:
    """Return a moment in seconds since 1970; what is none is as long ago as can be."""
    try:
        moment = float(text)
    except ValueError:
        return 0.0
    return moment if math.isfinite(moment) else 0.0
