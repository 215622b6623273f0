"""The worker's side of a connection: one request at a time until the other end goes.

Imports as little as it can: pynvml, the model and the reader. A fault in the driver's library ends
this process and not the exporter.
"""

import os
import select
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection

from migscaler import __version__
from migscaler.errors import HardwareError
from migscaler.hardware.nvml import NvmlReader
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.hardware.worker_commands import LONGEST_REQUEST, RequestRefused, decode_request
from migscaler.hardware.worker_messages import Reply, Request, SameModel
from migscaler.hardware.worker_wire import send
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel
from migscaler.model.ports import GpuWriter

Operation = Callable[..., object]

_GRACE_SECONDS = 1.0


def outlive_nobody(descriptor: int) -> None:
    """Ignore a service's stop signals, and end with whoever is at the other end of the socket.

    A service manager's SIGTERM reaches every process of the unit; the other end decides when this
    one ends, a moment after it has gone also from within a call that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()


def serve(
    connection: Connection,
    reader: NvmlReader,
    operations: Mapping[str, Operation],
) -> None:
    """Say who is ready, of which version, and answer requests until the end of the stream.

    The reader is closed at the end.

    Raises:
        RequestRefused: what arrived is no request; the connection is of no more use.
        OSError: the other end has gone, or sent more than a request can be.
    """
    send(connection, Reply(stats=reader.take_call_stats(), value=(os.getpid(), __version__)))
    try:
        while (request := _next_request(connection)) is not None:
            operation = operations.get(request.name)
            if operation is None:
                raise RequestRefused(f"{request.name} is not offered here")
            try:
                value = operation(*request.arguments)
            except HardwareError as error:
                send(connection, Reply(error=error, stats=reader.take_call_stats()))
            else:
                send(connection, Reply(value=value, stats=reader.take_call_stats()))
    finally:
        reader.close()


def operations_of(reader: NvmlReader, writer: GpuWriter) -> dict[str, Operation]:
    """Return what is done with GPUs, by command."""
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


def _next_request(connection: Connection) -> Request | None:
    try:
        return decode_request(connection.recv_bytes(LONGEST_REQUEST))
    except EOFError:
        return None


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


def _end_with(descriptor: int) -> None:
    """End this process a moment after the other end has gone."""
    poller = select.poll()
    poller.register(descriptor, 0)  # hang-up is always reported
    poller.poll()
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(0)
