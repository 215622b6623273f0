"""The web configuration file of Prometheus' exporter-toolkit, as pydantic reads it.

Its keys and their meaning are the toolkit's (docs/web-configuration.md there); what Python's `ssl`
can't do is refused by name. No message shows a secret.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Annotated

import bcrypt
from pydantic import BeforeValidator, Field

from migscaler.app.config.fields import Section
from migscaler.app.config.texts import SettingRefused, did_you_mean, text_of

SAFE_CLIENT_AUTH = "RequireAndVerifyClientCert"
# A bcrypt check takes about 70 ms at cost 10 and twice that for each cost more: 4.5 s at 16.
MOST_BCRYPT_COST = 16
_HASH = re.compile(rb"^\$2[abxy]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}$")
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_UNVERIFIED = ("RequestClientCert", "RequireClientCert", "RequireAnyClientCert")
_CLIENT_AUTH = ("", "NoClientCert", "VerifyClientCertIfGiven", SAFE_CLIENT_AUTH)
# Go's names (crypto/tls, CipherSuites) and OpenSSL's (openssl-ciphers(1)).
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
# TLS 1.3 has these three and no choice between them, in Go as in OpenSSL.
TLS13_CIPHERS = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_HEADERS = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}


def _secret(value: object) -> object:
    """Return a text; a message would show what else stands there."""
    if not isinstance(value, str):
        raise SettingRefused("is not a text", "write it as a block of text: |")
    return value


def _client_auth(value: object) -> object:
    """Return a policy that Python's ssl can hold: it never takes a certificate unverified."""
    if value in _UNVERIFIED:
        raise SettingRefused(
            f"{value} takes certificates that nobody verified", f"write {SAFE_CLIENT_AUTH}"
        )
    if value not in _CLIENT_AUTH:
        near = did_you_mean(str(value), _CLIENT_AUTH) or SAFE_CLIENT_AUTH
        raise SettingRefused(f"{value!r} is no client_auth_type", f"write {near}")
    return value


def _version(value: object) -> object:
    """Return a TLS version."""
    if value in ("TLS10", "TLS11"):
        raise SettingRefused(f"{value} is broken and not served", "write TLS12 or TLS13")
    if not isinstance(value, str) or value not in _VERSIONS:
        raise SettingRefused(f"{value!r} is no TLS version", "write TLS12 or TLS13")
    return _VERSIONS[value]


def _cipher(value: object) -> object:
    """Return a cipher suite by Go's name."""
    if not isinstance(value, str) or value not in (*CIPHERS, *TLS13_CIPHERS):
        near = did_you_mean(str(value), (*CIPHERS, *TLS13_CIPHERS))
        remedy = f"did you mean {near}?" if near else f"use e.g. {next(reversed(CIPHERS))}"
        raise SettingRefused(f"{value!r} is no cipher suite that is served", remedy)
    return value


def _curves(_value: object) -> object:
    """Refuse: Python's ssl can set one curve, not an order of several."""
    raise SettingRefused(
        "an order of curves can't be told to OpenSSL here",
        "remove it; X25519, P-256, P-384 and P-521 are offered",
    )


def _http2(value: object) -> object:
    """Refuse true: HTTP/1.1 is served, and a client of TLS finds that out by itself."""
    if value is True:
        raise SettingRefused("HTTP/2 is not served", "write false, or remove it")
    return value


def _go_duration(value: object) -> object:
    """Return Go's duration (`1s`, `1m30s`, `500ms`, or whole nanoseconds) in seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value * 1e-9
    text = value if isinstance(value, str) else ""
    if not re.fullmatch(f"(?:{_GO_DURATION.pattern})+", text):
        raise SettingRefused(f"{value!r} is not a duration", "write e.g. 1s or 100ms")
    return sum(float(m[1]) * _GO_UNITS[m[2]] for m in _GO_DURATION.finditer(text))


def _headers(value: object) -> object:
    """Return headers by name; only the toolkit's five, with the values that it knows."""
    if not isinstance(value, Mapping):
        raise SettingRefused("is not a group of keys", "write Name: value lines below it")
    for name, text in value.items():
        if name not in _HEADERS:
            near = did_you_mean(str(name), _HEADERS)
            remedy = f"did you mean {near}?" if near else f"only {', '.join(_HEADERS)}"
            raise SettingRefused(f"header {name} can't be set", remedy)
        if text and (not isinstance(text, str) or not re.fullmatch(r"[\x20-\x7e]+", text)):
            raise SettingRefused(f"{name} is not one line of ASCII", "write it in one line")
        if text and _HEADERS[name] and text not in _HEADERS[name]:
            raise SettingRefused(
                f"{name} can't be {text!r}", f"write {' or '.join(_HEADERS[name])}"
            )
    return value


