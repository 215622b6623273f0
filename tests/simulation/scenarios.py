"""Random nodes, rules and habits, each wholly given by its seed."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from migscaler.model.demand import Counts
from migscaler.model.ids import RuleName, SourceName
from migscaler.model.plan import Direction
from migscaler.model.policy import (
    AtLeast,
    Freeze,
    GpuEntry,
    IdlePolicy,
    Mode,
    Pace,
    Policy,
    Rule,
    SourcePolicy,
)

BOARDS = ("A100-SXM4-40GB", "A30", "H100-80GB")
SIZES = ("1g", "2g", "3g", "4g", "7g")
A30_SIZES = ("1g", "2g", "4g")
QUEUE, TOTALS, LEASES = SourceName("queue"), SourceName("totals"), SourceName("leases")
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Hours of a day, the last one not included; `text` is what the configuration says."""

    first: int
    last: int

    @property
    def text(self) -> str:
        return f"{self.first:02d}:00-{self.last:02d}:00"

    def is_open(self, now: datetime) -> bool:
        return self.first <= now.hour < self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run: the node, the rules, how long, and how lively the world is.

    `chances` are probabilities per turn by kind of event. After `lively` minutes nothing more
    happens and demand stands still for `quiet` minutes.
    """

    seed: int
    boards: tuple[str, ...]
    variants: tuple[str, ...]
    start: datetime
    policy: Policy
    windows: tuple[Window, ...]
    chances: tuple[tuple[str, float], ...]
    on_disk: bool
    has_veto: bool
    lively: int = 300
    quiet: int = 100

    @property
    def minutes(self) -> int:
        return self.lively + self.quiet

    @property
    def spec_text(self) -> str:
        return ",".join(f"1x{board}" for board in self.boards)


def draw(seed: int, *, lively: int = 300, quiet: int = 100) -> Scenario:
    """Return the scenario of a seed."""
    dice = random.Random(f"scenario {seed}")
    count = dice.choices((1, 2, 3, 4), (50, 35, 10, 5))[0]
    start = datetime(2026, 3, dice.randint(1, 28), dice.randrange(18), tzinfo=UTC)
    windows = tuple(
        Window(first=start.hour + first, last=start.hour + first + dice.randint(1, 2))
        for first in dice.sample(range(4), dice.choice((0, 0, 1, 1, 2)))
    )
    boards = tuple(dice.choices(BOARDS, (4, 3, 3), k=count))
    return Scenario(
        seed=seed,
        boards=boards,
        variants=tuple(dice.choice(("normal", "mirrored")) for _ in range(count)),
        start=start,
        policy=_policy(dice, boards, windows),
        windows=windows,
        chances=_chances(dice),
        on_disk=dice.random() < 0.05,
        has_veto=dice.random() < 0.15,
        lively=lively,
        quiet=quiet,
    )


def _policy(dice: random.Random, boards: tuple[str, ...], windows: tuple[Window, ...]) -> Policy:
    period = timedelta(seconds=dice.choice((30, 45, 60, 60, 60)))
    frozen = dice.random() < 0.5
    return Policy(
        gpus=_entries(dice, len(boards)),
        rules=_rules(dice, boards, () if frozen else windows),
        sources=tuple(
            SourcePolicy(name=name, counts=counts, max_age=3 * MINUTE, unknown_for=40 * MINUTE)
            for name, counts in (
                (QUEUE, Counts.WAITING),
                (TOTALS, Counts.TOTAL),
                (LEASES, Counts.WAITING),
            )
        ),
        pace=Pace(
            raise_after=timedelta(seconds=dice.choice((0, 30, 90))),
            lower_after=dice.choice((2, 3, 6)) * MINUTE,
            gpus_at_once=dice.choice((1, 2, 4)),
            per_day=dice.choice((12, 48, 200)),
            rest=dice.choice((1, 2, 3)) * MINUTE,
            rest_after_failure=5 * MINUTE,
        ),
        freezes=tuple(
            Freeze(window=window.text, only=dice.choice((None, Direction.COARSER, Direction.FINER)))
            for window in (windows if frozen else ())
        ),
        idle=IdlePolicy(after=dice.choice((2, 2, 4)) * MINUTE),
        sampling=period,
        tick=period,
    )


def _entries(dice: random.Random, count: int) -> tuple[GpuEntry, ...]:
    """Return the lines of `gpus:`: most GPUs enforced, now and then one that must stay."""
    entries = []
    for index in range(count):
        mode = dice.choices((Mode.ENFORCE, Mode.RECOMMEND, Mode.OBSERVE), (88, 7, 5))[0]
        reason = "training lane" if mode is Mode.OBSERVE else None
        baseline = dice.choice(((), (), ("1g", "1g"), ("2g",)))
        entries.append(GpuEntry(mode=mode, index=index, reason=reason, baseline=baseline))
    if all(entry.mode is not Mode.ENFORCE for entry in entries) and dice.random() < 0.7:
        # A day on which nothing may be changed at all shows little; some of them are enough.
        entries[0] = replace(entries[0], mode=Mode.ENFORCE, reason=None)
    return tuple(entries)


def _rules(
    dice: random.Random, boards: tuple[str, ...], windows: tuple[Window, ...]
) -> tuple[Rule, ...]:
    """Return one to three rules, now and then for a size that no GPU here has."""
    offered = A30_SIZES if set(boards) == {"A30"} and dice.random() < 0.9 else SIZES
    sizes = dice.sample(offered, dice.choices((1, 2, 3), (1, 3, 3))[0])
    rules = []
    for size in sizes:
        minimum = dice.choice((0, 0, 1, 2)) if size in ("1g", "2g") else 0
        at_least = (AtLeast(count=minimum + 1, window=windows[0].text),) if windows else ()
        rules.append(
            Rule(
                name=RuleName(f"for-{size}"),
                size=size,
                sources=dice.choice(
                    ((QUEUE,), (QUEUE,), (TOTALS,), (QUEUE, LEASES), (QUEUE, TOTALS))
                ),
                minimum=minimum,
                maximum=dice.choice((None, None, 4)),
                spare=dice.choice((0, 0, 1)),
                at_least=at_least if dice.random() < 0.5 else (),
            )
        )
    return tuple(rules)


# Chances per turn of 30-60 s on a lively day. Half of the days are milder.
_CHANCES = {
    "start_job": 0.20,
    "end_job": 0.40,
    "short_job": 0.04,
    "leak": 0.02,
    "plug_leaks": 0.08,
    "demand": 0.22,
    "silence": 0.012,
    "speak": 0.08,
    "hold": 0.02,
    "release": 0.05,
    "lease": 0.05,
    "give_back": 0.08,
    "wait": 0.02,
    "pause": 0.004,
    "resume": 0.08,
    "client": 0.03,
    "let_go": 0.12,
    "fault": 0.03,
    "lose": 0.003,
    "find": 0.15,
    "foreign": 0.02,
    "restart": 0.006,
    "crash": 0.02,
    "reboot": 0.003,
    "step_clock": 0.003,
    "veto": 0.06,
}


def _chances(dice: random.Random) -> tuple[tuple[str, float], ...]:
    mild = dice.random() < 0.5
    trouble = {"client", "fault", "lose", "foreign", "crash", "reboot", "leak", "restart"}
    return tuple(
        (name, chance * (0.25 if mild and name in trouble else 1.0))
        for name, chance in _CHANCES.items()
    )
