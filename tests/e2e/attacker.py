"""A hostile client in a process of its own: `attacker.py KIND HOST PORT SOURCE`.

Attacks until its standard input ends. Prints what it did so far as a line of JSON, ten times a
second and in the end. Every kind is open loop: it sends whether or not it is answered.
"""

import contextlib
import json
import select
import selectors
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable

GET = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"
PATHS = (b"/metrics", b"/api/v1/status", b"/")
_TOLD_EVERY_SECONDS = 0.1


class Attacker:
    """Opens connections from one source address and counts what becomes of them."""

    def __init__(self, host: str, port: int, source: str) -> None:
        self.target = (host, port)
        self.source = source
        self.is_over = False
        self.tell_at = 0.0
        self.tally: Counter[str] = Counter()

    def connect(self, receive_buffer: int | None = None) -> socket.socket | None:
        """Return a connection, None if it was refused."""
        made = socket.socket()
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(1.0)
        try:
            made.bind((self.source, 0))
            made.connect(self.target)
        except OSError:
            made.close()
            self.tally["not_connected"] += 1
            return None
        made.setblocking(False)
        self.tally["connected"] += 1
        return made

    def is_time(self) -> bool:
        """Say whether to go on; tells now and then how far it is."""
        if time.monotonic() >= self.tell_at:
            print(json.dumps(self.tally), flush=True)
            self.is_over = bool(select.select([sys.stdin], [], [], 0)[0])
            self.tell_at = time.monotonic() + _TOLD_EVERY_SECONDS
        return not self.is_over

    def silent(self, count: int = 500) -> None:
        """Connect and say nothing; who is cut off comes again."""
        self.hold(count, b"", every=0.5)

    def slow_heads(self, count: int = 300) -> None:
        """Send a head byte by byte."""
        self.hold(count, b"x", every=0.5, first=b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: ")

    def slow_bodies(self, count: int = 300) -> None:
        """Announce a body and send it byte by byte, to a route that reads none."""
        head = b"GET /-/healthy HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
        self.hold(count, b"x", every=0.5, first=head)

    def slow_readers(self, count: int = 300) -> None:
        """Ask for much, over and over, and read nothing."""
        self.hold(count, GET % b"/metrics" * 20, every=1.0, receive_buffer=2048)

    def hold(
        self,
        count: int,
        more: bytes,
        every: float,
        first: bytes = b"",
        receive_buffer: int | None = None,
    ) -> None:
        """Keep this many connections, sending a little on each now and then."""
        held: list[socket.socket] = []
        while self.is_time():
            while len(held) < count and self.is_time():
                made = self.connect(receive_buffer)
                if made is None:
                    break
                held.append(made)
                self.send(made, first)
            for one in list(held):
                if not self.send(one, more) or self.is_closed(one, reads=receive_buffer is None):
                    held.remove(one)
                    one.close()
                    self.tally["cut_off"] += 1
            time.sleep(every)
        self.tally["held"] = len(held)

    def send(self, one: socket.socket, data: bytes) -> bool:
        """Send what fits; say whether the connection still lives."""
        try:
            self.tally["bytes"] += one.send(data) if data else 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_closed(self, one: socket.socket, *, reads: bool) -> bool:
        """Say whether the server closed; a client that reads nothing can't tell."""
        if not reads:
            return False
        try:
            got = one.recv(65_536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.count(got)
        return not got

    def count(self, got: bytes) -> None:
        """Count the answers in what was received."""
        for status in (b"200", b"401", b"503"):
            found = got.count(b"HTTP/1.1 " + status)
            if found:
                self.tally[status.decode()] += found

    def pipelined(self, count: int = 48) -> None:
        """Send requests on kept connections as fast as they can be written."""
        batch = b"".join(GET % path for path in PATHS) * 4
        selector = selectors.DefaultSelector()
        open_now = 0
        while self.is_time():
            while open_now < count:
                made = self.connect()
                if made is None:
                    break
                both = selectors.EVENT_READ | selectors.EVENT_WRITE
                selector.register(made, both)
                open_now += 1
            for key, events in selector.select(0.05):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                alive = True
                if events & selectors.EVENT_READ:
                    alive = not self.is_closed(one, reads=True)
                if alive and events & selectors.EVENT_WRITE:
                    before = self.tally["bytes"]
                    alive = self.send(one, batch)
                    self.tally["requests"] += (self.tally["bytes"] - before) * 12 // len(batch)
                if not alive:
                    selector.unregister(one)
                    one.close()
                    open_now -= 1

    def connecting(self) -> None:
        """Open a connection per request as fast as it goes, and read whatever came by then.

        What is still open in the end is read until the server closes: on a busy machine the server
        may not have come to any of the others before they were closed.
        """
        waiting: list[socket.socket] = []
        while self.is_time():
            made = self.connect()
            if made is None:
                continue
            self.tally["requests"] += 1
            self.send(made, GET % b"/metrics")
            waiting.append(made)
            if len(waiting) >= 64:
                old = waiting.pop(0)
                self.is_closed(old, reads=True)
                old.close()
        for left in waiting:
            left.settimeout(5.0)
            self.is_closed(left, reads=True)
            left.close()

    def hellos(self) -> None:
        """Begin a TLS handshake on each new connection, and leave the server alone with it."""
        outgoing = ssl.MemoryBIO()
        begun = trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
        with contextlib.suppress(ssl.SSLWantReadError):
            begun.do_handshake()
        hello = outgoing.read()
        waiting: list[socket.socket] = []
        while self.is_time():
            made = self.connect()
            if made is None:
                continue
            self.tally["requests"] += self.send(made, hello)
            waiting.append(made)
            if len(waiting) >= 64:
                old = waiting.pop(0)
                self.tally["cut_off" if self.is_closed(old, reads=True) else "answered"] += 1
                old.close()

    def handshakes(self) -> None:
        """Shake hands whole on each new connection, one after the other, and ask once."""
        context = trusting()
        while self.is_time():
            made = self.connect()
            if made is None:
                continue
            made.settimeout(1.0)
            self.tally["requests"] += 1
            try:
                with context.wrap_socket(made) as wrapped:
                    wrapped.send(GET % b"/metrics")
                    self.count(wrapped.recv(65_536))
            except OSError:
                made.close()
                self.tally["cut_off"] += 1


def trusting() -> ssl.SSLContext:
    """Return a client's context that believes everybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main() -> None:
    kind, host, port, source = sys.argv[1:]
    attacker = Attacker(host, int(port), source)
    attack: Callable[[], None] = getattr(attacker, kind)
    began = time.monotonic()
    attack()
    took = time.monotonic() - began
    print(json.dumps({**attacker.tally, "seconds": round(took, 2)}))


if __name__ == "__main__":
    main()
