"""The closed set of requests: one of them arrives as it was sent, anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migscaler.hardware.worker_commands import (
    COMMANDS,
    LONGEST_REQUEST,
    RequestRefused,
    decode_request,
    encode_request,
)
from migscaler.hardware.worker_messages import Request
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.profile import InstanceSpec, Placement

GPU = GpuUuid("GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f")
SPEC = InstanceSpec(Placement(4, 4), "3g.20gb")
PLAIN = {"profile": "3g.20gb", "start": 4, "size": 4}
LEGAL = [
    Request(name="begin"),
    Request(name="read_index", arguments=(15,)),
    Request(name="read_gpu", arguments=(GPU,)),
    Request(name="read_host", arguments=(True,)),
    Request(name="destroy_compute_instance", arguments=(GPU, GiId(7), CiId(0))),
    Request(name="destroy_gpu_instance", arguments=(GPU, GiId(7))),
    Request(name="create_gpu_instance", arguments=(GPU, SPEC)),
    Request(
        name="create_gpu_instance", arguments=(GPU, InstanceSpec(Placement(0, 1), "1g.5gb+me"))
    ),
    Request(name="create_compute_instance", arguments=(GPU, GiId(7))),
    Request(name="set_mig_mode", arguments=(GPU, False)),
    Request(name="make_device_nodes"),
]


@pytest.mark.parametrize("request_", LEGAL, ids=lambda request_: request_.name)
def test_legal_request_arrives_as_it_was_sent(request_: Request) -> None:
    raw = encode_request(request_)

    assert decode_request(raw) == request_
    assert len(raw) < LONGEST_REQUEST / 4


def test_every_command_is_among_the_legal_requests() -> None:
    assert {request_.name for request_ in LEGAL} == set(COMMANDS)


def request(name: object, *arguments: object, **more: object) -> bytes:
    return json.dumps({"name": name, "arguments": arguments, **more}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"9" * 5_000,
        b"NaN",
        request("begin", shell="id"),
        request("install_library", "os"),
        request("__class__"),
        request(["begin"]),
        request(None),
        request("begin", 1),
        request("read_index", -1),
        request("read_index", 1024),
        request("read_index", True),
        request("read_index", 1.0),
        request("read_index", "0"),
        request("read_index", 10**300),
        request("read_gpu", "GPU-../../etc/passwd"),
        request("read_gpu", GPU + "\n"),
        request("read_gpu", None),
        request("read_host", 1),
        request("destroy_gpu_instance", GPU),
        request("destroy_gpu_instance", GPU, 1, 2),
        request("destroy_gpu_instance", GPU, "1"),
        request("destroy_compute_instance", GPU, 1, -1),
        request("create_gpu_instance", GPU, {**PLAIN, "profile": "3g; reboot"}),
        request("create_gpu_instance", GPU, {**PLAIN, "profile": "1g.5gb" + "+me" * 20}),
        request("create_gpu_instance", GPU, {**PLAIN, "profile": None}),
        request("create_gpu_instance", GPU, {**PLAIN, "start": -4}),
        request("create_gpu_instance", GPU, {**PLAIN, "size": 0}),
        request("create_gpu_instance", GPU, {**PLAIN, "size": 65}),
        request("create_gpu_instance", GPU, {**PLAIN, "cpu": 1}),
        request("create_gpu_instance", GPU, "3g.20gb@0"),
        request("set_mig_mode", GPU, 1),
        request("make_device_nodes", "/bin/sh"),
    ],
    ids=lambda raw: raw[:60].decode("latin-1"),
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        decode_request(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(GPU),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["profile", "start", "size", "x"]), inner, max_size=3)
    ),
)


@given(st.sampled_from(sorted(COMMANDS)), st.lists(JSON, max_size=3))
def test_arguments_of_any_form_are_read_or_refused(name: str, arguments: list[object]) -> None:
    try:
        found = decode_request(json.dumps({"name": name, "arguments": arguments}).encode())
    except RequestRefused:
        return
    assert decode_request(encode_request(found)) == found


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        decode_request(raw)
