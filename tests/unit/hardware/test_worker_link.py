"""A worker of another version, or one that answers nonsense or half: an error like any other."""

import os
import pickle
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from migscaler import __version__
from migscaler.errors import HardwareError
from migscaler.hardware import worker_wire
from migscaler.hardware.roll_call import NodeFacts
from migscaler.hardware.worker_link import Link
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.hardware.worker_wire import send
from migscaler.model.stats import CallStats

BEGIN = Request(name="begin")


@pytest.fixture
def ends() -> Iterator[tuple[Link, Connection]]:
    """The asking side, and the other end from which anything may be sent."""
    ours, theirs = socket.socketpair()
    link = Link(ours, rest_seconds=0.05)
    with Connection(theirs.detach()) as other:
        yield link, other
    link.close()


def test_worker_of_this_version_says_its_process(ends: tuple[Link, Connection]) -> None:
    link, other = ends
    send(other, Reply(stats=CallStats(), value=(4711, __version__)))

    assert link.greeting(1.0) == 4711


@pytest.mark.parametrize(
    ("value", "theirs"),
    [((4711, "0.0.9"), "0.0.9"), (4711, "another version")],
    ids=["other version", "from before versions were told"],
)
def test_worker_of_another_version_is_refused_with_the_remedy(
    ends: tuple[Link, Connection], value: object, theirs: str
) -> None:
    """Its answers have other fields: whatever they were taken for was wrong, or ended the pass."""
    link, other = ends
    send(other, Reply(stats=CallStats(), value=value))

    with pytest.raises(HardwareError) as caught:
        link.greeting(1.0)
    assert str(caught.value) == (
        f"the NVML worker is {theirs}, this process {__version__}: "
        "restart both services of migscaler (one, if there is one)"
    )


class WithOneFieldMore:
    """Node facts as a newer worker has them."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (worker_wire._made, (NodeFacts, (None, 0.0, 2, None, None, "new")))


@pytest.mark.parametrize(
    "answer",
    [pickle.dumps(WithOneFieldMore()), b"\x80\x04cmigscaler\nno_such_name\n.", b"", b"\x80\x09"],
    ids=["other fields", "unknown name", "nothing", "other protocol"],
)
def test_answer_that_can_not_be_read_is_the_end_of_that_worker(
    ends: tuple[Link, Connection], answer: bytes
) -> None:
    """A ValueError left the reading, and nothing said why the node was not shown."""
    link, other = ends
    other.send_bytes(answer)

    with pytest.raises(ConnectionError, match="the NVML worker's answer to begin can't be read"):
        link.ask(BEGIN, 1.0)


@pytest.mark.parametrize("part", [b"\0\0", b"\0\0\x4e\x20", b"\0\0\x4e\x20half"])
def test_answer_that_stops_in_the_middle_is_the_end_of_that_worker(
    ends: tuple[Link, Connection], part: bytes
) -> None:
    """The deadline was for its first byte; the rest was waited for without end."""
    link, other = ends
    os.write(other.fileno(), part)

    with pytest.raises(ConnectionError, match="the NVML worker ended during begin"):
        link.ask(BEGIN, 1.0)
