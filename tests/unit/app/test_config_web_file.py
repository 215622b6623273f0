"""exporter-toolkit's web configuration file: taken unchanged, or refused with every reason."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest
import trustme
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from migscaler.app.config.web_file import WebReading, read_web_file
from migscaler.app.config.web_model import HttpSection, RateSection, TlsSection

# A salt of its own would give the tests other names in every process.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + b"abcdefghijklmnopqrstuu").decode()
EVERYWHERE = "0.0.0.0:9836"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """Return a folder with a pair, its CA, and another key."""
    write_pair(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    trustme.CA().private_key_pem.write_to_path(tmp_path / "other.key")
    return tmp_path


def write_pair(folder: Path, authority: trustme.CA) -> None:
    made = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    made.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))


def read(folder: Path, text: str, open_to: str | None = None) -> WebReading:
    (folder / "web.yml").write_text(text)
    return read_web_file(folder / "web.yml", open_to=open_to)


def said(reading: WebReading) -> list[tuple[int | None, str, str]]:
    return [(f.line, f.where, f.problem) for f in reading.findings]


PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


def test_whole_file_of_the_toolkit_is_taken(folder: Path) -> None:
    reading = read(
        folder,
        PAIR
        + f"""
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: {folder}/ca.crt
  client_allowed_sans: [prometheus.example, "2001:DB8::0:1", "spiffe://a/b"]
  min_version: TLS12
  max_version: TLS13
  prefer_server_cipher_suites: true
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: sameorigin
    X-XSS-Protection: ""
basic_auth_users:
  prometheus: {HASH}
  grafana: "$2y${HASH[4:]}"
