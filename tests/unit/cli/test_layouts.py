"""`layouts` draws a model's maximal layouts, offline."""

import json
from pathlib import Path

from tests.unit.cli.conftest import Terminal

GOLDEN = Path(__file__).parents[2] / "data" / "cli"


def test_layouts_draws_the_19_of_plain_profiles(terminal: Terminal) -> None:
    result = terminal.run("layouts", "A100-SXM4-40GB")

    drawn = result.stdout.splitlines()
    assert result.exit_code == 0
    assert drawn[0] == (
        "NVIDIA A100-SXM4-40GB: 8 memory and 7 compute slices; "
        "19 layouts of 5 plain profiles to which nothing can be added"
    )
    assert drawn[2].split() == ["#", "0", "1", "2", "3", "4", "5", "6", "7", "instances"]
    assert drawn[3] == " 1  │7g                             │  7g.40gb@0"
    assert drawn[7] == " 5  │3g             │2g     │1g │···│  3g.20gb@0 2g.10gb@4 1g.5gb@6"
    assert len(drawn) == 3 + 19


def test_layouts_all_has_239(terminal: Terminal) -> None:
    result = terminal.run("layouts", "A100-SXM4-40GB", "--all", "--output", "json")

    assert len(json.loads(result.stdout)["layouts"]) == 239


def test_layouts_json_is_the_golden_file(terminal: Terminal) -> None:
    result = terminal.run("layouts", "a100-sxm4-40gb", "--output", "json")

    assert result.stdout == (GOLDEN / "layouts-a100-40gb.json").read_text("utf-8")


def test_layouts_of_an_old_driver_have_no_4g_beside_3g(terminal: Terminal) -> None:
    result = terminal.run("layouts", "A100-SXM4-40GB", "--driver", "470", "--output", "json")

    assert "4g.20gb@0 3g.20gb@4" not in json.loads(result.stdout)["layouts"]


def test_layouts_unknown_model_names_the_known_ones(terminal: Terminal) -> None:
    result = terminal.run("layouts", "V100")

    assert result.exit_code == 1
    assert "no GPU model 'V100'" in result.stderr
    assert "A100-SXM4-40GB" in result.stderr


def test_layouts_prints_no_color_in_a_pipe(terminal: Terminal) -> None:
    assert "\x1b" not in terminal.run("layouts", "A30").stdout


def test_layouts_without_model_draws_the_nodes_gpus(terminal: Terminal) -> None:
    cells = [
        {"kind": "used", "start": 0, "size": 4, "size_class": "3g", "compute_slices": 3},
        {"kind": "free", "start": 4, "size": 1},
        {"kind": "free", "start": 5, "size": 1},
        {"kind": "free", "start": 6, "size": 1},
        {"kind": "stranded", "start": 7, "size": 1},
    ]
    terminal.replies(
        status={
            "gpus": [
                {
                    "index": 0,
                    "name": "NVIDIA A100-SXM4-40GB",
                    "mode": "enforce",
                    "layout": "3g.20gb@0",
                    "cells": cells,
                }
            ]
        }
    )

    result = terminal.run("layouts")

    assert result.stdout.splitlines()[1] == (
        "  0  A100-SXM4-40GB  enforce  │3g*            │···│···│···│···│  3g.20gb@0"
    )
