"""Which GPU a person means."""

from pathlib import Path

import pytest

from migscaler.errors import CommandRefused, NotFound, ParseError
from tests.unit.app.nodes import NodeAtWork, node_at_work

TWO = "2xA100-SXM4-40GB"


def found(here: NodeAtWork, named: str) -> object:
    return here.ask("breaker_reset", gpu=named)["gpu"]


def test_gpu_is_found_by_index_uuid_or_the_beginning_of_it(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0", "7g@0", spec=TWO) as here:
        here.runtime.loop.sample()
        first, second = here.uuid(0), here.uuid(1)

        assert found(here, "1") == 1
        assert found(here, "01") == 1
        assert found(here, "0") == 0
        assert found(here, first) == 0
        assert found(here, second[:12]) == 1
        assert here.ask("breaker_reset", gpu=1)["gpu"] == 1


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("7", "no GPU '7'"),
        ("GPU-", "more than one GPU begins with 'GPU-'"),
        ("gpu0", "no GPU 'gpu0'"),
        ("²", "no GPU '²'"),
        ("9" * 5_000, f"no GPU '{'9' * 5_000}'"),
    ],
)
def test_gpu_that_is_not_there_or_not_single_lists_what_there_is(
    tmp_path: Path, named: str, problem: str
) -> None:
    with node_at_work(tmp_path, "7g@0", "7g@0", spec=TWO) as here:
        here.runtime.loop.sample()

        with pytest.raises(NotFound) as raised:
            found(here, named)

        assert str(raised.value) == (f"{problem}; there are 0 ({here.uuid(0)}), 1 ({here.uuid(1)})")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("breaker_reset", {"gpu": 0}),
        ("hold", {"gpu": 0, "reason": "x"}),
        ("plan", {}),
        ("explain", {}),
        ("apply", {}),
        ("snapshot", {}),
        ("lease_take", {"size": "1g", "ttl_seconds": 60}),
    ],
)
def test_command_before_the_first_reading_is_refused_with_what_to_do(
    tmp_path: Path, name: str, arguments: dict[str, object]
) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        with pytest.raises(CommandRefused) as refusal:
            here.ask(name, **arguments)

        assert str(refusal.value) == (
            "the GPUs can't be read: the driver has not answered yet; see `migscaler doctor`"
        )


def test_instance_that_is_named_wrongly_is_told_what_is_there(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 1g@4") as here:
        here.watch(5)

        with pytest.raises(ParseError) as problem:
            here.ask("hold", gpu=0, spec="1g", reason="x")

        assert str(problem.value) == (
            "'1g' is not an instance; write profile@start, e.g. 3g.40gb@4;"
            " GPU 0 has 3g.20gb@0 1g.5gb@4"
        )
