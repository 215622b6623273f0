"""Texts of the configuration file that mean something: durations, sizes, addresses, dates, names.

Each function takes whatever YAML gave and returns the value, or raises `SettingRefused` with the
problem and what to write instead.
"""

import difflib
import ipaddress
import re
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from urllib.parse import urlsplit

from migscaler.app.config.quoting import may_be_path, quoted_address, quoted_path
from migscaler.errors import ParseError
from migscaler.model.profile import check_size_text
from migscaler.sources.calendar import check_window

_DURATION = re.compile(r"^(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,9})s)?$")
_SIZE = re.compile(r"^(?P<count>\d{1,12})(?P<unit>B|KiB|MiB|GiB|TiB)$")
_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_GPU_UUID = re.compile(r"^GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_LISTEN = re.compile(r"^(?P<host>\[[^\]]*\]|[^:\[\]]*):(?P<port>\d{1,5})$")
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Years of a date: at the ends of the calendar the next day, or another time zone, has none."""
LONGEST = timedelta(days=3660)
"""Ten years: beyond it a duration is a slip of the keyboard, and datetime arithmetic may
overflow."""
UNIX_PATH_MAX = 107
"""Bytes of a Unix socket's path (unix(7): sun_path has 108 with the final NUL)."""


class SettingRefused(ParseError, ValueError):
    """One value of the configuration can't be used; pydantic collects it as a ValueError."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Keep what is wrong and what to write instead."""
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like the given one, None if none is near."""
    candidates = sorted(set(known))
    folded = {c.casefold(): c for c in candidates}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def parse_duration(value: object) -> timedelta:
    """Read `90s`, `1h30m`, `8h`; a duration passes as it is."""
    if isinstance(value, timedelta):
        return value
    remedy = "write it with units: 90s, 5m, 1h30m, 8h"
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise SettingRefused(f"{value} has no unit", f"{remedy}; did you mean {value:g}s?")
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None or value == "":
        raise SettingRefused(f"{shown(value)} is not a duration", f"{remedy} (a day is 24h)")
    hours, minutes, seconds = (int(match[unit] or 0) for unit in "hms")
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if duration > LONGEST:
        raise SettingRefused(f"{value} is longer than ten years", "write a shorter duration")
    return duration


def format_duration(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back; whole seconds."""
    seconds = int(duration.total_seconds())
    hours, minutes, rest = seconds // 3600, seconds % 3600 // 60, seconds % 60
    parts = [f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if n]
    return "".join(parts) or "0s"


def parse_bytes(value: object) -> int:
    """Read `64MiB` as bytes; an exact number of binary units only."""
    remedy = "write it with a unit: 64MiB, 1GiB (B, KiB, MiB, GiB, TiB)"
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise SettingRefused(f"{value} has no unit", f"{remedy}; did you mean {value:g}MiB?")
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise SettingRefused(f"{shown(value)} is not a size", remedy)
    return int(match["count"]) * _UNITS[match["unit"]]


def format_bytes(count: int) -> str:
    """Return a number of bytes in the largest unit that divides it."""
    for unit, factor in reversed(_UNITS.items()):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count}B"


def shown(value: object) -> str:
    """Return a value as a message shows it; lists and groups only by their kind."""
    if isinstance(value, tuple | dict):
        return "a list" if isinstance(value, tuple) else "a group of keys"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)


def text_of(value: object, what: str) -> str:
    """Return a non-empty text; numbers and booleans must be quoted to be texts."""
    if not isinstance(value, str):
        raise SettingRefused(f"{shown(value)} is not {what}", f"write {what} as a text, in quotes")
    if not value.strip():
        raise SettingRefused("is empty", f"write {what}")
    return value.strip()


def check_size(value: object) -> str:
    """Return a size class or profile name."""
    text = text_of(value, "a size (1g, 3g.20gb)")
    try:
        return check_size_text(text)
    except ParseError as error:
        remedy = "write a class (1g to 7g, 1gx, 1g+me) or a profile name (3g.20gb)"
        raise SettingRefused(str(error).split(";")[0], remedy) from error


def check_gpu_uuid(value: object) -> str:
    """Return a GPU's UUID as `nvidia-smi -L` prints it, in lower case."""
    text = text_of(value, "a GPU's UUID")
    if text.startswith("MIG-"):
        raise SettingRefused(
            f"{text} names a MIG device, not a GPU", "write the GPU's own UUID (nvidia-smi -L)"
        )
    lowered = "GPU-" + text[4:].lower() if text[:4].upper() == "GPU-" else text
    if not _GPU_UUID.match(lowered):
        remedy = (
            "write it whole, as nvidia-smi -L prints it: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
        )
        raise SettingRefused(f"{text!r} is not a GPU's UUID", remedy)
    return lowered


def check_glob(value: object) -> str:
    """Return a pattern for GPU product names with * ? and [..]."""
    text = text_of(value, "a GPU model pattern")
    if "[" in text and not re.search(r"\[!?[^\]]+\]", text):
        raise SettingRefused(
            f"{text!r} has a [ that is never closed", 'close it, e.g. "NVIDIA A[13]0*"'
        )
    if set(text) & set("|^$()"):
        raise SettingRefused(
            f"{text!r} looks like a regular expression", 'write a shell pattern: "NVIDIA A100*"'
        )
    return text


def check_name(value: object) -> str:
    """Return the name of a rule or source: it becomes a label value and part of a command."""
    text = text_of(value, "a name")
    if not _NAME.match(text):
        raise SettingRefused(
            f"{text!r} is not a usable name", "use a-z, 0-9, - and _, at most 63, e.g. notebooks"
        )
    return text


