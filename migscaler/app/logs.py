"""Log lines: one event a line, logfmt or JSON, on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime

from migscaler.app.config.settings import LogSettings


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class _Logfmt(logging.Formatter):
    """`time=... level=... event key=value`; messages are `event key=value` already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, a traceback after it."""
        name = record.name.removeprefix("migscaler.")
        line = f"time={_time(record)} level={record.levelname.lower()} part={name} "
        line += "event=" + record.getMessage().replace("\n", " ")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up_logging(settings: LogSettings) -> None:
    """Send migscaler's log lines to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Logfmt())
    logger = logging.getLogger("migscaler")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False
    library = logging.getLogger("apscheduler")
    library.handlers[:] = [handler]
    library.setLevel(logging.ERROR)
    library.propagate = False


def _time(record: logging.LogRecord) -> str:
    """Return the record's time in ISO 8601, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
