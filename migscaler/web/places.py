"""Who gets a place among the connections, who has to leave for it, and how much each may ask.

An address that floods loses its own places and its own budget, never those of others; what it is
refused costs microseconds. Nothing here does I/O; times are seconds of one monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from migscaler.model.bucket import Bucket

_MOST_PEERS = 4096
"""Addresses remembered without a connection; each is some 300 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one listening socket.

    `connections` at once, of which one address has at most `per_peer`. A connection may ask
    `own_per_second` (after a burst) on its own account: a scraper that keeps its connection needs
    no more. What goes beyond, and each new connection, is paid by its address:
    `peer_per_second` after a burst of `peer_burst`.
    """

    connections: int = 256
    per_peer: int = 32
    own_per_second: float = 2.0
    own_burst: float = 10.0
    peer_per_second: float = 100.0
    peer_burst: float = 200.0


TCP_LIMITS = Limits()
UNIX_LIMITS = Limits(per_peer=192, peer_per_second=500.0, peer_burst=1000.0)
"""On the Unix socket the accounts of this host take the part of addresses."""


def _not_there_yet() -> None:
    """End nothing: a connection can be cut off once it has begun to enter."""


@dataclass(slots=True, eq=False)
class Guest:
    """One connection. `end` cuts it off at once; `busy` while it is being answered."""

    since: float
    own: Bucket
    peer: "_Peer"
    end: Callable[[], None] = _not_there_yet
    served: int = 0
    busy: bool = False

    def may_ask(self, now: float) -> bool:
        """Say whether one more request is to be answered; what is not, is not counted."""
        return self.own.take(now) or self.peer.bucket.take(now)

    def finished(self, now: float) -> None:
        """Note an answer; idleness counts from here."""
        self.busy, self.served, self.since = False, self.served + 1, now

    @property
    def is_silent(self) -> bool:
        """Say whether it has not asked for anything yet."""
        return not self.busy and self.served == 0


@dataclass(slots=True, eq=False)
class _Peer:
    """One address (or account): its connections, oldest first, and its budget."""

    name: str
    bucket: Bucket
    guests: dict[Guest, None] = field(default_factory=dict)


class Places:
    """The places of one listening socket; used by one thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._peers: dict[str, _Peer] = {}
        self._taken = 0
        self.refused = 0

    def admit(self, name: str, now: float) -> Guest | None:
        """Give a new connection of an address a place, None if there is none for it.

        For a newcomer the oldest connection of its own address that never asked anything is cut
        off; where all places are taken, one of the address that holds most of them, or where all
        hold as few, the oldest of all that never asked.
        """
        peer = self._peer(name, now)
        if not peer.bucket.take(now) or not self._make_room(peer):
            self.refused += 1
            return None
        limits = self._limits
        own = Bucket(limits.own_per_second, limits.own_burst, now, tokens=1.0)
        guest = Guest(since=now, own=own, peer=peer)
        peer.guests[guest] = None
        self._taken += 1
        return guest

    def leave(self, guest: Guest) -> None:
        """Take back the place of a connection that ended; again does nothing."""
        if guest.peer.guests.pop(guest, guest) is None:
            self._taken -= 1

    def _make_room(self, peer: _Peer) -> bool:
        """Say whether there is a place, after cutting somebody off where need be."""
        if len(peer.guests) >= self._limits.per_peer:
            return self._cut_off(next((g for g in peer.guests if g.is_silent), None))
        if self._taken < self._limits.connections:
            return True
        greedy = max(self._peers.values(), key=lambda one: len(one.guests))
        if len(greedy.guests) > len(peer.guests) + 1:
            return self._cut_off(min(greedy.guests, key=_worth))
        silent = (g for one in self._peers.values() for g in one.guests if g.is_silent)
        return self._cut_off(min(silent, key=_worth, default=None))

    def _cut_off(self, guest: Guest | None) -> bool:
        """End a connection and take its place back; without one there is no room."""
        if guest is None:
            return False
        self.leave(guest)
        guest.end()
        return True

    def _peer(self, name: str, now: float) -> _Peer:
        """Return what is known of an address."""
        known = self._peers.get(name)
        if known is not None:
            return known
        if len(self._peers) >= _MOST_PEERS:
            self._forget(now)
        limits = self._limits
        bucket = Bucket(limits.peer_per_second, limits.peer_burst, now)
        made = self._peers[name] = _Peer(name, bucket)
        return made

    def _forget(self, now: float) -> None:
        """Forget addresses without connections; those that spent nothing first."""
        away = [peer for peer in self._peers.values() if not peer.guests]
        rested = [peer for peer in away if peer.bucket.is_full(now)]
        for peer in rested or away[: len(away) // 2 + 1]:
            del self._peers[peer.name]


def _worth(guest: Guest) -> tuple[bool, bool, float]:
    """Return what is cut off last: a connection being answered, then one that asked lately."""
    return guest.busy, guest.served > 0, guest.since