def _user_hash(value: object) -> object:
    """Return a bcrypt hash; what stands there instead may be a password and is not shown."""
    raw = value.encode() if isinstance(value, str) else b""
    match = _HASH.match(raw)
    if match is None:
        raise SettingRefused(
            "is no bcrypt hash", "write what `htpasswd -nBC 10 NAME` prints after the colon"
        )
    if int(match["cost"]) > MOST_BCRYPT_COST:
        remedy = f"hash it with a cost of 10 to {MOST_BCRYPT_COST}"
        raise SettingRefused(f"a check at cost {int(match['cost'])} takes too long", remedy)
    try:
        bcrypt.checkpw(b"", raw[:4] + b"04" + raw[6:])  # the salt is judged only when it is used
    except ValueError as error:
        raise SettingRefused("has a broken salt", "hash the password anew") from error
    return value


def _path(value: object) -> object:
    """Return a path; it counts from the file's own folder."""
    return text_of(value, "a path")


Secret = Annotated[str, BeforeValidator(_secret)]
PathText = Annotated[str, BeforeValidator(_path)]
Version = Annotated[ssl.TLSVersion, BeforeValidator(_version)]
Seconds = Annotated[float, BeforeValidator(_go_duration)]


class TlsSection(Section):
    """`tls_server_config`."""

    cert: Secret | None = None
    """Certificate with its chain, PEM."""

    key: Secret | None = None
    """Its key, PEM, without a passphrase."""

    client_ca: Secret | None = None
    """Certificates of those who sign clients' certificates, PEM."""

    cert_file: PathText | None = None
    """File with the certificate and its chain, PEM."""

    key_file: PathText | None = None
    """File with its key, PEM, without a passphrase."""

    client_ca_file: PathText | None = None
    """File with certificates of those who sign clients' certificates, PEM."""

    client_auth_type: Annotated[str, BeforeValidator(_client_auth)] = "NoClientCert"
    """Which certificate clients must show."""

    client_allowed_sans: tuple[str, ...] | None = None
    """Alternative names of which a client's certificate must have one."""

    min_version: Version = ssl.TLSVersion.TLSv1_2
    """Oldest TLS version."""

    max_version: Version = ssl.TLSVersion.TLSv1_3
    """Newest TLS version."""

    cipher_suites: tuple[Annotated[str, BeforeValidator(_cipher)], ...] = ()
    """Cipher suites of TLS 1.2, by Go's names."""

    prefer_server_cipher_suites: bool = True
    """Whether the order of the server counts."""

    curve_preferences: Annotated[object, BeforeValidator(_curves)] = None
    """Refused."""


class HttpSection(Section):
    """`http_server_config`."""

    http2: Annotated[bool, BeforeValidator(_http2)] = False
    """Refused if true."""

    headers: Annotated[dict[str, str | None], BeforeValidator(_headers)] = Field(
        default_factory=dict
    )
    """Headers of every answer."""


class RateSection(Section):
    """`rate_limit`."""

    interval: Seconds = 0.0
    """Time between two requests once the burst is used up; 0 for no limit."""

    burst: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests at once."""


class WebFile(Section):
    """The whole file."""

    tls_server_config: TlsSection = TlsSection()
    """Certificate of the server, and of clients."""

    http_server_config: HttpSection = HttpSection()
    """Headers."""

    basic_auth_users: dict[str, Annotated[str, BeforeValidator(_user_hash)]] = Field(
        default_factory=dict
    )
    """Users with the bcrypt hashes of their passwords."""

    rate_limit: RateSection = RateSection()
    """Most requests."""