def check_window_text(value: object) -> str:
    """Return a calendar window's text."""
    text = text_of(value, "a window")
    try:
        check_window(text)
    except ParseError as error:
        remedy = 'write "mon-fri 08:30-19:00", "22:00-06:00", "sat,sun" or "2026-12-20..2027-01-04"'
        raise SettingRefused(str(error), remedy) from error
    return text


def check_timezone(value: object) -> str:
    """Return an IANA time zone name that this machine has data for."""
    text = text_of(value, "a time zone")
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = did_you_mean(text, zoneinfo.available_timezones())
        hint = (
            f"did you mean {near}?" if near else "write an IANA name such as Europe/Berlin or UTC"
        )
        raise SettingRefused(f"{text!r} is not a known time zone", hint) from error
    return text


def check_until(value: object) -> str:
    """Return a date or a date with time; which moment it is depends on the file's time zone."""
    text = text_of(value, "a date")
    parse_until(text, "UTC")
    return text


def parse_until(text: str, timezone: str) -> datetime:
    """Return the moment in UTC at which `until` is over: a date alone lasts to its end."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        remedy = (
            'write "2027-03-31" (through that day), "2027-03-31T18:00" or with an offset "+09:00"'
        )
        raise SettingRefused(f"{text!r} is not a date", remedy) from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        remedy = f"write a year from {FIRST_YEAR} to {LAST_YEAR}, or leave it out for no end"
        raise SettingRefused(f"the year {moment.year} can't be used", remedy)
    zone = zoneinfo.ZoneInfo(timezone)
    if _DATE.match(text):
        return datetime.combine(moment.date() + timedelta(days=1), time(), zone).astimezone(UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def check_http_url(value: object) -> str:
    """Return the base address of a Prometheus server, without a final slash."""
    text = text_of(value, "an address")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        problem = f"{quoted_address(text)} is not an address"
        raise SettingRefused(problem, 'write "http://host:9090"') from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", text):
        problem = f"{quoted_address(text)} is not an http address"
        raise SettingRefused(problem, 'write "http://host:9090"')
    if parts.username is not None or parts.password is not None:
        raise SettingRefused(
            "the address holds a password", "use bearer_token_file; secrets stand in files"
        )
    if parts.query or parts.fragment:
        raise SettingRefused(
            "the address has a query part", "write the address only; the query has its own key"
        )
    if "/api/v1" in parts.path:
        raise SettingRefused(
            f"{quoted_address(text)} includes the API's path", "leave out /api/v1 and what follows"
        )
    return text.rstrip("/")


def split_listen(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:9836`, `[::1]:9836`, or `:9836` (every address)."""
    match = _LISTEN.match(text)
    if match is None or int(match["port"]) > 65535:
        remedy = 'write host:port in quotes: "127.0.0.1:9836", "[::1]:9836"'
        raise SettingRefused(f"{text!r} is not an address to listen on", remedy)
    host = match["host"].strip("[]")
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            raise SettingRefused(
                f"{host!r} is not an IP address", 'write e.g. "127.0.0.1:9836"'
            ) from error
    return host or "0.0.0.0", int(match["port"])  # noqa: S104  # ":9836" asks for every address


def has_page(url: str) -> bool:
    """Say whether an address names a page of its server; one that is broken is told elsewhere."""
    try:
        return bool(urlsplit(url).path.strip("/"))
    except ValueError:
        return True


def is_loopback(host: str) -> bool:
    """Say whether a host reaches this machine only; a name other than localhost does not count."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(value: object) -> str:
    """Return an address to listen on."""
    text = text_of(value, 'an address ("127.0.0.1:9836")')
    split_listen(text)
    return text


def check_absolute_path(value: object) -> str:
    """Return an absolute path; relative ones would depend on where the daemon was started."""
    text = text_of(value, "a path")
    if not may_be_path(text):
        raise SettingRefused("is a text, not the path of a file", "write the path: /etc/...")
    if not text.startswith("/"):
        raise SettingRefused(
            f"{quoted_path(text)} is a relative path", "write it from the root: /etc/migscaler/..."
        )
    return text


def check_secret_path(value: object) -> str:
    """Return the absolute path of a file that holds a secret; what else stands there may be it."""
    if not isinstance(value, str) or not may_be_path(value) or not value.strip().startswith("/"):
        remedy = "write the path of a file that holds it: /etc/migscaler/..."
        raise SettingRefused("is not an absolute path", remedy)
    return value.strip()


def check_socket_path(value: object) -> str:
    """Return an absolute path that a Unix socket can have."""
    text = check_absolute_path(value)
    if len(text.encode()) > UNIX_PATH_MAX:
        raise SettingRefused(
            f"{quoted_path(text)} is too long for a Unix socket",
            f"use a path of at most {UNIX_PATH_MAX} bytes",
        )
    return text


def check_query(value: object) -> str:
    """Return a PromQL expression; brackets and quotes must at least be balanced."""
    text = text_of(value, "a PromQL expression")
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`', "", text)
    for opening, closing in ("()", "{}", "[]"):
        if bare.count(opening) != bare.count(closing):
            raise SettingRefused(
                f"{opening} and {closing} do not match in the query", "close every bracket"
            )
    if set(bare) & set("\"'`"):
        raise SettingRefused("a quote in the query is never closed", "close every quote")
    return text
