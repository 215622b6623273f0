"""`migscaler layouts`: what a GPU model allows, or what this node's GPUs have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from migscaler.cli.output import Failed, output_option, show, show_json, table, tell_old
from migscaler.cli.session import Session, pass_session
from migscaler.cli.strips import bars_of, is_plain, slice_width, strip
from migscaler.model.catalog import load_catalog
from migscaler.model.layout import GpuModel, Layout
from migscaler.sim.node import find_board

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.argument("model", required=False)
@click.option("--all", "every", is_flag=True, help="Also profiles with attributes (+me, 1gx).")
@click.option(
    "--driver",
    type=click.IntRange(min=450),
    default=580,
    show_default=True,
    help="Driver branch; 4g beside 3g needs 510.",
)
@output_option
@pass_session
def layouts(
    session: Session,
    model: str | None,
    every: bool,  # click passes it by name
    driver: int,
    output: str,
) -> None:
    """Draw every layout of MODEL to which nothing can be added, from the package's own data.

    Without MODEL, draw what the GPUs of this node have now. A strip shows memory slices.
    """
    if model is None:
        _of_node(session, output)
        return
    found = find_board(load_catalog(), model).model(driver)
    names = frozenset(p.name for p in found.profiles if every or is_plain(p.size_class))
    from migscaler.planner.layouts import maximal_layouts

    maximal = sorted(maximal_layouts(found, names), key=lambda layout: (len(layout), layout.specs))
    if output == "json":
        show_json(as_json(found, names, maximal))
        return
    kinds = "profiles" if every else "plain profiles"
    show(
        f"{found.name}: {found.memory_slices} memory and {found.compute_slices} compute slices; "
        f"{len(maximal)} layouts of {len(names)} {kinds} to which nothing can be added",
        "",
        _drawing(found, maximal),
    )


def as_json(model: GpuModel, names: frozenset[str], maximal: Sequence[Layout]) -> dict[str, object]:
    """Return profiles and layouts of a model; `starts` are first memory slices."""
    return {
        "model": model.name,
        "memory_slices": model.memory_slices,
        "compute_slices": model.compute_slices,
        "profiles": [
            {
                "name": p.name,
                "size": p.size_class,
                "profile_id": p.profile_id,
                "compute_slices": p.compute_slices,
                "memory_slices": p.memory_slices,
                "memory_mib": p.memory_mib,
                "max_instances": p.max_instances,
                "starts": list(p.starts),
            }
            for p in model.profiles
            if p.name in names
        ],
        "layouts": [str(layout) for layout in maximal],
    }


def _drawing(model: GpuModel, maximal: Sequence[Layout]) -> "RenderableType":
    """Return the layouts as numbered strips."""
    drawn = [bars_of(model, layout) for layout in maximal]
    width = slice_width(bar for bars in drawn for bar in bars)
    ruler = "".join(f" {index}".ljust(width) for index in range(model.memory_slices))
    rows = zip(range(1, len(drawn) + 1), drawn, maximal, strict=True)
    return table(
        ("#", ruler, "instances"),
        ((number, strip(bars, width), str(layout)) for number, bars, layout in rows),
        right=["#"],
    )


def _of_node(session: Session, output: str) -> None:
    """Show the strips of the node's own GPUs."""
    from migscaler.cli.answers import picture_problem, rows
    from migscaler.cli.status import gpu_table

    answer = session.ask("status")
    gpus, problem = rows(answer, "gpus"), picture_problem(answer)
    if problem is not None and not gpus:
        raise Failed(f"{problem}; see `migscaler doctor`")
    tell_old(answer)
    if output == "json":
        wanted = ("index", "uuid", "name", "mig_enabled", "mig_pending", "layout", "cells")
        show_json({"gpus": [{key: gpu.get(key) for key in wanted} for gpu in gpus]})
    else:
        show(gpu_table(gpus))
