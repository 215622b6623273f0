"""The NVML worker as a child of whoever needs it."""

import gc
import sys
from multiprocessing.connection import Connection

from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.worker_messages import Setup
from migscaler.hardware.worker_serving import operations_of, outlive_nobody, serve
from migscaler.hardware.worker_wire import receive


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket until it closes its end."""
    outlive_nobody(descriptor)
    with Connection(descriptor) as connection:
        try:
            _set_up_and_serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _set_up_and_serve(connection: Connection) -> None:
    setup = receive(connection)
    if not isinstance(setup, Setup):
        raise EOFError
    if setup.prepare is not None:
        setup.prepare()
    reader = NvmlReader(setup.clock, setup.make_host())
    operations = operations_of(reader, NvmlWriter(reader))
    # What was imported stays: the collector need not walk it again and again.
    gc.freeze()
    serve(connection, reader, operations)


if __name__ == "__main__":
    main(int(sys.argv[1]))
