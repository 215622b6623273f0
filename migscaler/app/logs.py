"""Log lines: one event a line, logfmt or JSON, on standard error."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

from migscaler.app.config.settings import LogSettings
from migscaler.model.printable import printable

# Our messages are `event key=%s other=%.3f`: a constant name, then one placeholder per key.
_EVENT = re.compile(r"[a-z][a-z0-9_]*(?= |$)")
_PAIR = re.compile(r" ([a-z][a-z0-9_]*)=(%[-+ 0-9.]*[a-z])")
# What stands in logfmt without quotes: no blank, no quote, no equals sign, something to see.
_BARE = re.compile(r"[^\s\"=\\]+")

# Without a handler Python writes their warnings bare: Uvicorn's one for each request that is none.
_LIBRARIES = ("apscheduler", "uvicorn", "asyncio")


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = dict(_fields(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _dumped(line)


class _Logfmt(logging.Formatter):
    """`time=... level=... part=... event=... key=value`; a value with blanks is quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, a traceback after it."""
        line = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record))
        if record.exc_info:
            line += "\n" + _seen(self.formatException(record.exc_info))
        return line


def set_up_logging(settings: LogSettings) -> None:
    """Send migscaler's log lines to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings.format))
    logger = logging.getLogger("migscaler")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = [handler]
        library.setLevel(logging.ERROR)
        library.propagate = False


def formatter(form: str) -> logging.Formatter:
    """Return what writes a record as `json`, or else as logfmt."""
    return _Json() if form == "json" else _Logfmt()


def _fields(record: logging.LogRecord) -> list[tuple[str, str]]:
    """Return time, level, part, event and the event's own keys, in this order."""
    name = record.name.removeprefix("migscaler.")
    head = [("time", _time(record)), ("level", record.levelname.lower()), ("part", name)]
    return head + _event(record)


def _event(record: logging.LogRecord) -> list[tuple[str, str]]:
    """Return the event and its keys; a library's sentence becomes the event `message`."""
    template = str(record.msg)
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    named = _EVENT.match(template)
    if named is not None:
        pairs = _PAIR.findall(template, named.end())
        is_whole = named.group() + "".join(f" {key}={form}" for key, form in pairs) == template
        if is_whole and len(pairs) == len(arguments):
            values = [
                (key, form % value) for (key, form), value in zip(pairs, arguments, strict=True)
            ]
            return [("event", named.group()), *values]
    return [("event", "message"), ("text", record.getMessage())]


def _quoted(value: str) -> str:
    """Return a value for logfmt; line ends are escaped, so that an event stays on its line."""
    return value if _BARE.fullmatch(value) and value.isprintable() else _dumped(value)


def _dumped(value: object) -> str:
    """Return JSON on one line; where it could order a terminal about, in ASCII alone."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _seen(text: str) -> str:
    """Return lines with what can't be seen written out."""
    return "\n".join(map(printable, text.split("\n")))


def _time(record: logging.LogRecord) -> str:
    """Return the record's time in ISO 8601, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
