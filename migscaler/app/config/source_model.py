"""The settings of demand sources and vetoes; each is followed by meaning, unit, default and why."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Discriminator, Field

from migscaler.app.config.fields import (
    Duration,
    FilePath,
    Name,
    Query,
    SecretPath,
    Section,
    Size,
    Text,
    Url,
    within,
)


class SourceSection(Section):
    """What every source has."""

    counts: Literal["waiting", "total"] = "waiting"
    """What its numbers mean: instances wanted beyond those in use, or all of them. Default waiting:
    queues count that."""

    scope: Literal["node", "shared"] = "node"
    """Whom its numbers speak of: this node alone, or the same number reaches every node. Default
    node: with shared, a herd of nodes would answer one job, so enforce then needs share."""

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """This node's part of a shared number, above 0 up to 1. Default none: nobody else can know
    it."""

    unknown_for: Annotated[Duration, within("1m", "720h")] = timedelta(hours=4)
    """How long a silent source keeps its rules' capacity from being given away; then only their
    floors hold. Default 4h: longer than the repair of a monitoring server, shorter than a night."""


class PrometheusSection(SourceSection):
    """A source that asks a Prometheus server by instant query."""

    type: Literal["prometheus"]
    """The kind of source. Required."""

    url: Url
    """Base address of the server, with its path prefix if it has one, without /api/v1. Required."""

    query: Query
    """PromQL expression: one series per size, or one number. Fractions are rounded up. Required."""

    label: Text = "profile"
    """The label that holds the size. Default profile: what the examples use."""

    size: Size | None = None
    """The size that an answer without the label speaks of. Default none: the size of the one rule
    that uses the source; if several do, such an answer is unknown."""

    alive: Query | None = None
    """PromQL expression that gives a value other than 0 while the data can be trusted. While it
    holds, a size that is missing from an answer is wanted 0 times; while it does not, the source is
    unknown. Default none: then a missing size is unknown, because an exporter that is down looks
    the same as an empty queue."""

    true_at: Query | None = None
    """PromQL expression for the moment the numbers are true for, in seconds since 1970, e.g.
    max(timestamp(jobs_waiting)). Default none: the moment of evaluation, which hides how old the
    samples are."""

    interval: Annotated[Duration, within("1s", "1h")] = timedelta(seconds=15)
    """How often it is asked. Default 15s: the usual scrape interval, nothing is newer."""

    timeout: Annotated[Duration, within("1s", "1m")] = timedelta(seconds=5)
    """How long an answer may take as a whole. Default 5s: an instant query takes milliseconds."""

    max_age: Annotated[Duration, within("5s", "24h")] = timedelta(minutes=2)
    """How long an answer holds after the moment it is true for. Default 2m: survives a restart of
    the server."""

    bearer_token_file: SecretPath | None = None
    """File with a bearer token, read at every request. Default none: a server on loopback needs
    none."""

    ca_file: FilePath | None = None
    """File with the certificate authority of an https address (PEM). Default none: the system's
    authorities."""


class PushSection(SourceSection):
    """A source that is told, by HTTP or by `migscaler demand push`."""

    type: Literal["push"]
    """The kind of source. Required."""

    max_age: Annotated[Duration, within("5s", "24h")] = timedelta(minutes=5)
    """How long a pushed number holds when the one who pushes does not say. Default 5m: a job that
    pushes every minute may fail a few times."""


class SchedulerSection(SourceSection):
    """What waits in the node's own scheduler; with `bare` that is waiting leases."""

    type: Literal["scheduler"]
    """The kind of source. Required."""

    interval: Annotated[Duration, within("1s", "1h")] = timedelta(seconds=5)
    """How often it is asked. Default 5s: on a bare host it costs one look into a local file."""

    max_age: Annotated[Duration, within("5s", "24h")] = timedelta(minutes=1)
    """How long an answer holds. Default 1m: several looks that hang."""


AnySource = Annotated[PrometheusSection | PushSection | SchedulerSection, Discriminator("type")]


class VetoSection(Section):
    """A condition that forbids every change while it is true, or can't be known."""

    source: Name
    """Where to ask: the name of a prometheus source, whose address and token are used; or the word
    prometheus, which means the address given here, else the one that all prometheus sources share.
    Required."""

    query: Query
    """PromQL expression; a value other than 0 vetoes. For an empty answer alive is asked; without
    alive, the left side of a comparison with a number (max(maintenance) of max(maintenance) > 0):
    while that has a value, there is no veto. Required."""

    name: Name | None = None
    """Name in metrics and explanations. Default none: veto-1, veto-2 in the file's order."""

    url: Url | None = None
    """Base address of the server. Default none: that of the source."""

    alive: Query | None = None
    """PromQL expression that gives a value other than 0 while the data can be trusted. Default
    none: a comparison shows by itself whether there is data; any other empty answer is unknown, and
    unknown vetoes."""
