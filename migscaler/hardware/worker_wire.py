"""How answers cross from the NVML worker: pickled, cheaper than usual.

Only what comes from the worker, or from a parent to its own child, is pickled; requests are not
(`worker_commands`).

A frozen dataclass with slots is pickled field by field in Python (`dataclasses._dataclass_setstate`
looks its fields up again for every value): 3 ms for a reading of 56 instances, on either side.
"""

import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from io import BytesIO
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import TypeVar

T = TypeVar("T")


class UnreadableAnswer(ValueError):
    """What arrived was not sent by this version's worker; the message says what is wrong."""


def send(connection: Connection, message: object) -> None:
    """Send a message.

    Raises:
        OSError: the other end is closed.
    """
    buffer = BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    connection.send_bytes(buffer.getbuffer())


def receive(connection: Connection) -> object:
    """Wait for a message and return it; as with any pickle, the other end must be trusted.

    Raises:
        EOFError: the other end is closed.
        OSError: as EOFError.
        UnreadableAnswer: it is none of ours.
    """
    message = connection.recv_bytes()
    try:
        return pickle.loads(message)  # noqa: S301 - our own child or parent
    except Exception as error:
        # What another version sends may fail in any way: a class it does not have, other fields.
        raise UnreadableAnswer(f"{type(error).__name__}: {error}") from error


class _Pickler(pickle.Pickler):
    """Writes our values as class and field values."""

    def reducer_override(
        self, obj: object
    ) -> tuple[Callable[..., object], tuple[type, tuple[object, ...]]]:
        """Say how a value of ours is made again; anything else is pickled as usual."""
        take = _taker(type(obj))  # type: ignore[arg-type] # mypy does not know classes as hashable
        return NotImplemented if take is None else (_made, (type(obj), take(obj)))


@cache
def _taker(kind: type) -> Callable[[object], tuple[object, ...]] | None:
    """Return what takes the field values out of a value, None if the type is none of ours."""
    if not (is_dataclass(kind) and "__slots__" in vars(kind)):
        return None
    names = [field.name for field in fields(kind)]
    take = attrgetter(*names) if names else None
    if take is None or len(names) == 1:
        return lambda value: tuple(getattr(value, name) for name in names)
    return take


@cache
def _setters(kind: type) -> tuple[Callable[[object, object], None], ...]:
    """Return what sets each slot; the class's own `__setattr__` refuses, as it is frozen."""
    return tuple(vars(kind)[field.name].__set__ for field in fields(kind))


def _made(kind: type[T], values: tuple[object, ...]) -> T:
    """Make a value again, without the checks it passed when it was made first."""
    value = object.__new__(kind)
    setters = _setters(kind)  # type: ignore[arg-type] # as above
    for put, one in zip(setters, values, strict=True):
        put(value, one)
    return value
