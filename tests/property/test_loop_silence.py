"""What a silent source does to its own rule and to the others: it may veto, never justify."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from migscaler.model.demand import Counts
from migscaler.model.ids import RuleName
from migscaler.model.policy import GpuEntry, IdlePolicy, Mode, Pace, Policy, Rule, SourcePolicy
from tests.builders import NOW
from tests.simulation.scenarios import QUEUE, TOTALS, Scenario
from tests.simulation.world import World

MINUTE = timedelta(minutes=1)
POLICY = Policy(
    gpus=(GpuEntry(mode=Mode.ENFORCE, index=0),),
    rules=(
        Rule(name=RuleName("small"), size="1g", sources=(QUEUE,)),
        Rule(name=RuleName("large"), size="7g", sources=(TOTALS,)),
    ),
    sources=tuple(
        SourcePolicy(name=name, counts=counts, max_age=3 * MINUTE, unknown_for=40 * MINUTE)
        for name, counts in ((QUEUE, Counts.WAITING), (TOTALS, Counts.TOTAL))
    ),
    pace=Pace(lower_after=2 * MINUTE, rest=MINUTE),
    idle=IdlePolicy(after=4 * MINUTE),
    sampling=MINUTE,
    tick=MINUTE,
)


@contextmanager
def node(directory: Path, **queue: int) -> Iterator[World]:
    """Give a node of one A100 on which only the queue decides, and its demand is served."""
    scenario = Scenario(
        seed=1,
        boards=("A100-SXM4-40GB",),
        variants=("normal",),
        start=NOW,
        policy=POLICY,
        windows=(),
        chances=(),
        on_disk=False,
        has_veto=False,
    )
    world = World(scenario, directory)
    world.calm = True
    world.node.reboot()  # what the world laid out at first is gone
    world.queue.wants = {f"{size[1:]}": count for size, count in queue.items()}
    try:
        world.start()
        live(world, 15)
        yield world
    finally:
        world.process.close()
        world.store.close()
        assert world.judge.problems == []


def live(world: World, minutes: int) -> str:
    """Let the daemon work so long; return the profiles that are there then."""
    for _ in range(minutes):
        world.turn()
    found = world.node.state.gpus[0].instances.values()
    return " ".join(sorted(gi.profile for gi in found))


def test_silent_source_keeps_what_its_rule_had_until_it_lapses(tmp_path: Path) -> None:
    with node(tmp_path, _1g=2) as world:
        world.queue.problem = "connection refused"
        world.totals.wants = {"7g": 1}

        assert live(world, 30) == "1g.5gb 1g.5gb"
        assert live(world, 30) == "7g.40gb"


def test_source_that_speaks_again_gives_room_at_once(tmp_path: Path) -> None:
    with node(tmp_path, _1g=2) as world:
        world.queue.problem = "connection refused"
        world.totals.wants = {"7g": 1}
        live(world, 20)
        world.queue.problem = None
        world.queue.wants = {"1g": 0}

        assert live(world, 10) == "7g.40gb"


def test_silence_of_one_source_does_not_stop_the_other_rule(tmp_path: Path) -> None:
    with node(tmp_path, _7g=0) as world:
        world.totals.problem = "value is NaN"
        world.queue.wants = {"1g": 3}

        assert live(world, 10) == "1g.5gb 1g.5gb 1g.5gb"


def test_nothing_is_made_for_a_source_that_never_spoke(tmp_path: Path) -> None:
    with node(tmp_path) as world:
        world.queue.problem = world.totals.problem = "no answer"

        assert live(world, 120) == ""
