"""Who is asking: peer credentials of the Unix socket, or a bearer token over TCP."""

import hmac

from starlette.requests import HTTPConnection

from migscaler.web.ports import Actor, WebOptions
from migscaler.web.protocol import PEER_PREFIX

OPEN_TO_ALL = frozenset(
    {"lease_take", "lease_poll", "lease_renew", "lease_release", "lease_cancel"}
)
"""Commands that every account of this host may give over the Unix socket."""
ANONYMOUS = Actor(name="anonymous", trusted=False)


def identify(connection: HTTPConnection, options: WebOptions) -> Actor:
    """Return who asks; nobody in particular is `ANONYMOUS`, never an error."""
    client = connection.client
    if client is not None and client.host.startswith(PEER_PREFIX):
        uid = int(client.host.removeprefix(PEER_PREFIX))
        trusted = uid in (0, options.daemon_uid)
        return Actor(name=f"uid {uid}", trusted=trusted, uid=uid, pid=client.port)
    if carries_token(connection.headers.get("authorization", ""), options):
        return Actor(name="token", trusted=True)
    return ANONYMOUS


def may_command(actor: Actor, options: WebOptions, name: str) -> bool:
    """Say whether the caller may give a command: over TCP only where that is switched on.

    Any account of this host may lease over the Unix socket: that is how a bare host shares its
    GPUs. What it leases is bound to the calling process.
    """
    if actor.uid is not None and name in OPEN_TO_ALL:
        return True
    return actor.trusted and (actor.uid is not None or options.writes_over_tcp)


def carries_token(authorization: str, options: WebOptions) -> bool:
    """Say whether an Authorization header carries the token; compared in constant time."""
    scheme, _, given = authorization.partition(" ")
    expected = _token(options)
    if scheme.lower() != "bearer" or expected is None:
        return False
    return hmac.compare_digest(given.strip().encode(), expected)


def _token(options: WebOptions) -> bytes | None:
    """Return the token in the file, None without a usable one."""
    if options.token_file is None:
        return None
    try:
        return options.token_file.read_bytes().strip() or None
    except OSError:
        return None
