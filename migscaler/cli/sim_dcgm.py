"""`migscaler sim dcgm`: a simulated node's dcgm-exporter."""

import signal
from pathlib import Path

import click

from migscaler.cli.output import Failed, note


@click.command("dcgm", short_help="Serve the page of a dcgm-exporter for it.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="MIGSCALER_SIM_DIRECTORY",
    help="Directory of the simulated node (the demo prints its own).",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9400,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@click.option("--renamed", is_flag=True, help="Show the series' names of DCGM 4.6 and newer.")
def dcgm(directory: Path, host: str, port: int, renamed: bool) -> None:
    """Serve the node's DCGM profiling series, as a dcgm-exporter does, until SIGTERM.

    Like the real one it keeps the layout of its start; SIGHUP makes it read the layout again.
    """
    from migscaler.sim.dcgm_exporter import DcgmExporter, ExporterServer
    from migscaler.sim.node import open_node

    # Blocked before any thread is there, so that they all come to sigwait below.
    signals = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    exporter = DcgmExporter(open_node(directory), renamed=renamed)
    try:
        server = ExporterServer(exporter, host, port)
    except OSError as error:
        raise Failed(f"can't listen on {host}:{port}: {error.strerror}") from error
    note(server.url)
    while signal.sigwait(signals) == signal.SIGHUP:
        exporter.reread()
    server.close()
