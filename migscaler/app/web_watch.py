"""Looks after the web configuration file: what of it is in force, and what is wrong with it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from migscaler.app.config.web_file import WebReading, read_web_file
from migscaler.app.start import finding_text
from migscaler.errors import Finding
from migscaler.web.protection import Protection

_log = logging.getLogger("migscaler.web")

Stamp = tuple[int, ...] | None


def _read(path: Path, open_to: str | None) -> WebReading:
    return read_web_file(path, open_to=open_to)


class WebWatch:
    """One web configuration file with the certificates that it names; None for no file.

    `protection` is the last good one: a file that breaks, or a certificate whose key is not there
    yet, changes nothing but `problems`. It is None until one was good; then nothing may be served
    over TCP, because nobody knows what was to be protected. Used by one thread; `protection` may
    be read by others.
    """

    def __init__(
        self,
        path: Path | None,
        open_to: str | None,
        read: Callable[[Path, str | None], WebReading] = _read,
    ) -> None:
        """Read the file; `open_to` is the address that it has to protect, see `read_web_file`."""
        self._path = path
        self._open_to = open_to
        self._read = read
        self._stamps: dict[Path, Stamp] = {}
        self._told: tuple[tuple[str, ...], tuple[Finding, ...]] = ((), ())
        self._is_asked = False
        self.protection: Protection | None = Protection() if path is None else None
        self.problems: tuple[str, ...] = ()
        self.look()

    def read_again(self) -> None:
        """Have the next look read everything; may be called in a signal handler."""
        self._is_asked = True

    def look(self) -> bool:
        """Read again what has changed; say whether anything has, of protection or problems.

        While something is wrong, everything is read at each look (some milliseconds): what mends it
        need not show on any file, e.g. a right on the folder above.
        """
        if self._path is None:
            return False
        asked, self._is_asked = self._is_asked, False
        is_new = not self._stamps or _stamps(self._stamps) != self._stamps
        if not (is_new or asked or self.problems):
            return False
        # Stamps are older than what is read: a write in between shows as a change next time.
        stamps = _stamps(dict.fromkeys(self._stamps) or {self._path: None})
        reading = self._read(self._path, self._open_to)
        if set(reading.files) != set(stamps):
            stamps = _stamps(dict.fromkeys(reading.files))
            reading = self._read(self._path, self._open_to)
        self._stamps = stamps
        return self._take(reading)

    def page(self, address: tuple[str, int] | None) -> str | None:
        """Return the page's address, None where nobody is served over TCP."""
        if address is None or self.protection is None:
            return None
        scheme = "http" if self.protection.tls is None else "https"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}/"

    def _take(self, reading: WebReading) -> bool:
        """Put a reading in force if it is good, and say what it is; False if nothing is new."""
        self.problems = tuple(f"{self._path}: {finding_text(f)}" for f in reading.findings)
        told = (self.problems, reading.warnings)
        if reading.protection is None and told == self._told:
            return False
        self._told = told
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
        return True


def _stamps(files: dict[Path, Stamp]) -> dict[Path, Stamp]:
    """Return for each file what changes when it is written or exchanged, None if it is missing."""
    return {path: stamp(path) for path in files}


def stamp(path: Path | None) -> Stamp:
    """Return what changes when a file is written or exchanged, None if it is missing or none."""
    try:
        return None if path is None else stamp_of(os.stat(path))
    except OSError:
        return None


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is written or exchanged, or a right to it is given.

    Its times alone do not tell: many kernels count them in steps of some milliseconds.
    """
    times = found.st_mtime_ns, found.st_ctime_ns
    return *times, found.st_size, found.st_ino, found.st_mode, found.st_uid, found.st_gid
