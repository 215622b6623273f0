"""`migscaler pause`, `resume` and `breaker reset`: switch acting off and on."""

from datetime import timedelta

import click

from migscaler.cli.answers import Answer, kept_where, moment
from migscaler.cli.output import output_option, show, show_json
from migscaler.cli.params import DURATION, GPU
from migscaler.cli.session import Session, pass_session


@click.command()
@click.option("--why", required=True, help="Reason; kept and shown everywhere.")
@click.option("--for", "lasting", type=DURATION, help="Resume by itself after this long.")
@click.option(
    "--release-driver",
    is_flag=True,
    help="Also let go of the driver, so that it can be unloaded; measuring stops too.",
)
@output_option
@pass_session
def pause(
    session: Session,
    why: str,
    lasting: timedelta | None,
    release_driver: bool,  # click passes it by name
    output: str,
) -> None:
    """Stop every change of a layout; a GPU plan under way ends first, measuring goes on."""
    asked: Answer = {"why": why, "release_driver": release_driver}
    if lasting is not None:
        asked["for_seconds"] = lasting.total_seconds()
    # Only the daemon holds the driver; without one there is nothing to let go of.
    answer = session.ask("pause", asked, daemon_only=release_driver)
    if output == "json":
        show_json(answer)
        return
    until = (
        f"until {moment(answer, 'until')}" if answer.get("until") else "until `migscaler resume`"
    )
    released = "; the driver is released" if release_driver else ""
    show(f"paused {until}{released}{kept_where(answer)}")


@click.command()
@output_option
@pass_session
def resume(session: Session, output: str) -> None:
    """Allow changes again, and take the driver back if it was released."""
    answer = session.ask("resume")
    if output == "json":
        show_json(answer)
    else:
        show(f"resumed{kept_where(answer)}")


@click.group()
def breaker() -> None:
    """Breakers open after two failures in a row on a GPU, and keep it from being changed."""


@breaker.command("reset", short_help="Close the breaker of a GPU now.")
@click.argument("gpu", type=GPU)
@output_option
@pass_session
def breaker_reset(session: Session, gpu: int | str, output: str) -> None:
    """Close the breaker of GPU (index or UUID) now, once its cause is mended."""
    answer = session.ask("breaker_reset", {"gpu": gpu})
    if output == "json":
        show_json(answer)
    else:
        show(f"the breaker of GPU {gpu} is closed{kept_where(answer)}")
