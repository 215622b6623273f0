"""The NVML worker's own process: does one request at a time until its parent goes.

Imports as little as it can: pynvml, the model and the reader. A fault in the driver's library ends
this process and not the exporter.
"""

import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection

from migscaler.errors import HardwareError
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.hardware.worker_messages import Reply, Request, SameModel, Setup
from migscaler.hardware.worker_wire import receive, send
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel

_GRACE_SECONDS = 1.0


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket until it closes its end."""
    # A service manager's SIGTERM reaches every process of the unit; the parent decides when this
    # one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    with Connection(descriptor) as connection:
        try:
            _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _serve(connection: Connection) -> None:
    """Set up, say so, and answer requests until the end of the stream."""
    setup = receive(connection)
    if not isinstance(setup, Setup):
        raise EOFError
    if setup.prepare is not None:
        setup.prepare()
    reader = NvmlReader(setup.clock, setup.make_host())
    operations = _operations(reader, NvmlWriter(reader))
    # What was imported stays: the collector need not walk it again and again.
    gc.freeze()
    send(connection, Reply(stats=reader.take_call_stats()))
    try:
        while isinstance(request := receive(connection), Request):
            try:
                value = operations[request.name](*request.arguments)
            except HardwareError as error:
                send(connection, Reply(error=error, stats=reader.take_call_stats()))
            else:
                send(connection, Reply(value=value, stats=reader.take_call_stats()))
    finally:
        reader.close()


class _Sampling:
    """Reads for samples; a GPU's model is a third of a reading and sent once."""

    def __init__(self, reader: NvmlReader) -> None:
        self._reader = reader
        self._sent: dict[GpuUuid, GpuModel | None] = {}

    def read_index(self, index: int) -> GpuAnswer | SameModel:
        answer = self._reader.read_index(index)
        reading = answer.reading
        if reading.model is not None and self._sent.get(reading.uuid) is reading.model:
            return SameModel(answer=replace(answer, reading=replace(reading, model=None)))
        self._sent[reading.uuid] = reading.model
        return answer


def _operations(reader: NvmlReader, writer: NvmlWriter) -> dict[str, Callable[..., object]]:
    """Return what may be asked, by name."""
    return {
        "begin": reader.begin,
        "read_index": _Sampling(reader).read_index,
        "read_gpu": reader.read_gpu,
        "destroy_compute_instance": writer.destroy_compute_instance,
        "destroy_gpu_instance": writer.destroy_gpu_instance,
        "create_gpu_instance": writer.create_gpu_instance,
        "create_compute_instance": writer.create_compute_instance,
        "set_mig_mode": lambda uuid, enabled: writer.set_mig_mode(uuid, enabled=enabled),
    }


def _end_with_parent(descriptor: int) -> None:
    """End this process a moment after its parent has gone, also from within a call that hangs."""
    poller = select.poll()
    poller.register(descriptor, 0)  # hang-up is always reported
    poller.poll()
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