rate_limit: {{interval: 1m30s, burst: 5}}
""",
        EVERYWHERE,
    )

    assert said(reading) == []
    assert reading.warnings == ()
    protection = reading.protection
    assert protection is not None
    assert protection.tls is not None
    assert protection.tls.verify_mode is ssl.CERT_REQUIRED
    assert protection.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    names = [one["name"] for one in protection.tls.get_ciphers() if one["protocol"] == "TLSv1.2"]
    assert names == ["ECDHE-ECDSA-AES128-GCM-SHA256"]
    assert protection.client_sans == {"prometheus.example", "2001:db8::1", "spiffe://a/b"}
    assert sorted(protection.users) == ["grafana", "prometheus"]
    assert dict(protection.headers) == {
        "Strict-Transport-Security": "max-age=31536000",
        "X-Frame-Options": "sameorigin",
    }
    assert protection.rate_limit is not None
    assert (protection.rate_limit.interval_seconds, protection.rate_limit.burst) == (90.0, 5)
    assert {file.name for file in reading.files} == {
        "web.yml",
        "server.crt",
        "server.key",
        "ca.crt",
    }


@pytest.mark.parametrize(
    ("begins", "ends", "problem"),
    [
        (-20, -10, "the certificate has expired: clients refuse it"),
        (10, 20, "the certificate is not valid yet: clients refuse it"),
        (-10, 10, None),
    ],
)
@pytest.mark.parametrize("clients", ["", "  client_auth_type: RequireAndVerifyClientCert\n"])
def test_certificate_out_of_its_time_is_warned_about(
    folder: Path,
    authority: trustme.CA,
    begins: int,
    ends: int,
    problem: str | None,
    clients: str,
) -> None:
    """The toolkit serves it, and so do we: config check and doctor said that all was fine."""
    now = datetime.now(UTC)
    made = authority.issue_cert(
        "localhost",
        not_before=now + timedelta(days=begins),
        not_after=now + timedelta(days=ends),
        key_type=trustme.KeyType.ECDSA,
    )
    made.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))

    reading = read(folder, PAIR + (f"{clients}  client_ca_file: ca.crt\n" if clients else ""))

    assert said(reading) == []
    assert reading.protection is not None
    expected = [] if problem is None else [(2, f"{TLS}.cert_file", problem)]
    assert [(f.line, f.where, f.problem) for f in reading.warnings] == expected


def test_authorities_may_be_named_in_their_own_script(folder: Path) -> None:
    """Such a line between the certificates ended the daemon at its start (2026-11-29)."""
    ca = (folder / "ca.crt").read_bytes()
    (folder / "ca.crt").write_bytes("# Főtanúsítvány\n".encode() + ca)
    wanted = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"

    reading = read(folder, PAIR + wanted)

    assert said(reading) == []
    assert reading.protection is not None
    assert reading.protection.tls is not None
    assert len(reading.protection.tls.get_ca_certs()) == 1


def test_pair_may_stand_in_the_file_itself(folder: Path) -> None:
    def inline(key: str, name: str) -> str:
        lines = (folder / name).read_text().splitlines()
        return f"  {key}: |\n" + "".join(f"    {line}\n" for line in lines)

    text = "tls_server_config:\n" + inline("cert", "server.crt") + inline("key", "server.key")
    text += inline("client_ca", "ca.crt") + "  client_auth_type: VerifyClientCertIfGiven\n"
    reading = read(folder, text)

    assert said(reading) == []
    assert reading.protection is not None
    assert reading.protection.tls is not None
    assert reading.protection.tls.verify_mode is ssl.CERT_OPTIONAL
    assert reading.protection.authenticates is False


@pytest.mark.parametrize("text", ["", "basic_auth_users: {}\n", "tls_server_config:\n"])
def test_file_may_ask_for_nothing(folder: Path, text: str) -> None:
    reading = read(folder, text)

    assert said(reading) == []
    assert reading.protection is not None
    assert reading.protection.tls is None


TLS = "tls_server_config"


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        (PAIR + "  curve_preferences: [X25519]\n", [(4, f"{TLS}.curve_preferences", "an order")]),
        ("http_server_config: {http2: true}\n", [(1, "http_server_config.http2", "HTTP/2 is not")]),
        (PAIR + "  min_version: TLS11\n", [(4, f"{TLS}.min_version", "TLS11 is broken")]),
        (
            PAIR + "  min_version: TLS13\n  max_version: TLS12\n",
            [(4, f"{TLS}.min_version", "is newer than max_version")],
        ),
        (
            PAIR + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
            [(4, f"{TLS}.cipher_suites[0]", "'TLS_RSA_WITH_RC4_128_SHA' is no cipher")],
        ),
        (
            PAIR + "  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
            [(5, f"{TLS}.cipher_suites", "none of them is of TLS 1.2")],
        ),
        (
            PAIR + "  client_ca_file: ca.crt\n",
            [(4, f"{TLS}.client_ca_file", "a client CA without client_auth_type")],
        ),
        (
            PAIR + "  client_auth_type: RequireAndVerifyClientCert\n",
            [(4, f"{TLS}.client_auth_type", "whose certificates are valid is not said")],
        ),
        (
            PAIR + "  client_auth_type: RequireAnyClientCert\n",
            [(4, f"{TLS}.client_auth_type", "RequireAnyClientCert takes certificates that nobody")],
        ),
        (
            PAIR + "  client_auth_type: RequireAndVerifyClientCerts\n",
            [(4, f"{TLS}.client_auth_type", "'RequireAndVerifyClientCerts' is no")],
        ),
        (
            PAIR
            + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"
            + "  client_allowed_sans: [a.example]\n",
            [(6, f"{TLS}.client_allowed_sans", "clients may come without a certificate")],
        ),
        (
            PAIR
            + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
            + "  client_allowed_sans: []\n",
            [(6, f"{TLS}.client_allowed_sans", "an empty list lets nobody in")],
        ),
        (
            PAIR
            + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.key\n",
            [(5, f"{TLS}.client_ca_file", "holds no certificate in PEM")],
        ),
        (
            f"{TLS}:\n  min_version: TLS13\n",
            [(1, TLS, "TLS needs cert_file"), (1, TLS, "TLS needs key_file")],
        ),
        (
            f"{TLS}: {{cert_file: server.crt, key_file: other.key}}\n",
            [(1, f"{TLS}.key_file", "the key does not belong to the certificate")],
        ),
        (
            f"{TLS}: {{cert_file: server.key, key_file: server.key}}\n",
            [(1, f"{TLS}.cert_file", "is no certificate in PEM")],
        ),
        (
            f"{TLS}: {{cert_file: ca.crt, key_file: ca.crt}}\n",
            [(1, f"{TLS}.key_file", "is no key in PEM")],
        ),
        ("basic_auth_users: {ada: hunter2}\n", [(1, "basic_auth_users.ada", "is no bcrypt hash")]),
        ("basic_auth_users: {ada: 12345}\n", [(1, "basic_auth_users.ada", "is no bcrypt hash")]),
        (
            f'basic_auth_users: {{"a:b": {HASH}}}\n',
            [(1, "basic_auth_users.a:b", "no client can send such a name")],
        ),
        (
            f"basic_auth_users: {{ada: {HASH.replace('$04$', '$31$')}}}\n",
            [(1, "basic_auth_users.ada", "a check at cost 31 takes too long")],
        ),
        (
            f"basic_auth_users:\n  ada: {HASH}\n  ada: {HASH}\n",
            [(3, "basic_auth_users.ada", "can't be read as a text")],
        ),
        (
            "http_server_config: {headers: {Server: x}}\n",
            [(1, "http_server_config.headers", "header Server can't be set")],
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: DENY}}\n",
            [(1, "http_server_config.headers", "X-Frame-Options can't be 'DENY'")],
        ),
        (
            'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nb"}}\n',
            [(1, "http_server_config.headers", "Content-Security-Policy is not one line")],
        ),
        ("rate_limit: {interval: 1s}\n", [(1, "rate_limit", "a burst of 0 answers nobody")]),
        ("rate_limit: {interval: fast}\n", [(1, "rate_limit.interval", "'fast' is not a")]),
        ("tls_config: {}\n", [(1, "tls_config", "unknown key 'tls_config'")]),
        ("- a\n", [(1, "(file)", "the file is not a mapping")]),
    ],
)  # fmt: skip
def test_what_cannot_be_honored_is_refused_by_name(
    folder: Path, text: str, findings: list[tuple[int, str, str]]
) -> None:
    reading = read(folder, text)

    assert reading.protection is None
    found = said(reading)
    assert [(line, where) for line, where, _ in found] == [(f[0], f[1]) for f in findings]
    for (_, _, problem), (_, _, begins) in zip(found, findings, strict=True):
        assert problem.startswith(begins)
    assert all(finding.remedy for finding in reading.findings)


def test_every_finding_is_told_at_once(folder: Path) -> None:
    reading = read(
        folder,
        f"{TLS}:\n  cert_file: nope.crt\n  key_file: server.key\n  curve_preferences: [X25519]\n"
        "http_server_config: {http2: true}\nbasic_auth_users: {ada: x}\n",
    )

    assert [(line, where) for line, where, _ in said(reading)] == [
        (2, f"{TLS}.cert_file"),
        (4, f"{TLS}.curve_preferences"),
        (5, "http_server_config.http2"),
        (6, "basic_auth_users.ada"),
    ]


def test_no_message_shows_a_secret(folder: Path) -> None:
    text = (
        "basic_auth_users:\n  a: hunter2\n  b: 0778899\n  c: [hunter3]\n  a: hunter4\n"
        f"{TLS}: {{cert_file: server.crt, key: hunter5}}\n"
    )
    told = repr(read(folder, text).findings)
    for misplaced in ("basic_auth_users: a hunter6\n", f"{TLS}: hunter7\n"):
        reading = read(folder, misplaced)
        assert len(reading.findings) == 1
        told += repr(reading.findings)

    for secret in ("hunter", "0778899", "778899"):
        assert secret not in told


def test_key_with_a_passphrase_is_refused_without_asking(folder: Path) -> None:
    """OpenSSL would ask for it on the terminal, and the daemon wait there for ever."""
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", "server.key"]
    locked = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    (folder / "server.key").write_bytes(locked.stdout)

    assert said(read(folder, PAIR)) == [(3, f"{TLS}.key_file", "the key has a passphrase")]


def test_file_for_an_open_address_must_say_who_may_read(folder: Path) -> None:
    assert [p for _, _, p in said(read(folder, PAIR, EVERYWHERE))] == [
        "everybody who reaches 0.0.0.0:9836 could read: no users, no client certificate"
    ]
    users = f"basic_auth_users: {{ada: {HASH}}}\n"
    assert read(folder, PAIR + users, EVERYWHERE).warnings == ()
    in_clear = read(folder, users, EVERYWHERE)
    assert in_clear.protection is not None
    assert "in clear" in in_clear.warnings[0].problem


def test_shipped_example_is_refused_until_a_password_is_chosen(folder: Path) -> None:
    text = (Path(__file__).parents[3] / "config" / "web.yml").read_text()

    assert [(where, problem) for _, where, problem in said(read(folder, text))] == [
        ("basic_auth_users.prometheus", "is no bcrypt hash")
    ]
    chosen = text.replace("write the bcrypt hash of a password of your own here", HASH)
    assert read(folder, chosen, EVERYWHERE).protection is not None


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a: [", b"a: \x01"])
def test_file_that_is_no_text_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "web.yml"
    if content is not None:
        path.write_bytes(content)
    reading = read_web_file(path)

    assert reading.protection is None
    assert len(reading.findings) == 1
    assert reading.files == (path,)


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12),
    st.sampled_from(["server.crt", "server.key", "ca.crt", "TLS12", HASH, "1s", "", "/"]),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def section(model: type[BaseModel]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(model.model_fields, _VALUES))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    value=st.fixed_dictionaries(
        {},
        optional={
            "tls_server_config": section(TlsSection) | _VALUES,
            "http_server_config": section(HttpSection) | _VALUES,
            "basic_auth_users": st.dictionaries(st.text(max_size=6), _SCALARS, max_size=2),
            "rate_limit": section(RateSection) | _VALUES,
        },
    )
)
def test_no_value_ends_the_reader(folder: Path, value: dict[str, object]) -> None:
    """It runs in the daemon's main thread: what it raised would be looked at every second."""
    reading = read(folder, yaml.safe_dump(value, allow_unicode=True))

    assert (reading.protection is None) is bool(reading.findings)
    assert reading.files[0] == folder / "web.yml"


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=200))
def test_no_bytes_end_the_reader(folder: Path, raw: bytes) -> None:
    (folder / "web.yml").write_bytes(raw)
    reading = read_web_file(folder / "web.yml")

    assert (reading.protection is None) is bool(reading.findings)
