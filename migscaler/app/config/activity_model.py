"""The settings of activity from DCGM; each is followed by meaning, unit, default and why."""

from datetime import timedelta
from typing import Annotated

from migscaler.app.config.fields import Duration, FilePath, SecretPath, Section, Text, Url, within


class DcgmSection(Section):
    """The page of a dcgm-exporter on this node, read directly."""

    url: Url = "http://127.0.0.1:9400/metrics"
    """Whole address of the page. Default http://127.0.0.1:9400/metrics: the exporter's own
    default."""

    interval: Annotated[Duration, within("1s", "10m")] = timedelta(seconds=15)
    """How often it is read. Default 15s: the exporter measures anew every 30s by default."""

    timeout: Annotated[Duration, within("1s", "1m")] = timedelta(seconds=5)
    """How long an answer may take as a whole. Default 5s: it is some hundred kilobytes."""

    max_age: Annotated[Duration, within("2s", "1h")] = timedelta(minutes=1)
    """How long figures hold when no newer ones come; then activity is unknown. Also how old a page
    may be: at least the exporter's own interval. Default 1m: two of its default intervals."""


class DcgmQuerySection(Section):
    """A Prometheus server that scrapes this node's dcgm-exporter."""

    url: Url
    """Base address of the server, without /api/v1. Required."""

    host: Text | None = None
    """Value of the exporter's label Hostname (or hostname) to which series are limited. Default
    none: a GPU is told by its UUID, whichever host shows it."""

    interval: Annotated[Duration, within("1s", "10m")] = timedelta(seconds=15)
    """How often it is asked. Default 15s: the usual scrape interval, nothing is newer."""

    timeout: Annotated[Duration, within("1s", "1m")] = timedelta(seconds=5)
    """How long an answer may take as a whole. Default 5s: an instant query takes milliseconds."""

    max_age: Annotated[Duration, within("2s", "1h")] = timedelta(minutes=2)
    """How old a sample may be; then activity is unknown. Default 2m: the exporter's interval of 30s
    and a scrape that failed."""

    bearer_token_file: SecretPath | None = None
    """File with a bearer token, read at every request. Default none: a server on loopback needs
    none."""

    ca_file: FilePath | None = None
    """File with the certificate authority of an https address (PEM). Default none: the system's
    authorities."""


class ActivitySection(Section):
    """Where activity per instance comes from on GPUs that NVML tells none of (A100, A30).

    At most one of the two. Hopper and newer need neither.
    """

    dcgm: DcgmSection | None = None
    """The page of a dcgm-exporter on this node. Default none: activity there can't be known, and
    idleness rests on the other signals."""

    prometheus: DcgmQuerySection | None = None
    """The same series from a Prometheus server. Default none: the exporter itself is nearer."""
