"""What protects the TCP side: certificate, users, headers, rate; one value, swapped whole."""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOBODY: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Most requests of the whole TCP side: one each `interval_seconds` after a burst."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What the web configuration file asks for; without arguments, nothing.

    `tls` is None for plain HTTP. `asks_certificate`: whoever connects has proved a certificate of
    the client CA when the first request is read. `client_sans`: if not empty, the certificate has
    one of these alternative names (IP addresses in canonical form). `users`: bcrypt hashes by
    name; not empty means that every request but a probe needs one of them, or a token. `headers`
    replace ours of the same name.
    """

    tls: ssl.SSLContext | None = None
    asks_certificate: bool = False
    client_sans: frozenset[str] = frozenset()
    users: Mapping[str, bytes] = field(default_factory=lambda: _NOBODY)
    headers: tuple[tuple[str, str], ...] = ()
    rate_limit: RateLimit | None = None

    def admits_like(self, other: "Protection") -> bool:
        """Say whether a connection that came in under the other would still come in.

        Users and headers are looked at for each request, a certificate only when one connects: also
        where none is asked for any more, the names of an old one would go on to count.
        """
        if self is other:
            return True
        contexts = (self.tls, other.tls)
        by_certificate = any(c is not None and c.verify_mode is not ssl.CERT_NONE for c in contexts)
        return (self.tls is None) is (other.tls is None) and not by_certificate

    @property
    def authenticates(self) -> bool:
        """Say whether nobody reads without having proved something."""
        return bool(self.users) or self.asks_certificate


def names_of(peer_certificate: Mapping[str, object] | None) -> frozenset[str]:
    """Return the alternative names of a verified certificate (`SSLSocket.getpeercert`).

    DNS names, e-mail and IP addresses and URIs, as exporter-toolkit compares them; empty without a
    certificate.
    """
    names = (peer_certificate or {}).get("subjectAltName", ())
    if not isinstance(names, tuple):
        return frozenset()
    return frozenset(
        canonical(value) if kind == "IP Address" else value
        for kind, value in names
        if kind in ("DNS", "email", "URI", "IP Address")
    )


def canonical(name: str) -> str:
    """Return an IP address in its canonical form, any other name as it is."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
