"""Passwords against bcrypt hashes: slow by design, so one at a time, off the loop, remembered."""

import asyncio
import hmac
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

# A check takes 70 ms at the usual cost of 10: the last in the queue waits about a second.
_WAITING = 16
_WAITING_PER_PEER = 3
_REMEMBERED = 256
# What bcrypt itself reads of a password; Go's implementation cuts a longer one there too.
_LONGEST = 72


class TooManyChecks(Exception):
    """More passwords wait to be checked than is fair; try again."""


class Passwords:
    """Checks names and passwords; belongs to one event loop.

    What was found is remembered, right or wrong, until the hash changes: a scraper costs one check.
    Unknown names cost as much as known ones. After a wrong password the one thread that checks
    rests for as long as it worked, so that a flood of them takes at most half a core.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: dict[str, int] = {}
        self._pause = threading.Event()  # never set
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="password")

    async def is_right(
        self, users: Mapping[str, bytes], name: str, password: bytes, peer: str
    ) -> bool:
        """Say whether the password is the one of that user; `peer` is who tries.

        Raises:
            TooManyChecks: this peer, or all together, have too many in the queue.
        """
        hashed = users.get(name)
        tried = self._pseudonym(name.encode(), hashed or b"", password)
        if tried in self._right:
            self._right.move_to_end(tried)
            return True
        if tried in self._wrong:
            return False
        running = self._running.get(tried)
        if running is None:
            running = self._start(tried, hashed or self._nobody(users, name), password, peer)
        found = await asyncio.shield(running)
        return found and hashed is not None

    def _start(
        self, tried: bytes, hashed: bytes, password: bytes, peer: str
    ) -> asyncio.Future[bool]:
        """Put a check into the queue."""
        mine = self._waiting.get(peer, 0)
        if len(self._running) >= _WAITING or mine >= _WAITING_PER_PEER:
            raise TooManyChecks
        self._waiting[peer] = mine + 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._check, hashed, password)
        self._running[tried] = running
        running.add_done_callback(lambda done: self._note(tried, peer, done))
        return running

    def _check(self, hashed: bytes, password: bytes) -> bool:
        """Check one password; runs in the thread, with the interpreter lock released."""
        began = time.monotonic()
        found = bcrypt.checkpw(password[:_LONGEST], hashed)
        if not found:
            self._pause.wait(time.monotonic() - began)
        return found

    def _note(self, tried: bytes, peer: str, done: asyncio.Future[bool]) -> None:
        """Remember what was found; an older finding makes place."""
        del self._running[tried]
        self._waiting[peer] -= 1
        if not self._waiting[peer]:
            del self._waiting[peer]
        if done.cancelled() or done.exception() is not None:
            return
        book = self._right if done.result() else self._wrong
        book[tried] = None
        if len(book) > _REMEMBERED:
            book.popitem(last=False)

    def _pseudonym(self, *parts: bytes) -> bytes:
        """Return what a try is remembered by: no password is kept, and times tell nothing."""
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, framed, "sha256")

    def _nobody(self, users: Mapping[str, bytes], name: str) -> bytes:
        """Return a hash that nothing matches, as costly as that of some user.

        With users of different costs an unknown name has always the same one of them.
        """
        costs = sorted(hashed[4:6] for hashed in users.values()) or [b"10"]
        chosen = costs[self._pseudonym(b"cost", name.encode())[0] % len(costs)]
        return b"$2b$" + chosen + b"$" + b"." * 53
