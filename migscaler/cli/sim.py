"""`migscaler sim`: a simulated node in a directory, for trying things out without a GPU."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from migscaler.cli.nvml_worker import nvml_socket_option, serve_until_told, serving_options
from migscaler.cli.output import Failed, leave, output_option, show, show_json, table
from migscaler.cli.params import GPU
from migscaler.cli.session import Session, pass_session
from migscaler.cli.sim_dcgm import dcgm
from migscaler.web.words import count_of

if TYPE_CHECKING:
    from migscaler.sim.node import SimNode

Function = TypeVar("Function", bound=Callable[..., object])
_VERSION = re.compile(r"^\d{3,4}(\.\d+){0,3}$")
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _driver_version(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """Refuse what is no driver version."""
    if not _VERSION.match(value):
        raise click.BadParameter(f"{value!r} is not a driver version, e.g. 550.54.14")
    return value


def directory_option(command: Function) -> Function:
    """Add `--directory`, where the node lives."""
    return click.option(
        "--directory",
        type=_DIRECTORY,
        required=True,
        envvar="MIGSCALER_SIM_DIRECTORY",
        help="Directory of the simulated node (the demo prints its own).",
    )(command)


@click.group()
def sim() -> None:
    """A simulated node: the NVML library below everything, in a directory that processes share."""


sim.add_command(dcgm)


@sim.command(short_help="Make a node of the named GPUs.")
@directory_option
@click.argument("gpus", default="6xA100-SXM4-40GB,2xH100-80GB")
@click.option(
    "--driver",
    default="550.54.14",
    show_default=True,
    callback=_driver_version,
    help="Driver version.",
)
@click.option("--mig/--no-mig", default=True, show_default=True, help="MIG mode of all GPUs.")
def build(directory: Path, gpus: str, driver: str, mig: bool) -> None:
    """Make a node of GPUS in the directory; an earlier one there is replaced.

    GPUS are counts and models, `2xA100-SXM4-40GB,1xA30` (default: 6 A100 and 2 H100); for a
    model that is not known, the error lists those that are.
    """
    from migscaler.sim.node import build_node

    try:
        node = build_node(gpus, driver, directory, mig=mig)
    except OSError as error:
        raise Failed(f"no node can be made in {directory}: {error.strerror}") from error
    show(f"{count_of(len(node.state.gpus), 'GPU', 'GPUs')}, driver {driver}, in {directory}")


@sim.command(
    "exec",
    short_help="Run a command on the simulated library.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: migscaler sim exec --directory DIR -- migscaler layouts",
)
@directory_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_command(directory: Path, command: tuple[str, ...]) -> None:
    """Run COMMAND so that every pynvml in it meets the simulated library."""
    from migscaler.sim.hook import run_with_hook

    try:
        run_with_hook(directory, command)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}", 127) from error


@sim.command(short_help="Run the daemon on the simulated node.")
@directory_option
@click.option(
    "--listen", help="Address and port of page and metrics, instead of those in the configuration."
)
@nvml_socket_option
@pass_session
def run(session: Session, directory: Path, listen: str | None, nvml_socket: Path | None) -> None:
    """Run the real daemon on the simulated node, as `migscaler run` does on real GPUs."""
    from migscaler.app.memory import put_off_collecting

    put_off_collecting()  # before the daemon's modules are loaded
    from migscaler.app.daemon import DaemonOptions, run_daemon
    from migscaler.cli.simulated import (
        boot_id_of,
        host_of,
        preparation,
        quiet_host,
        simulated_hardware,
    )

    options = session.options
    leave(
        run_daemon(
            DaemonOptions(
                config=options.config,
                state_dir=options.state_dir,
                listen=listen,
                prepare=preparation(directory),
                make_host=host_of(directory),
                boot_id=boot_id_of(directory),
                roots=quiet_host(directory),
                hardware=simulated_hardware(directory),
                nvml_socket=nvml_socket,
                attended=sys.stderr.isatty(),
            )
        )
    )


@sim.command("nvml-worker", short_help="Serve the node to a daemon of another account.")
@directory_option
@serving_options
def nvml_worker(directory: Path, listen: Path, user: str) -> None:
    """Serve the simulated node to a daemon of another account, as `migscaler nvml-worker` does."""
    from migscaler.app.clock import RealClock
    from migscaler.app.nvml_worker import Served
    from migscaler.cli.simulated import host_of, preparation, quiet_host, simulated_hardware

    served = Served(
        clock=RealClock(),
        hardware=simulated_hardware(directory),
        make_device_nodes=_no_nodes,
        prepare=preparation(directory),
        make_host=host_of(directory),
        proc=quiet_host(directory).proc,
    )
    serve_until_told(served, listen, user)


def _no_nodes() -> None:
    """Make no device nodes: the simulated instances have none."""


@sim.group()
def job() -> None:
    """Processes on simulated instances."""


@job.command(short_help="Start a process on an instance, and print its pid.")
@directory_option
@click.argument("gpu", type=GPU)
@click.argument("instance")
@click.option("--memory-mib", type=click.IntRange(0), default=1024, show_default=True)
@click.option("--activity", type=click.FloatRange(0, 1), default=0.8, show_default=True)
@click.option("--name", default="python3", show_default=True)
@click.option("--user", default="alice", show_default=True)
@click.option(
    "--cgroup",
    default="/",
    show_default=True,
    help="Path of its control group, e.g. /system.slice/docker-ID.scope with a full container id.",
)
@output_option
def start(
    directory: Path,
    gpu: int | str,
    instance: str,
    memory_mib: int,
    activity: float,
    name: str,
    user: str,
    cgroup: str,
    output: str,
) -> None:
    """Start a process on INSTANCE of GPU: a GI id, a MIG UUID, or profile@start; prints its pid."""
    from migscaler.sim.node import open_node

    node = open_node(directory)
    pid = node.start_job(
        gpu,
        _instance(node, gpu, instance),
        memory_mib=memory_mib,
        activity=activity,
        name=name,
        user=user,
        cgroup=cgroup,
    )
    if output == "json":
        show_json({"pid": pid})
    else:
        show(str(pid))


@job.command()
@directory_option
@click.argument("pid", type=int)
def end(directory: Path, pid: int) -> None:
    """End the process PID."""
    from migscaler.sim.node import open_node

    if not open_node(directory).end_job(pid):
        raise Failed(f"no simulated process {pid}")


@sim.command("show")
@directory_option
@output_option
def show_node(directory: Path, output: str) -> None:
    """Show the node as it is, behind the driver's back."""
    from migscaler.sim.node import open_node

    found = [
        {
            "gpu": gpu.index,
            "name": gpu.name,
            "uuid": gpu.uuid,
            "mig": bool(gpu.mig_current),
            "instances": [
                {
                    "gi_id": gi.id,
                    "spec": f"{gi.profile}@{gi.start}",
                    "pids": [job.pid for job in gpu.jobs if job.gi_id == gi.id],
                }
                for gi in sorted(gpu.instances.values(), key=lambda gi: gi.start)
            ],
        }
        for gpu in open_node(directory).state.gpus
    ]
    if output == "json":
        show_json({"gpus": found})
        return
    show(table(("GPU", "model", "instances (* in use)"), map(_row, found), right=["GPU"]))


def _row(gpu: dict[str, object]) -> tuple[str, str, str]:
    instances = gpu["instances"]
    assert isinstance(instances, list)  # noqa: S101  # made above
    words = [f"{i['spec']}{'*' if i['pids'] else ''}" for i in instances]
    return str(gpu["gpu"]), str(gpu["name"]), " ".join(words) or "-"


def _instance(node: "SimNode", gpu: int | str, text: str) -> int | str:
    """Return what the simulation takes for an instance that a person named."""
    if text.isdecimal():
        return int(text)
    if "@" not in text:
        return text
    found = node.gpu_of(node.state, gpu)
    wanted = node.rules(found).model.spec(text)
    for gi in found.instances.values():
        if (gi.profile, gi.start) == (wanted.profile, wanted.placement.start):
            return gi.id
    raise Failed(f"GPU {found.index} has no {wanted} now")
