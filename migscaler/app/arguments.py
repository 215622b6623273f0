"""Reads the arguments of a command; each problem is one sentence that says what to give."""

from collections.abc import Collection, Iterator
from datetime import timedelta

from migscaler.app.config.texts import did_you_mean
from migscaler.errors import ParseError
from migscaler.model.printable import no_text_in

MOST = 2**53
"""Whole numbers beyond it are not the same in every JSON reader, and no number here is as large."""
MOST_INSTANCES = 10_000
"""As in the configuration file."""


class Arguments:
    """Arguments of one command, as decoded from JSON."""

    def __init__(self, command: str, values: dict[str, object], takes: Collection[str]) -> None:
        """Keep the values and the command's name for messages.

        Raises:
            ParseError: a text, wherever it stands, holds what no log or answer can show; or a name
                is none that the command `takes`: a misspelled `dry_run` must not act.
        """
        self._command = command
        self._values = values
        for text in _texts(values):
            found = no_text_in(text)
            if found is not None:
                raise ParseError(f"{command}: a text holds a character that is none ({found})")
        for name in values:
            if name not in takes:
                near = did_you_mean(name, takes)
                remedy = (
                    f"did you mean {near}?" if near else f"it takes {', '.join(takes) or 'none'}"
                )
                raise ParseError(f"{command} takes no argument {name!r}; {remedy}")

    def text(self, name: str) -> str:
        """Return a text that must be there and not empty."""
        value = self._values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(name, "a text")
        return value.strip()

    def optional_text(self, name: str) -> str | None:
        """Return a text, None if it was not given."""
        return None if self._values.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool:
        """Return true or false; false if it was not given."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def required_flag(self, name: str) -> bool:
        """Return true or false, which must be there."""
        if self._values.get(name) is None:
            raise self._wrong(name, "true or false")
        return self.flag(name)

    def must_lack(self, name: str, why: str) -> None:
        """Refuse an argument that means nothing beside the others."""
        if self._values.get(name) is not None:
            raise ParseError(f"{self._command}: {name} {why}")

    def number(self, name: str) -> int:
        """Return a whole number that must be there, within 2^53."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MOST:
            raise self._wrong(name, "a whole number")
        return value

    def count(self, name: str) -> int:
        """Return a number of instances that must be there."""
        value = self.number(name)
        if not 0 <= value <= MOST_INSTANCES:
            raise self._wrong(name, f"a number of instances, 0 to {MOST_INSTANCES}")
        return value

    def optional_number(self, name: str) -> int | None:
        """Return a whole number, None if it was not given."""
        return None if self._values.get(name) is None else self.number(name)

    def duration(self, name: str) -> timedelta:
        """Return a positive duration that must be there, given in seconds."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise self._wrong(name, "a number of seconds above 0 and below 1e9 (31 years)")
        return timedelta(seconds=value)

    def optional_duration(self, name: str) -> timedelta | None:
        """Return a duration, None if it was not given."""
        return None if self._values.get(name) is None else self.duration(name)

    def gpu(self, name: str = "gpu") -> str:
        """Return how a GPU was named: its index as text, or its UUID."""
        value = self._values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(name, "a GPU's index or UUID")
        return value.strip()

    def gpus(self, name: str) -> tuple[str, ...]:
        """Return a list of GPUs, by index or UUID; at least one."""
        value = self._values.get(name)
        if not isinstance(value, list) or not value:
            raise self._wrong(name, "a list of GPU indices or UUIDs")
        return tuple(str(item) for item in value)

    def counts(self, name: str) -> tuple[tuple[str, int], ...]:
        """Return counts by name, none negative; at least one."""
        value = self._values.get(name)
        if not isinstance(value, dict) or not value:
            raise self._wrong(name, 'counts by size, e.g. {"1g": 3}')
        pairs = []
        for key, count in sorted(value.items()):
            is_number = isinstance(count, int) and not isinstance(count, bool)
            if not is_number or not 0 <= count <= MOST_INSTANCES:
                expected = f"a whole number, 0 to {MOST_INSTANCES}"
                raise ParseError(f"{self._command}: {name}.{key} must be {expected}, got {count!r}")
            pairs.append((str(key), count))
        return tuple(pairs)

    def _wrong(self, name: str, expected: str) -> ParseError:
        """Return the error for an argument that is missing or of the wrong kind."""
        given = "nothing" if self._values.get(name) is None else repr(self._values[name])
        return ParseError(f"{self._command}: {name} must be {expected}, got {given}")


def _texts(values: dict[str, object]) -> Iterator[str]:
    """Yield every text of what JSON gave, keys included; its depth is the caller's choice."""
    left: list[object] = [values]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
