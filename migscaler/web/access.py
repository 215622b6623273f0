"""Who is asking, and what may they: by the Unix socket's peer, token, password or certificate."""

import base64
import binascii
import codecs
import hmac
from pathlib import Path

from starlette.requests import HTTPConnection

from migscaler.web.passwords import Passwords
from migscaler.web.ports import Actor, WebOptions
from migscaler.web.protocol import PEER_PREFIX

OPEN_TO_ALL = frozenset(
    {"lease_take", "lease_poll", "lease_renew", "lease_release", "lease_cancel"}
)
"""Commands that every account of this host may give over the Unix socket."""
PROBES = frozenset({"/-/healthy", "/-/ready"})
"""Answered to everybody: an orchestrator has no password."""
ANONYMOUS = Actor(name="anonymous", trusted=False)
_TOKEN_FILE_BYTES = 65_536


class Access:
    """Finds out who asks; belongs to one event loop."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        self._passwords = Passwords()

    async def identify(self, connection: HTTPConnection) -> Actor:
        """Return who asks; nobody in particular is `ANONYMOUS`.

        A certificate alone counts where no users are configured: exporter-toolkit's file asks for
        both then, and its meaning stays.

        Raises:
            TooManyChecks: passwords are tried faster than they can be checked.
        """
        client = connection.client
        if client is not None and client.host.startswith(PEER_PREFIX):
            uid = int(client.host.removeprefix(PEER_PREFIX))
            trusted = uid in (0, self._options.daemon_uid)
            return Actor(
                name=f"uid {uid}", trusted=trusted, writes=trusted, uid=uid, pid=client.port
            )
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        names: frozenset[str] | None = connection.scope.get("state", {}).get("names")
        users = self._options.protection().users
        writes = bool(names and names & self._options.write_names)
        if scheme.lower() == "bearer":
            return self._bearer(given.strip())
        if scheme.lower() == "basic" and users:
            name, password = _basic(given)
            peer = "" if client is None else client.host
            if await self._passwords.is_right(users, name, password, peer):
                return self._named(f"user {name}", writes=writes)
            return ANONYMOUS
        if names is not None and not users:
            return self._named(f"certificate {min(names, default='without names')}", writes=writes)
        return ANONYMOUS

    def must_prove(self) -> bool:
        """Say whether a caller over TCP has to be somebody in order to read."""
        return bool(self._options.protection().users) or self._options.read_token_file is not None

    def challenge(self) -> str:
        """Return the WWW-Authenticate header: what is accepted."""
        return 'Basic realm="migscaler"' if self._options.protection().users else "Bearer"

    def _bearer(self, given: str) -> Actor:
        """Return who carries a token; both files are compared in constant time."""
        writes = carries_token(given, self._options.token_file)
        reads = carries_token(given, self._options.read_token_file)
        if writes:
            return self._named("token", writes=True)
        return self._named("read token", writes=False) if reads else ANONYMOUS

    def _named(self, name: str, *, writes: bool) -> Actor:
        return Actor(name=name, trusted=True, writes=writes and self._options.writes_over_tcp)


def may_command(actor: Actor, name: str) -> bool:
    """Say whether the caller may give a command: over TCP only where that is switched on.

    Any account of this host may lease over the Unix socket: that is how a bare host shares its
    GPUs. What it leases is bound to the calling process.
    """
    return actor.writes or (actor.uid is not None and name in OPEN_TO_ALL)


def carries_token(given: str, file: Path | None) -> bool:
    """Say whether a text is one of the tokens in a file, one a line.

    The file is read anew, so that tokens can be replaced without a restart: the new one beside the
    old one, until all have it. One that is missing or empty lets nobody in.
    """
    found = False
    for token in _tokens(file):
        # The bytes as they came: headers are decoded byte by byte.
        found |= hmac.compare_digest(given.encode("latin-1"), token)
    return found


def _tokens(file: Path | None) -> list[bytes]:
    """Return the tokens in a file, none without a usable one.

    Not what a line that begins with # says, nor the part of a token that the limit leaves.
    """
    if file is None:
        return []
    try:
        with file.open("rb") as opened:
            raw = opened.read(_TOKEN_FILE_BYTES + 1)
    except OSError:
        return []
    if len(raw) > _TOKEN_FILE_BYTES:
        raw = raw[:_TOKEN_FILE_BYTES].rpartition(b"\n")[0]
    lines = [line.strip() for line in raw.removeprefix(codecs.BOM_UTF8).splitlines()]
    return [line for line in lines if line and not line.startswith(b"#")]


def _basic(given: str) -> tuple[str, bytes]:
    """Return name and password of a Basic header; of a broken one, a name that nobody has."""
    try:
        name, _, password = base64.b64decode(given, validate=True).partition(b":")
        return name.decode(), password
    except (binascii.Error, ValueError):
        return "", b""
