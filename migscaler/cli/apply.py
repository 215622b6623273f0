"""`migscaler apply`: carry out the plan now, set one GPU's layout, or settle what was left open."""

import click

from migscaler.cli.answers import Answer, gpu_name, rows, text
from migscaler.cli.output import DIFFERS, FAILED, leave, note, output_option, show, show_json, table
from migscaler.cli.params import GPU
from migscaler.cli.plan import print_plan
from migscaler.cli.session import Session, pass_session


@click.command()
@click.option("--gpu", type=GPU, help="GPU to give a layout (index or UUID).")
@click.option("--layout", help='Give the GPU this layout, e.g. "3g 3g" or "3g@0 1g@4".')
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@click.option(
    "--nvidia-smi", is_flag=True, help="Show it as nvidia-smi commands; does nothing else."
)
@click.option("--settle", is_flag=True, help="End a plan that a crash left open, nothing else.")
@output_option
@pass_session
def apply(
    session: Session,
    gpu: int | str | None,
    layout: str | None,
    dry_run: bool,  # click passes it by name
    nvidia_smi: bool,
    settle: bool,
    output: str,
) -> None:
    """Carry out the present plan, or set --layout on --gpu. Instances in use are never touched.

    The plan is carried out also where the mode is recommend: you asked for it. GPUs in observe
    stay. Exit codes: 0 done or nothing to do, 1 a GPU could not be changed, 3 a dry run would
    change something.
    """
    if (layout is None) != (gpu is None):
        raise click.UsageError("--gpu and --layout go together")
    if layout is not None and not layout.split():
        raise click.UsageError('--layout names at least one instance, e.g. "3g 3g" or 7g')
    only_show = dry_run or nvidia_smi
    if settle:
        if gpu is not None or nvidia_smi:
            raise click.UsageError("--settle goes with --dry-run only")
        answer = session.ask("settle", {"dry_run": dry_run})
    else:
        answer = session.ask("apply", _request(gpu, layout, only_show))
    if only_show and not settle:
        print_plan(answer, output, nvidia_smi=nvidia_smi)
        leave(DIFFERS if rows(answer, "gpu_plans") or rows(answer, "wanted") else 0)
    _print_outcomes(answer, output)
    found = rows(answer, "outcomes")
    # A plan that is settled ends as abandoned; a change that was asked for must be done.
    if any(row.get("outcome") == "failed" if settle else not _is_done(row) for row in found):
        leave(FAILED)
    if dry_run and found:
        leave(DIFFERS)


def _request(gpu: int | str | None, layout: str | None, dry_run: bool) -> Answer:
    """Return the arguments of the request."""
    asked: Answer = {"dry_run": dry_run}
    if gpu is not None:
        asked["gpu"] = gpu
    if layout is not None:
        asked["layout"] = layout
    return asked


def _is_done(row: Answer) -> bool:
    return row.get("outcome") == "done"


def _print_outcomes(answer: Answer, output: str) -> None:
    """Print how each GPU plan ended."""
    if output == "json":
        show_json(answer)
        return
    found = rows(answer, "outcomes")
    if not found:
        note(text(answer, "message", text(answer, "sentence", "nothing to do")))
        return
    fields = ("outcome", "reason", "layout", "explanation")
    show(
        table(
            ("GPU", "ended", "reason", "layout now", "in words"),
            ([gpu_name(row), *(text(row, field) for field in fields)] for row in found),
        )
    )
