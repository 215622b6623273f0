"""Looks after the web configuration file: what of it is in force, and what is wrong with it."""

import logging
import os
from pathlib import Path

from migscaler.app.config.web_file import WebReading, read_web_file
from migscaler.app.start import finding_text
from migscaler.web.protection import Protection

_log = logging.getLogger("migscaler.web")

_Stamp = tuple[int, int, int] | None


class WebWatch:
    """One web configuration file with the certificates that it names; None for no file.

    `protection` is the last good one: a file that breaks, or a certificate whose key is not there
    yet, changes nothing but `problems`. It is None until one was good; then nothing may be served
    over TCP, because nobody knows what was to be protected. Used by one thread; `protection` may
    be read by others.
    """

    def __init__(self, path: Path | None, open_to: str | None) -> None:
        """Read the file; `open_to` is the address that it has to protect, see `read_web_file`."""
        self._path = path
        self._open_to = open_to
        self._stamps: dict[Path, _Stamp] = {}
        self.protection: Protection | None = Protection() if path is None else None
        self.problems: tuple[str, ...] = ()
        self.look()

    def look(self) -> bool:
        """Read again what has changed; say whether it did."""
        if self._path is None or (self._stamps and _stamps(self._stamps) == self._stamps):
            return False
        # Stamps are older than what is read: a write in between shows as a change next time.
        stamps = _stamps(dict.fromkeys(self._stamps) or {self._path: None})
        reading = read_web_file(self._path, open_to=self._open_to)
        if set(reading.files) != set(stamps):
            stamps = _stamps(dict.fromkeys(reading.files))
            reading = read_web_file(self._path, open_to=self._open_to)
        self._stamps = stamps
        self._take(reading)
        return True

    def page(self, address: tuple[str, int] | None) -> str | None:
        """Return the page's address, None where nobody is served over TCP."""
        if address is None or self.protection is None:
            return None
        scheme = "http" if self.protection.tls is None else "https"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}/"

    def _take(self, reading: WebReading) -> None:
        """Put a reading in force if it is good, and say what it is."""
        self.problems = tuple(f"{self._path}: {finding_text(f)}" for f in reading.findings)
        for problem in self.problems:
            _log.error("web_config_rejected problem=%s", problem)
        for warning in reading.warnings:
            _log.warning(
                "web_config_doubtful file=%s warning=%s", self._path, finding_text(warning)
            )
        if reading.protection is not None:
            self.protection = reading.protection
            _log.info(
                "web_config_loaded file=%s tls=%s users=%d",
                self._path,
                reading.protection.tls is not None,
                len(reading.protection.users),
            )


def _stamps(files: dict[Path, _Stamp]) -> dict[Path, _Stamp]:
    """Return for each file what changes when it is written or exchanged, None if it is missing."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
