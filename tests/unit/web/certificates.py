"""Certificates for tests, and web configuration files that name them."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import trustme

_ELLIPTIC = trustme.KeyType.ECDSA


@dataclass(frozen=True)
class Authority:
    """A CA; `ca.crt`, `server.crt` and `server.key` lie in its folder from the start."""

    folder: Path
    ca: trustme.CA = field(default_factory=lambda: trustme.CA(key_type=_ELLIPTIC))

    def __post_init__(self) -> None:
        self.ca.cert_pem.write_to_path(self.folder / "ca.crt")
        self.renew()

    def renew(self, *names: str) -> None:
        """Write a new pair for the server, of loopback if no name is given."""
        self.write("server", *(names or ("localhost", "127.0.0.1")))

    def write(self, stem: str, *names: str) -> tuple[str, str]:
        """Write a pair for these names; return the paths of certificate and key."""
        made = self.ca.issue_cert(*names, key_type=_ELLIPTIC)
        certificate, key = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        made.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        return str(certificate), str(key)

    def client(self, pair: tuple[str, str] | None = None) -> ssl.SSLContext:
        """Return a client's context that trusts the CA and shows a pair, if given."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if pair is not None:
            context.load_cert_chain(*pair)
        return context


PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
CLIENTS = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
