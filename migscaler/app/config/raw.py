"""A tolerant look at the file as YAML gave it, for rules that hold between settings.

pydantic stops judging a section at its first broken value; these accessors give None for what is
absent or broken, so that the rules between the other values are still reported in the same run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from migscaler.app.config.texts import SettingRefused, parse_duration
from migscaler.app.config.yaml_text import Path


@dataclass(frozen=True, slots=True)
class Raw:
    """A mapping of the file, or nothing; `path` is where it stands."""

    values: Mapping[str, object]
    path: Path = ()

    @classmethod
    def of(cls, value: object, path: Path = ()) -> "Raw":
        """Return a look at a value; what is no mapping looks empty."""
        return cls(value if isinstance(value, Mapping) else {}, path)

    def at(self, key: str | int) -> Path:
        """Return the path of a key."""
        return (*self.path, key)

    def has(self, key: str) -> bool:
        """Say whether the key is there with a value."""
        return self.values.get(key) is not None

    def part(self, key: str) -> "Raw":
        """Return the mapping below a key."""
        return Raw.of(self.values.get(key), self.at(key))

    def parts(self, key: str) -> Iterator["Raw"]:
        """Yield the mappings of a list below a key."""
        items = self.values.get(key)
        for number, item in enumerate(items if isinstance(items, tuple) else ()):
            yield Raw.of(item, (*self.path, key, number))

    def named_parts(self, key: str) -> Iterator[tuple[str, "Raw"]]:
        """Yield name and mapping of each entry of a mapping below a key."""
        below = self.part(key)
        for name in below.values:
            yield name, below.part(name)

    def text(self, key: str) -> str | None:
        """Return a text."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def plain(self, key: str) -> str | int | None:
        """Return a text or a whole number: what may name something."""
        value = self.values.get(key)
        return value if isinstance(value, str | int) else None

    def texts(self, key: str) -> tuple[tuple[Path, str], ...]:
        """Return the texts of a list with their paths."""
        items = self.values.get(key)
        found = enumerate(items if isinstance(items, tuple) else ())
        return tuple(((*self.path, key, n), item) for n, item in found if isinstance(item, str))

    def number(self, key: str) -> int | None:
        """Return a whole number."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def duration(self, key: str, default: timedelta) -> timedelta | None:
        """Return a duration, the default where the key is absent, None where it is broken."""
        if not self.has(key):
            return default
        try:
            return parse_duration(self.values[key])
        except SettingRefused:
            return None
