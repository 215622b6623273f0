"""Every route and command of docs/openapi.json, with random arguments, on a real daemon.

schemathesis makes the requests from the description: right ones and wrong ones.
"""

import copy
import importlib.util
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.processes import Daemon, daemon, wait_until

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-the-fuzzer"
BEARER = {"authorization": f"Bearer {TOKEN}"}
# Of a command without arguments there is not much to vary.
EXAMPLES, FEW = 10, 2
# A 500 is a defect; a 503 (too much at once) and a 504 (still running) are promised answers.
_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
CONFIG = """
mode: enforce
sampling: {{interval: 1s}}
tick: 1s
gpus: [{{model: "NVIDIA*"}}]
idle: {{after: 10s}}
sources: {{desk: {{type: push}}}}
rules: [{{name: small, size: 1g, from: [desk, scheduler]}}]
web: {{writes: {{enabled: true, token_file: "{token}"}}}}
"""
# Texts that name something on the node, so that more than refusals is reached.
KNOWN: dict[str, list[object]] = {
    "gpu": [0, "1", "0", 7, "all", ""],
    "layout": ["1g.5gb@0 2g.10gb@2", "7g.40gb@0", "3g.20gb 3g.20gb", "", "1g.5gb@9", "nonsense@"],
    "spec": ["1g.5gb@0", "7g.40gb@0", "1g.5gb"],
    "instance": ["1g.5gb@0", "7g.40gb@0", "7g@0"],
    "size": ["1g", "7g", "1g.5gb", "1gx", "none"],
    "source": ["desk", "scheduler", "none"],
    "rule": ["small", "none"],
    "counts": ["waiting", "total", "none"],
    "wants": [{"1g": 2}, {"7g.40gb": 1}, {"": 1}, {"1g": 10**30}],
    "id": [1, 2], "wait_id": [1], "lease_id": [1, 2], "hold_id": [1, 2],
    "ttl_seconds": [60, 0.001, 1e8], "for_seconds": [1, 999_999_999],
    "gpus": [[0], ["1"], [0, 0], ["none"]],
    "limit": [1, -1, 0, 10**9, 10**30], "count": [0, 3, -1, 10**30], "pid": [1, -1, 10**30],
}  # fmt: skip


def generator() -> ModuleType:
    """Load .ci/generate/openapi.py."""
    path = ROOT / ".ci" / "generate" / "openapi.py"
    found = importlib.util.spec_from_file_location("generate_openapi", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def shipped() -> dict[str, Any]:
    described: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return described


def test_description_is_that_of_the_code() -> None:
    assert shipped() == json.loads(json.dumps(generator().description()))


def likely() -> dict[str, Any]:
    """Return the description with names of things that are there, and wild ones, for free texts."""
    described = copy.deepcopy(shipped())
    for path in described["paths"].values():
        body = path.get("post", {}).get("requestBody")
        if body is None:
            continue
        properties = body["content"]["application/json"]["schema"]["properties"]
        for name in list(properties):
            if name in KNOWN:
                properties[name] = {"enum": KNOWN[name]}
    return described


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "token").write_text(TOKEN)
    config = CONFIG.format(token=folder / "token")
    with daemon(folder, "2xA100-SXM4-40GB", config) as made:
        yield made


def ask(case: Case[Any], node: Daemon, session: requests.Session) -> Response:
    """Send a request; where the daemon sheds it, wait and send it again, as it asks."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    while True:
        answer = case.call(
            base_url=f"http://127.0.0.1:{node.port}", headers=headers, session=session, timeout=60
        )
        case.validate_response(answer, checks=_CHECKS)
        if "too many requests" not in answer.text:
            return answer
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("mode", "least"), [(GenerationMode.POSITIVE, 80), (GenerationMode.NEGATIVE, 0)]
)
def test_no_request_is_answered_by_a_fault_of_ours(
    node: Daemon, mode: GenerationMode, least: int
) -> None:
    described = schemathesis.openapi.from_dict(likely())
    operations = [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 38
    codes: Counter[int] = Counter()
    faults: list[str] = []
    session = requests.Session()
    for operation in operations:
        body = operation.definition.raw.get("requestBody", {}).get("content", {})
        takes = any(kind["schema"]["properties"] for kind in body.values())

        @settings(
            max_examples=EXAMPLES if takes and mode is GenerationMode.POSITIVE else FEW,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def probe(case: Case[Any]) -> None:
            answer = ask(case, node, session)
            codes[answer.status_code] += 1
            if answer.status_code == 500:
                faults.append(f"{case.as_curl_command()}: {answer.text}")

        if mode is GenerationMode.POSITIVE or operation.method == "post":
            probe()
    session.close()

    assert faults == []
    assert codes[200] >= least
    assert codes.total() >= 50
    assert "Traceback" not in node.log.read_text()
    assert node.process.poll() is None


# Half a character, an order to a terminal, and nothing at all: none can be shown to anybody.
NO_TEXTS = ("\ud800", "\x1b[2J", "\x00")


def texts_of(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the arguments of a command that are texts."""
    for name, value in schema["properties"].items():
        if "string" in str(value):
            yield name


def test_text_that_can_not_be_shown_is_refused_by_every_command(node: Daemon) -> None:
    """schemathesis draws only what has an encoding; after `pause` of the rest, every answer was a
    500 for everybody.
    """
    tried = 0
    with httpx.Client(
        base_url=f"http://127.0.0.1:{node.port}", headers=BEARER, timeout=60
    ) as client:
        for path, item in shipped()["paths"].items():
            body = item.get("post", {}).get("requestBody")
            if body is None:
                continue
            schema = body["content"]["application/json"]["schema"]
            for name in texts_of(schema):
                for text in NO_TEXTS:
                    tried += 1
                    for values in ({name: text}, {"x": {text: [text]}}):
                        assert code_of(client, path, json.dumps(values)) == 400
        assert tried >= 30
        for page in ("/", "/api/v1/status", "/api/v1/explain", "/metrics"):
            wait_until(f"{page} answers", partial(is_served, client, page))


def test_every_command_refuses_what_it_does_not_take(node: Daemon) -> None:
    """A misspelled `dry_run` must not act."""
    tried = 0
    with httpx.Client(
        base_url=f"http://127.0.0.1:{node.port}", headers=BEARER, timeout=60
    ) as client:
        for path, item in shipped()["paths"].items():
            if "post" in item:
                tried += 1
                assert code_of(client, path, '{"dry-run": true}') == 400
                assert code_of(client, f"{path}?dry_run=true", "") == 400
    assert tried == 29


def client_of(node: Daemon) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{node.port}", headers=BEARER, timeout=60)


def is_served(client: httpx.Client, page: str) -> bool:
    """Say whether a page is there; too much at once is to be asked again."""
    code = client.get(page).status_code
    assert code in (200, 503)
    return code == 200


def code_of(client: httpx.Client, path: str, raw: str) -> int:
    """Give a command and return the answer's code; too much at once is asked again."""
    headers = {"content-type": "application/json"}
    while (code := client.post(path, content=raw, headers=headers).status_code) == 503:
        time.sleep(0.1)
    return code


def test_request_that_is_none_leaves_the_log_readable(node: Daemon) -> None:
    """Uvicorn's warning of each stood bare on standard error, 599 lines in four seconds."""
    for raw in (
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", node.port), timeout=60) as link:
            link.sendall(raw)
            link.recv(64)

    lines = node.log.read_text().splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("time=")] == []
