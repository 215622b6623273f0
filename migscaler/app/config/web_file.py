"""Read a web configuration file and what it names; every finding at once, or a protection."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from migscaler.app.config.findings import finding_at, findings_of
from migscaler.app.config.load import file_text, in_file_order, joined, without_nulls
from migscaler.app.config.quoting import may_be_path, quoted_path
from migscaler.app.config.unforeseen import unforeseen
from migscaler.app.config.web_model import RateSection, WebFile
from migscaler.app.config.web_tls import build_tls, names_clients, wants_tls
from migscaler.app.config.yaml_text import Document, read_yaml
from migscaler.app.config.yaml_text import Path as YamlPath
from migscaler.errors import ConfigError, Finding
from migscaler.web.protection import Protection, RateLimit, canonical

EXAMPLE = "config/web.yml"
_FILE_KEYS = ("cert_file", "key_file", "client_ca_file")
_QUOTED = re.compile(r"(['\"])(?!<).{2,}\1")
_SECRETS = ("basic_auth_users", "tls_server_config.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebReading:
    """A web configuration file as it was read; `protection` is None where something is wrong.

    `files` are all that count, also those that could not be read: a change of one may mend it.
    `warnings` are what is allowed and surely not meant.
    """

    path: Path
    protection: Protection | None
    findings: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    files: tuple[Path, ...] = ()


def read_web_file(path: Path, *, open_to: str | None = None) -> WebReading:
    """Read the file, and the certificates that it names; never raises for what is in them.

    `open_to` is the address that the file has to protect, None where reads need no protection
    (loopback, `unprotected_reads`, a token of the main file).
    """
    try:
        return _reading_of(path, file_text(path, EXAMPLE), open_to)
    except ConfigError as error:
        findings = error.findings
    except Exception as error:  # noqa: BLE001 - a check that fails itself must not end the daemon
        findings = (unforeseen(error),)
    return WebReading(path=path, protection=None, findings=findings, files=(path,))


def _reading_of(path: Path, text: str, open_to: str | None) -> WebReading:
    """Return how a file reads whose text this is."""
    document = read_yaml(text)
    book = _Book(document=document, folder=path.parent, files=[path])
    findings = [_without_secret(finding) for finding in document.findings]
    web = book.model() if document.value is not None or not findings else None
    protection = None if web is None else book.protection(web, open_to)
    findings = joined(findings, book.findings)
    return WebReading(
        path=path,
        protection=None if findings else protection,
        findings=in_file_order(findings),
        warnings=tuple(book.warnings),
        files=tuple(book.files),
    )


@dataclass(slots=True)
class _Book:
    """One reading of a file: collects findings, warnings and the files that count."""

    document: Document
    folder: Path
    files: list[Path]
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def wrong(self, path: YamlPath, problem: str, remedy: str) -> None:
        """Keep a finding at its place."""
        self.findings.append(finding_at(self.document, path, problem, remedy))

    def doubt(self, path: YamlPath, problem: str, remedy: str) -> None:
        """Keep a warning at its place."""
        self.warnings.append(finding_at(self.document, path, problem, remedy))

    def content(self, key: str, name: str) -> bytes | None:
        """Return what a file holds that a key of `tls_server_config` names, relative to ours.

        A finding quotes what stands under `key_file` only if it has a dot, which no key has: it may
        be the key itself, without its frame.
        """
        where = ("tls_server_config", key)
        if not may_be_path(name):
            remedy = f"write a path, or give the text as {key.removesuffix('_file')}:"
            self.wrong(where, "is a text, not the path of a file", remedy)
            return None
        path = self.folder / name
        self.files.append(path)
        try:
            return path.read_bytes()
        except OSError as error:
            shown = key != "key_file" or "." in name
            quoted = quoted_path(str(path)) if shown else "the file"
            remedy = f"check path (it counts from {self.folder}) and rights"
            self.wrong(where, f"{quoted} can't be read: {error.strerror}", remedy)
            return None

    def model(self) -> WebFile | None:
        """Return the file as pydantic reads it, None if its form is wrong."""
        if not isinstance(self.document.value, Mapping):
            self.wrong((), "the file is not a mapping of keys", f"see {EXAMPLE}")
            return None
        value = _without_empty(self.document.value)
        try:
            return WebFile.model_validate(value)
        except ValidationError as error:
            found = findings_of(error, self.document, WebFile)
            self.findings += [_without_text(finding) for finding in found]
            self.read_all(value.get("tls_server_config"))
            return None

    def read_all(self, tls: object) -> None:
        """Read the files of a section whose form is wrong: what is missing is said at once too."""
        for key in _FILE_KEYS:
            name = tls.get(key) if isinstance(tls, Mapping) else None
            if isinstance(name, str):
                self.content(key, name)

    def protection(self, web: WebFile, open_to: str | None) -> Protection:
        """Return what the file asks for; where something is wrong, findings tell."""
        tls = web.tls_server_config
        for name in web.basic_auth_users:
            if ":" in name or not name or not name.isprintable():
                self.wrong(
                    ("basic_auth_users", name), "no client can send such a name", "leave out the :"
                )
        made = Protection(
            tls=build_tls(tls, self) if wants_tls(tls) else None,
            asks_certificate=names_clients(tls),
            client_sans=frozenset(map(canonical, tls.client_allowed_sans or ())),
            users={name: text.encode() for name, text in web.basic_auth_users.items()},
            headers=tuple((k, v) for k, v in web.http_server_config.headers.items() if v),
            rate_limit=self.rate_limit(web.rate_limit),
        )
        if open_to is not None and not made.authenticates:
            self.wrong(
                (),
                f"everybody who reaches {open_to} could read: no users, no client certificate",
                "add basic_auth_users, or web.unprotected_reads: true to migscaler's own file",
            )
        if open_to is not None and made.users and not wants_tls(tls):
            self.doubt(
                ("basic_auth_users",),
                f"passwords cross the network to {open_to} in clear",
                "add tls_server_config",
            )
        return made

    def rate_limit(self, section: RateSection) -> RateLimit | None:
        """Return the limit, None without one."""
        if section.interval == 0:
            return None
        if section.burst < 1:
            self.wrong(("rate_limit",), "a burst of 0 answers nobody", "write burst: 1 or more")
        return RateLimit(interval_seconds=section.interval, burst=section.burst)


def _without_empty(file: Mapping[str, object]) -> Mapping[str, object]:
    """Return the file without nulls and empty texts of TLS: they mean nothing, as in Go."""
    value = without_nulls(file, WebFile)
    kept = value if isinstance(value, Mapping) else {}
    tls = kept.get("tls_server_config")
    if not isinstance(tls, Mapping):
        return kept
    return {**kept, "tls_server_config": {k: v for k, v in tls.items() if v != ""}}


def _without_text(finding: Finding) -> Finding:
    """Return a finding without the text that stands where keys belong: it may hold a password."""
    _, ends, _ = finding.problem.rpartition("is not a group of keys")
    return replace(finding, problem=ends) if ends else finding


def _without_secret(finding: Finding) -> Finding:
    """Return a finding about the text that does not quote a password or key."""
    if finding.where.startswith(_SECRETS):
        return replace(finding, problem="can't be read as a text", remedy="write it in quotes")
    # What YAML itself can't read it quotes: of `alice: *hunter2` the name of the alias.
    return replace(finding, problem=_QUOTED.sub("what stands there", finding.problem))
