"""`migscaler status`: GPUs, what is on them, demand, and the last decision in words."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from migscaler.cli.answers import Answer, lines, moment, part, rows, text, whole
from migscaler.cli.demand import rule_table
from migscaler.cli.output import output_option, show, show_json, table, tell_old
from migscaler.cli.session import Session, pass_session
from migscaler.cli.strips import Bar, slice_width, strip
from migscaler.model.process import SHORT_ID
from migscaler.policy.words import span_text
from migscaler.web.words import ago

if TYPE_CHECKING:
    from rich.console import RenderableType

_MIB = 1024 * 1024


@click.command()
@click.option("--instances", is_flag=True, help="Also list every instance.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["place", "quiet"]),
    help="List every instance: by place, or first those on which nothing has run for longest.",
)
@click.option(
    "--verbose",
    "-v",
    is_flag=True,
    help="Also list every instance, and every process on one with user and container.",
)
@click.option(
    "--snapshot",
    is_flag=True,
    help="Print the node's picture as JSON, for `config check --against`.",
)
@output_option
@pass_session
def status(
    session: Session,
    instances: bool,  # click passes it by name
    order: str | None,
    verbose: bool,
    snapshot: bool,
    output: str,
) -> None:
    """Show GPUs, instances, demand and the last decision.

    In a strip, `*` marks an instance in use and `+` one that stays for another reason; `migscaler
    explain` names it. Without a running daemon the hardware is read here and now.
    """
    if snapshot:
        answer = session.ask("snapshot")
        tell_old(answer)
        show_json(answer)
        return
    answer = session.ask("status")
    if output == "json":
        show_json(answer)
        return
    gpus = rows(answer, "gpus")
    show(*headline(answer))
    if gpus:
        show("", gpu_table(gpus))
    if any(map(_orphans, gpus)):
        show("", "orphan: nothing can run on it for want of a compute instance; what may go:")
        show("  migscaler doctor --fix")
    if instances or verbose or order is not None:
        show("", instance_table(answer, by_quiet=order == "quiet"))
    if verbose:
        show("", *process_list(answer))
    if rows(answer, "rules"):
        show("", rule_table(rows(answer, "rules")))
    held = rows(answer, "holds")
    if held:
        show("", f"holds and leases: {len(held)} (migscaler holds lists them)")


def headline(answer: Answer) -> list[str]:
    """Return what comes first: the decision, and whatever keeps the node from acting."""
    said = [text(part(answer, "decision"), "sentence", "nothing was decided yet") + _age(answer)]
    pause = part(answer, "pause")
    if pause:
        until = moment(pause, "until") if pause.get("until") else "resumed"
        said.append(
            f"paused by {text(pause, 'who', 'somebody')}: {text(pause, 'why')}; until {until}"
        )
    config = part(answer, "config")
    if config.get("forced_observe"):
        said.append(f"only observing: {text(config, 'forced_observe')}")
    said += [f"configuration: {problem}" for problem in lines(config, "problems")]
    if answer.get("snapshot_problem"):
        said.append(f"{text(answer, 'snapshot_problem')}; see `migscaler doctor`")
    if answer.get("state_writable") is False:
        said.append("the journal can't be written: nothing is changed")
    return said


def gpu_table(gpus: list[Answer]) -> "RenderableType":
    """Return one row per GPU with its strip."""
    drawn = [_bars(gpu) for gpu in gpus]
    width = slice_width(bar for bars in drawn for bar in bars)
    return table(
        ("GPU", "model", "mode", "memory slices", "instances"),
        (
            (
                text(gpu, "index"),
                text(gpu, "name").removeprefix("NVIDIA "),
                text(gpu, "mode", "not managed"),
                strip(bars, width) if bars else _why_empty(gpu),
                _layout(gpu),
            )
            for gpu, bars in zip(gpus, drawn, strict=True)
        ),
        right=["GPU"],
    )


def instance_table(answer: Answer, *, by_quiet: bool = False) -> "RenderableType":
    """Return one row per instance: state, memory, activity, for how long quiet, who is on it."""
    listed = [(gpu, one) for gpu in rows(answer, "gpus") for one in rows(gpu, "instances")]
    now = _time(answer, "now")
    if by_quiet:
        listed.sort(key=lambda pair: _quiet(pair[1], now) or timedelta(-1), reverse=True)
    return table(
        ("GPU", "instance", "state", "memory", "activity", "quiet for", "why"),
        (
            (
                text(gpu, "index"),
                text(one, "instance"),
                text(one, "state"),
                _memory(one),
                _percent(one.get("activity_ratio")),
                _span(_quiet(one, now)),
                text(one, "holder", text(one, "explanation")),
            )
            for gpu, one in listed
        ),
        right=["GPU", "memory", "activity", "quiet for"],
    )


def process_list(answer: Answer) -> "list[RenderableType]":
    """Return one row per process on an instance, or why there is none."""
    listed = [(gpu, one) for gpu in rows(answer, "gpus") for one in rows(gpu, "instances")]
    found = [(gpu, one, who) for gpu, one in listed for who in rows(one, "process_details")]
    said: list[RenderableType] = []
    if answer.get("processes_visible") is False:
        said.append(
            "processes have no name, user or container: not all of the host are visible from here; "
            "run in the host's PID namespace"
        )
    if listed and all("process_details" not in one for _, one in listed):
        return [*said, "who runs here is told to root and the daemon's account only"]
    if not found:
        return [*said, "no process on any instance"]
    drawn = table(
        ("GPU", "instance", "pid", "process", "user", "memory", "container", "pod"),
        (
            (
                text(gpu, "index"),
                text(one, "instance"),
                text(who, "pid"),
                text(who, "name"),
                text(who, "user"),
                _mib(who),
                _container(who),
                text(who, "pod_uid"),
            )
            for gpu, one, who in found
        ),
        right=["GPU", "pid", "memory"],
    )
    return [*said, drawn]


def _mib(who: Answer) -> str:
    used = whole(who, "memory_used_bytes")
    return "-" if used is None else f"{used // _MIB} MiB"


def _container(who: Answer) -> str:
    """Return `docker 4f797c539e6c`."""
    container_id = text(who, "container_id")
    if container_id == "-":
        return container_id
    return f"{text(who, 'container_runtime', '')} {container_id[:SHORT_ID]}".lstrip()


def _age(answer: Answer) -> str:
    """Return how old the decision is: the strips below are of now, and may say otherwise."""
    at, now = _time(part(answer, "decision"), "at"), _time(answer, "now")
    return "" if at is None or now is None else f" ({ago(at, now)})"


def _time(answer: Answer, key: str) -> datetime | None:
    """Return a time field, None when it is absent."""
    found = answer.get(key)
    return datetime.fromisoformat(found) if isinstance(found, str) else None


def _quiet(one: Answer, now: datetime | None) -> timedelta | None:
    """Return for how long nothing has run on an instance, whoever keeps it; None if not known."""
    since = _time(one, "held_unused_since") or _time(one, "quiet_since")
    return None if since is None or now is None else max(now - since, timedelta())


def _span(quiet: timedelta | None) -> str:
    return "-" if quiet is None else span_text(quiet)


def _bars(gpu: Answer) -> list[Bar]:
    """Return the strip of one GPU."""
    marks = {"used": "*", "kept": "+"}
    return [
        Bar(
            start=whole(cell, "start") or 0,
            size=whole(cell, "size") or 1,
            label=text(cell, "size_class", "") + marks.get(text(cell, "kind"), ""),
            compute_slices=whole(cell, "compute_slices") or 0,
        )
        for cell in rows(gpu, "cells")
    ]


def _layout(gpu: Answer) -> str:
    """Return the instances of a GPU, orphans told apart, and a switch of MIG that is to come."""
    orphans = _orphans(gpu)
    specs = text(gpu, "layout").split()
    said = [f"{spec} (orphan)" if spec in orphans else spec for spec in specs]
    return " ".join([*said, *([f"({_pending(gpu)})"] if _pending(gpu) else [])])


def _pending(gpu: Answer) -> str:
    """Say which MIG mode the GPU gets at its next reset, nothing where it keeps its own."""
    pending, enabled = gpu.get("mig_pending"), gpu.get("mig_enabled")
    if pending is None or enabled is None or pending is enabled:
        return ""
    return f"MIG goes {'on' if pending else 'off'} at the next reset"


def _orphans(gpu: Answer) -> set[str]:
    return {text(one, "instance") for one in rows(gpu, "instances") if one.get("orphan") is True}


def _why_empty(gpu: Answer) -> str:
    if gpu.get("problem"):
        return text(gpu, "problem")
    if gpu.get("mig_enabled") is None:
        return "no MIG on this GPU"
    return "layout not known" if gpu.get("mig_enabled") else "MIG is off"


def _memory(one: Answer) -> str:
    used, total = whole(one, "memory_used_bytes"), whole(one, "memory_total_bytes")
    if used is None or total is None:
        return "-"
    return f"{used // _MIB} / {total // _MIB} MiB"


def _percent(ratio: object) -> str:
    return f"{ratio:.0%}" if isinstance(ratio, float | int) else "-"
