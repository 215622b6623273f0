"""Whether a server's certificate is in its time: what a client would say of it."""

import ssl

_NOT_YET, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h."""
_FLIGHTS = 8
"""A handshake has four at most, of which each is fed and read here once."""


def time_problem(cert: bytes, pair: ssl.SSLContext) -> str | None:
    """Return why clients refuse the certificate for its time, None if they don't.

    Shakes hands with `pair`, a server's context that has loaded it, in memory: the standard library
    reads no certificate, but it verifies one. Costs some milliseconds. What else may be wrong with
    it (names, authority) is not looked at.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself
    try:
        client.load_verify_locations(cadata=cert.decode("ascii", "ignore"))
        _shake_hands(client, pair)
    except ssl.SSLCertVerificationError as error:
        return {_NOT_YET: "is not valid yet", _EXPIRED: "has expired"}.get(error.verify_code)
    except (ssl.SSLError, ValueError):
        return None
    return None


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Let two contexts shake hands in memory.

    Raises:
        ssl.SSLError: one of them refused the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    )
    for _ in range(_FLIGHTS):
        waits = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waits += 1
        if waits == 0:
            return
