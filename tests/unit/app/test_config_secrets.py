"""People paste secrets where their paths belong; no finding may tell them to whoever reads it.

A private key below `key_file:` stood in the log and in /api/v1/status for everybody (2026-11-29).
"""

from pathlib import Path

import pytest
import trustme
import yaml

from migscaler.app.config.load import load_text
from migscaler.app.config.model import Config
from migscaler.app.config.web_file import read_web_file
from migscaler.app.config.web_model import TlsSection
from migscaler.app.start import finding_text
from migscaler.errors import ConfigError, Finding
from tests.property.test_config_loader import file_with, paths

TOKEN = "eyJhbGciOi.s3cr3t"
KEY = trustme.CA(key_type=trustme.KeyType.ECDSA).private_key_pem.bytes().decode()
BODY = KEY.splitlines()[1]
SOURCE = "sources: {q: {type: prometheus, query: x, "


def findings_of(text: str) -> tuple[Finding, ...]:
    with pytest.raises(ConfigError) as refused:
        load_text(text, "some.yaml")
    return refused.value.findings


def told(findings: tuple[Finding, ...]) -> str:
    assert findings
    return "\n".join(map(finding_text, findings))


@pytest.mark.parametrize(
    "text",
    [
        f"web: {{reads: {{token_file: {TOKEN}}}}}",
        f"web: {{writes: {{token_file: [{TOKEN}]}}}}",
        f'{SOURCE}url: "http://a", bearer_token_file: {TOKEN}}}}}',
        f'{SOURCE}url: "http://a", bearer_token: {TOKEN}}}}}',
        f'{SOURCE}url: "http://u:{TOKEN}@["}}}}',
        f'{SOURCE}url: "http://u:{TOKEN}@a:b"}}}}',
        f'{SOURCE}url: "http://u:p {TOKEN}@a/?x=1"}}}}',
        f'{SOURCE}url: "u:{TOKEN}@a"}}}}',
        f'{SOURCE}url: "http://a/?token={TOKEN}"}}}}',
        f'{SOURCE}url: "http://a/api/v1?token={TOKEN}"}}}}',
        f'activity: {{dcgm: {{url: "http://u:{TOKEN}@a"}}}}',
        "web: {reads: {token_file: 7777777777777}}",
    ],
)
def test_secret_in_the_place_of_its_file_is_not_quoted(text: str) -> None:
    said = told(findings_of(text))

    assert TOKEN not in said
    assert "7777777777777" not in said


def test_private_key_under_any_key_of_the_file_is_not_quoted() -> None:
    for path in sorted(set(paths(Config))):
        text = yaml.safe_dump(file_with(path, KEY, complete=True))
        try:
            load_text(text, "some.yaml")
        except ConfigError as error:
            said = told(error.findings)
        else:
            continue
        assert BODY not in said, path


@pytest.mark.parametrize("key", sorted(TlsSection.model_fields))
def test_private_key_under_any_key_of_tls_is_not_quoted(tmp_path: Path, key: str) -> None:
    file = tmp_path / "web.yml"
    other = "" if key == "cert_file" else "  cert_file: server.crt\n"
    block = "".join(f"    {line}\n" for line in KEY.splitlines())

    for style in ("|", ">"):
        file.write_text(f"tls_server_config:\n{other}  {key}: {style}\n{block}")
        assert BODY not in told(read_web_file(file).findings)


def test_key_without_its_frame_below_key_file_is_not_quoted(tmp_path: Path) -> None:
    bare = "".join(KEY.splitlines()[1:-1]).replace("/", "+")
    file = tmp_path / "web.yml"
    file.write_text(f"tls_server_config:\n  cert_file: server.crt\n  key_file: {bare}\n")

    assert bare not in told(read_web_file(file).findings)


@pytest.mark.parametrize(
    "value", ["*hunter2", "!hunter2 x", "!h!hunter2 x", "&hunter2 [", "%hunter2"]
)
def test_password_that_yaml_can_not_read_is_not_quoted(tmp_path: Path, value: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users:\n  alice: {value}\n")

    assert "hunter2" not in told(read_web_file(file).findings)
