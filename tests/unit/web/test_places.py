"""Places among the connections: a flood spends its own budget and its own places."""

from migscaler.web.places import Guest, Limits, Places

SMALL = Limits(
    connections=6,
    per_peer=4,
    own_per_second=1.0,
    own_burst=3.0,
    peer_per_second=10.0,
    peer_burst=20.0,
)


class Room:
    """Places with a clock of its own, and who was cut off."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.places = Places(limits)
        self.now = 1000.0
        self.cut_off: list[Guest] = []

    def enter(self, peer: str) -> Guest | None:
        self.now += 0.001
        guest = self.places.admit(peer, self.now)
        if guest is not None:
            guest.end = lambda: self.cut_off.append(guest)
        return guest

    def served(self, peer: str) -> Guest:
        guest = self.enter(peer)
        assert guest is not None
        assert guest.may_ask(self.now)
        guest.finished(self.now)
        return guest


def test_silent_connection_gives_way_to_a_newcomer_of_its_address() -> None:
    room = Room()
    silent = [room.enter("a") for _ in range(4)]

    newcomer = room.enter("a")

    assert newcomer is not None
    assert room.cut_off == [silent[0]]


def test_connections_that_were_served_are_not_cut_off_for_their_own_address() -> None:
    room = Room()
    for _ in range(4):
        room.served("a")

    assert room.enter("a") is None
    assert room.enter("b") is not None
    assert room.cut_off == []


def test_full_house_makes_room_at_the_expense_of_who_has_most() -> None:
    room = Room()
    greedy = [room.served("a") for _ in range(4)]
    room.served("b")
    room.served("c")
    greedy[0].busy = True

    assert room.enter("d") is not None
    assert room.cut_off == [greedy[1]]  # idle longest of those not being answered


def test_full_house_of_equals_makes_room_only_at_the_expense_of_the_silent() -> None:
    room = Room()
    for name in "abcde":
        room.served(name)
    silent = room.enter("f")

    assert room.served("g") is not None
    assert room.cut_off == [silent]
    assert room.enter("h") is None
    assert room.places.refused == 1


def test_place_that_was_left_can_be_taken_and_leaving_twice_counts_once() -> None:
    room = Room()
    guests = [room.served(name) for name in "abcdef"]
    for _ in range(3):
        room.places.leave(guests[0])

    room.served("g")
    assert room.cut_off == []
    assert room.enter("b") is None


def test_address_that_connects_too_often_is_refused_and_others_are_not() -> None:
    room = Room()
    entered = 0
    for _ in range(100):
        guest = room.enter("flood")
        if guest is not None:
            entered += 1
            room.places.leave(guest)

    assert 20 <= entered <= 22
    assert room.enter("scraper") is not None
    room.now += 1.0
    assert room.enter("flood") is not None


def test_kept_connection_asks_on_its_own_account_while_its_address_floods() -> None:
    """A scraper behind the same address as a flood goes on, on the connection that it has."""
    room = Room()
    scraper = room.served("a")
    flood = room.served("a")
    answered = 0
    for second in range(10):
        room.now = 2000.0 + second
        while flood.may_ask(room.now):
            answered += 1
        assert scraper.may_ask(room.now)

    assert answered <= 20 + 9 * 10 + 3 + 9


def test_new_connection_has_earned_nothing_yet() -> None:
    """Else a flood of new connections would ask for nothing what an old one has to pay."""
    room = Room(Limits(own_per_second=1.0, own_burst=3.0, peer_per_second=1e-9, peer_burst=2.0))
    guest = room.enter("a")
    assert guest is not None

    assert [guest.may_ask(room.now) for _ in range(3)] == [True, True, False]
    assert room.enter("a") is None


def test_addresses_that_went_away_are_forgotten() -> None:
    room = Room()
    for number in range(20_000):
        guest = room.enter(f"10.0.{number // 256}.{number % 256}")
        assert guest is not None
        room.places.leave(guest)

    assert len(room.places._peers) <= 4096
