"""What people write on the command line: durations, lists of GPUs, counts per size."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _Type = click.ParamType[object]
else:
    # Older clicks are not generic.
    _Type = click.ParamType

_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$")
# Not what `isdigit` takes: `²` is a digit too, and one of 5,000 digits is none that int() takes.
_WHOLE = re.compile(r"^[0-9]{1,18}\Z")
_GPU_UUID = re.compile(r"^GPU-[0-9a-fA-F-]+$")


class DurationType(_Type):
    """A duration such as `90s`, `30m`, `8h`, `1d12h`; gives a timedelta."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read the text."""
        if isinstance(value, timedelta):
            return value
        match = _DURATION.match(str(value).strip())
        if not str(value).strip() or match is None:
            self.fail(f"{value!r} is not a duration; write 90s, 30m, 8h or 1d12h", param, ctx)
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        try:
            found = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            self.fail("is longer than any calendar", param, ctx)
        if not found:
            self.fail("must be longer than nothing", param, ctx)
        return found


class SecondsType(DurationType):
    """A duration, or a plain number of seconds; gives a timedelta."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read the text."""
        words = f"{value}s" if str(value).isdigit() else value
        return super().convert(words, param, ctx)


class GpusType(_Type):
    """GPUs by index or UUID, separated by commas; gives a tuple of int and str."""

    name = "gpus"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | str, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        if not words:
            self.fail("name at least one GPU, e.g. 0,1", param, ctx)
        return tuple(self._one(word, param, ctx) for word in words)

    def _one(
        self, word: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if _WHOLE.match(word):
            return int(word)
        if not _GPU_UUID.match(word):
            self.fail(f"{word!r} is neither a GPU's index nor its UUID (GPU-...)", param, ctx)
        return word


class GpuType(GpusType):
    """One GPU by index or UUID; gives int or str."""

    name = "gpu"

    def convert(  # type: ignore[override]  # one of what the list type gives
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Read the text."""
        return value if isinstance(value, int) else self._one(str(value).strip(), param, ctx)


class WantType(_Type):
    """A size and a count, `1g=3`; gives the pair."""

    name = "size=count"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        size, equals, count = str(value).partition("=")
        if not equals or not size.strip() or not _WHOLE.match(count.strip()):
            self.fail(f"{value!r} is not SIZE=COUNT, e.g. 1g=3", param, ctx)
        return size.strip(), int(count)


DURATION = DurationType()
SECONDS = SecondsType()
GPUS = GpusType()
GPU = GpuType()
WANT = WantType()
