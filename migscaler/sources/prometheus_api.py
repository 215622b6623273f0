"""One instant query to a Prometheus server, with every way of failing told in words.

Answer format: Prometheus HTTP API, "Instant queries" (stable since 1.0). The whole exchange has a
deadline and a size limit: a server that drips bytes must not hold up the others. Compressed answers
are refused: 660 bytes of gzip in gzip unpacked to 600 MiB before any limit was looked at.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from migscaler.errors import MigscalerError
from migscaler.model.ports import Clock
from migscaler.sources.deadline import deadline

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 4 * 1024 * 1024
"""A demand query answers with one series per size, some kilobytes."""
_MAX_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a server is reached; the token is read from its file at every request."""

    url: str
    timeout: timedelta
    bearer_token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One series of an answer: labels without the metric name, the value as text, its moment."""

    labels: tuple[tuple[str, str], ...]
    value: str
    at: datetime

    def label(self, name: str) -> str | None:
        """Return a label's value; an empty one is the same as none."""
        return dict(self.labels).get(name) or None

    def label_text(self) -> str:
        """Return the labels as Prometheus writes them."""
        return "{" + ", ".join(f'{name}="{value}"' for name, value in self.labels) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Series of an instant vector; a scalar is one series without labels.

    `problem` says why the numbers can't be used, None when they can; samples may stand beside it.
    """

    samples: tuple[Sample, ...] = ()
    problem: str | None = None


def open_client(connection: Connection) -> "httpx.Client":
    """Return a client for one server; proxies of the environment are not used.

    A file of certificate authorities is read at the first request, see `LateAuthority`.
    """
    # Takes 0.13 s to load, for which a start without such a source need not wait.
    import httpx

    # The deadline ends connections, and only one that it saw begin.
    limits = httpx.Limits(max_keepalive_connections=0)
    seconds = connection.timeout.total_seconds()
    # Loading the system's authorities takes 20 ms and 3 MB, and plain http has no use for them.
    verify = connection.url.startswith("https:")
    if verify and connection.ca_file is not None:
        from migscaler.sources.late_authority import LateAuthority

        transport = LateAuthority(connection.ca_file, limits)
        return httpx.Client(timeout=seconds, trust_env=False, transport=transport)
    return httpx.Client(timeout=seconds, trust_env=False, verify=verify, limits=limits)


def ask(connection: Connection, client: "httpx.Client", clock: Clock, query: str) -> Answer:
    """Return the answer to an instant query; never raises for what a server or network does."""
    seconds = connection.timeout.total_seconds()
    address = f"{connection.url}/api/v1/query"
    parameters = {"query": query, "timeout": f"{seconds:g}s"}
    page = get_page(connection, client, clock, address, parameters)
    return _decode(page.status, page.body) if page.problem is None else Answer(problem=page.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a server answered, within deadline and size; `problem` says why there is nothing.

    `is_refused`: nobody listens at the address.
    """

    status: int = 0
    body: bytes = b""
    problem: str | None = None
    is_refused: bool = False


def get_page(
    connection: Connection,
    client: "httpx.Client",
    clock: Clock,
    address: str,
    parameters: Mapping[str, str],
    accept: str = "application/json",
) -> Page:
    """Return what is at an address; never raises for what a server or network does."""
    import httpx  # see `open_client`

    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    if connection.bearer_token_file is not None:
        try:
            token = connection.bearer_token_file.read_text("ascii").strip()
        except OSError as error:
            return Page(problem=f"bearer token can't be read: {error.strerror}")
        except UnicodeDecodeError:
            return Page(problem="bearer token can't be read: it is not ASCII")
        if not token.isprintable() or " " in token:  # the HTTP library would quote it in its error
            return Page(problem="bearer token can't be read: its file holds more than a token")
        headers["Authorization"] = f"Bearer {token}"
    try:
        request = client.build_request("GET", address, params=parameters or None, headers=headers)
        return _read(client, clock, connection.timeout.total_seconds(), request)
    except (httpx.HTTPError, httpx.InvalidURL, _Refused) as error:
        words = str(error) or type(error).__name__
        problem = _short(f"{connection.url} did not answer: {words}")
        return Page(problem=problem, is_refused=_nobody_listens(error))


class _Refused(MigscalerError):
    """The answer is too slow or too large to be read on."""


def _nobody_listens(error: BaseException) -> bool:
    """Say whether a request failed because no process has the port."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _read(client: "httpx.Client", clock: Clock, seconds: float, request: "httpx.Request") -> Page:
    """Return status and body, within deadline and size.

    Raises:
        _Refused: it took too long, or is too large or compressed.
    """
    import httpx  # see `open_client`

    with deadline(seconds) as cut:
        request.extensions = {**request.extensions, "trace": cut.trace}
        try:
            return _page(client, clock, seconds, request)
        except httpx.HTTPError as error:
            if cut.is_late:
                raise _Refused(f"not complete within {seconds:g} s") from error
            raise


def _page(client: "httpx.Client", clock: Clock, seconds: float, request: "httpx.Request") -> Page:
    """Return status and body."""
    until = clock.monotonic() + seconds
    body = bytearray()
    response = client.send(request, stream=True)
    try:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise _Refused(f"the answer is compressed ({encoding}), which was not asked for")
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise _Refused(f"more than {MAX_BYTES} bytes")
            if clock.monotonic() > until:
                raise _Refused(f"not complete within {seconds:g} s")
    finally:
        response.close()
    return Page(status=response.status_code, body=bytes(body))


def _decode(status: int, body: bytes) -> Answer:
    """Read an answer of the API; errors come as JSON with 4xx or 5xx, or as a proxy's page."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # the latter from a million opening brackets
        return Answer(
            problem=f"HTTP {status} with something that is not JSON; is the address right?"
        )
    if not isinstance(answer, dict):
        return Answer(problem=f"HTTP {status} with JSON that is not an answer of Prometheus")
    if answer.get("status") != "success" or status != 200:
        kind, words = answer.get("errorType", "error"), answer.get("error", "no explanation")
        return Answer(problem=_short(f"HTTP {status}, {kind}: {words}"))
    try:
        samples = _samples(answer["data"])
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        return Answer(problem=_short(f"an answer that can't be read: {error!r}"))
    warnings = answer.get("warnings")
    if warnings:
        return Answer(samples=samples, problem=_short(f"Prometheus warns: {warnings}"))
    return Answer(samples=samples)


def _samples(data: object) -> tuple[Sample, ...]:
    """Decode a vector or scalar; raises ValueError or TypeError for anything else."""
    data = _mapping(data)
    kind, result = data["resultType"], data["result"]
    if not isinstance(result, list):
        raise TypeError("the result is no list")
    if kind == "scalar":
        return (_sample({}, result),)
    if kind == "vector":
        return tuple(_sample(one["metric"], one["value"]) for one in map(_mapping, result))
    raise ValueError(f"the query gives a {kind}, not a number per series")


def _sample(metric: object, value: object) -> Sample:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError("a value is no pair of moment and number")
    moment, text = value
    labels = _mapping(metric).items()
    return Sample(
        labels=tuple(sorted((_text(n), _text(str(v))) for n, v in labels if n != "__name__")),
        value=_text(str(text)),
        at=datetime.fromtimestamp(float(str(moment)), UTC),
    )


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where names and values belong")
    return value


def _text(text: str) -> str:
    """Return a text that can be written: JSON may name half of a pair of surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _short(text: str) -> str:
    text = _text(text)
    return text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "..."
