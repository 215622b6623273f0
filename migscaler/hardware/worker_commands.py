"""The closed set of what a worker may be asked, and how a request crosses to it.

The worker may be more privileged than whoever asks, so a request is plain JSON and is checked whole
before anything is done: the command is one of the table, its arguments have the right number and
form. Nothing in it can name code, a path or a function of NVML.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from migscaler.errors import ParseError
from migscaler.hardware.worker_messages import Request
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.profile import InstanceSpec, Placement, check_size_text

LONGEST_REQUEST = 1_024
"""Bytes; the longest legal one has about 200."""

# GPU UUIDs as NVML gives them (nvml.h, nvmlDeviceGetUUID).
_GPU_UUID = re.compile(r"GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Far beyond any board: ids are below 15, boards have at most 12 memory slices (MIG User Guide).
_LARGEST_ID = 1_023
_MOST_SLICES = 64
_LONGEST_NAME = 32


class RequestRefused(ValueError):
    """What arrived is no request: whoever sent it is not what it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One thing that may be asked: how each argument is read, and whether it changes anything."""

    arguments: tuple[Callable[[object], object], ...] = ()
    changes: bool = False


def encode_request(request: Request) -> bytes:
    """Return a request as it crosses."""
    arguments = [_plain(argument) for argument in request.arguments]
    return json.dumps({"name": request.name, "arguments": arguments}).encode("ascii")


def decode_request(raw: bytes) -> Request:
    """Read and check a request.

    Raises:
        RequestRefused: it is not one of the table, or an argument is not what it should be.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestRefused("not JSON") from error
    if not isinstance(found, dict) or found.keys() != {"name", "arguments"}:
        raise RequestRefused("neither more nor less than a name and arguments")
    name, arguments = found["name"], found["arguments"]
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise RequestRefused("no such command")
    if not isinstance(arguments, list) or len(arguments) != len(command.arguments):
        raise RequestRefused(f"{name} with other arguments")
    pairs = zip(command.arguments, arguments, strict=True)
    return Request(name=name, arguments=tuple(read(one) for read, one in pairs))


def _plain(argument: object) -> object:
    """Return an argument as JSON has it."""
    if isinstance(argument, InstanceSpec):
        place = argument.placement
        return {"profile": argument.profile, "start": place.start, "size": place.size}
    return argument


def _number(most: int) -> Callable[[object], int]:
    """Return what reads a whole number from 0 to `most`; true and false are none."""

    def read(value: object) -> int:
        if type(value) is int and 0 <= value <= most:
            return value
        raise RequestRefused(f"not a number from 0 to {most}")

    return read


def _gpu(value: object) -> GpuUuid:
    if isinstance(value, str) and _GPU_UUID.fullmatch(value):
        return GpuUuid(value)
    raise RequestRefused("not the UUID of a GPU")


def _gi(value: object) -> GiId:
    return GiId(_number(_LARGEST_ID)(value))


def _ci(value: object) -> CiId:
    return CiId(_number(_LARGEST_ID)(value))


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise RequestRefused("neither true nor false")


def _spec(value: object) -> InstanceSpec:
    """Read a profile at a placement; whether the GPU has it is the writer's to find out."""
    if not isinstance(value, dict) or value.keys() != {"profile", "start", "size"}:
        raise RequestRefused("not an instance")
    profile, slices = value["profile"], _number(_MOST_SLICES)
    if not isinstance(profile, str) or len(profile) > _LONGEST_NAME:
        raise RequestRefused("not a profile")
    try:
        place = Placement(slices(value["start"]), slices(value["size"]))
        return InstanceSpec(place, check_size_text(profile))
    except ParseError as error:
        raise RequestRefused("not an instance") from error


COMMANDS = {
    "begin": Command(),
    "read_index": Command(arguments=(_number(_LARGEST_ID),)),
    "read_gpu": Command(arguments=(_gpu,)),
    "read_host": Command(arguments=(_flag,)),
    "destroy_compute_instance": Command(arguments=(_gpu, _gi, _ci), changes=True),
    "destroy_gpu_instance": Command(arguments=(_gpu, _gi), changes=True),
    "create_gpu_instance": Command(arguments=(_gpu, _spec), changes=True),
    "create_compute_instance": Command(arguments=(_gpu, _gi), changes=True),
    "set_mig_mode": Command(arguments=(_gpu, _flag), changes=True),
    "make_device_nodes": Command(changes=True),
}
"""Every command by name."""
