"""In which order a reading of the node asks its GPUs, and whom it leaves out for once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from migscaler.errors import HardwareError
from migscaler.model.ports import Clock


class Turns:
    """Keeps GPUs that answer promptly from being shown late, or not at all, because of the others.

    One process asks one GPU at a time, and the age of all that is shown counts from the beginning
    of the pass. So whoever took longer than `prompt` seconds when asked last, in vain or not, comes
    after the others, those first who were not asked for longest, and is asked only if the pass
    ends in time by what that took: within `full` seconds, after a pass that took longer than
    `brief` for such GPUs within `brief`. With samples every 5 s nothing shown gets older than 15 s
    then. The first of a full pass is asked whatever it takes, or it would never be again; where
    nobody answers promptly, so that nobody waits for it, the first of every pass.

    Used by one thread at a time.
    """

    def __init__(self, clock: Clock, *, prompt: float, brief: float, full: float) -> None:
        self._clock = clock
        self._prompt = prompt
        self._brief = brief
        self._full = full
        self._took: dict[str, float] = {}
        self._asked = 0
        self._keys: Sequence[str] = ()
        self._asked_as: dict[str, int] = {}
        self._began = 0.0
        self._seconds = full
        self._first_is_free = True
        self._was_long = False

    def arrange(self, keys: Sequence[str], *, prompt_only: bool = False) -> list[int]:
        """Begin a pass over GPUs by key; return their places in the order to ask them."""
        self._began = self._clock.monotonic()
        self._seconds = self._brief if self._was_long else self._full
        self._keys = keys
        self._first_is_free = not self._was_long or not self.has_prompt()
        if prompt_only:
            self._seconds, self._first_is_free = 0.0, False
        self._was_long = False
        return sorted(range(len(keys)), key=lambda place: self._rank(keys[place]))

    def has_prompt(self) -> bool:
        """Say whether any GPU of the last pass answers promptly."""
        return any(key not in self._took for key in self._keys)

    def _rank(self, key: str) -> int:
        return self._asked_as.get(key, 0) + 1 if key in self._took else 0

    @contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """Take a GPU's turn, and note how long it took.

        Raises:
            HardwareError: it has to wait for another pass.
        """
        started = self._clock.monotonic()
        took = self._took.get(key)
        if took is not None:
            if started - self._began + took > self._seconds and not self._first_is_free:
                raise HardwareError(
                    f"not asked in this pass: it took {took:.0f} s when last asked, "
                    "and the other GPUs do not wait for it"
                )
            self._first_is_free = False
        self._asked += 1
        self._asked_as[key] = self._asked
        try:
            yield
        finally:
            now = self._clock.monotonic()
            self._took.pop(key, None)
            if now - started > self._prompt:
                self._took[key] = now - started
            if took is not None:
                self._was_long = now - self._began > self._brief
