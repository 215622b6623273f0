"""The ways to break promises must stay applicable; `make mutants` tries them."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutations import MUTATIONS, Mutation
from tests.mutants.run import mutated

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.breaks)
def test_mutation_can_be_applied_and_is_still_python(mutation: Mutation) -> None:
    text = (_ROOT / mutation.path).read_text()

    changed = mutated(text, mutation)

    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    assert all((_ROOT / test).is_file() for test in mutation.tests)


def test_every_promise_is_broken_in_three_ways() -> None:
    counts = {letter: sum(one.promise == letter for one in MUTATIONS) for letter in "abcdefg"}

    assert min(counts.values()) >= 3, counts
