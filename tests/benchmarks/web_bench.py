"""Scrapes of a daemon on 8 simulated GPUs while it is attacked: rows of docs/benchmarks.md.

Run it with `make bench`, or alone: `python -m tests.benchmarks.web_bench`.
"""

import ssl
import tempfile
from pathlib import Path

import trustme

from tests.e2e.processes import daemon
from tests.e2e.under_attack import Seen, attacked

SECONDS = 10.0
ATTACKS = {
    "silent": "500 silent connections, made again when cut off",
    "slow_heads": "300 heads, a byte each 0.5 s",
    "slow_bodies": "300 bodies, a byte each 0.5 s",
    "slow_readers": "300 that ask 20 times and read nothing",
    "pipelined": "flood on 48 kept connections",
    "connecting": "flood of new connections, a request each",
}

TLS_ATTACKS = {
    "silent": "TLS: 500 connections that begin no handshake",
    "hellos": "TLS: flood of handshakes begun",
    "handshakes": "TLS: whole handshakes one after the other, a request each",
}
NODE, CONFIG = "8xA100-SXM4-40GB", "mode: observe\n"


def measure() -> dict[str, Seen]:
    """Return what was seen under each attack, each from an address of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), NODE, CONFIG) as node,
    ):
        return {
            told: attacked(node, kind, SECONDS, f"127.0.1.{number + 1}")
            for number, (kind, told) in enumerate(ATTACKS.items())
        }


def measure_tls() -> dict[str, Seen]:
    """Return what was seen under attacks on TLS, with an RSA key of 2,048 bits: the dear one."""
    with tempfile.TemporaryDirectory() as folder:
        web, trusted = _tls_files(Path(folder))
        config = f"{CONFIG}web: {{config_file: {web}}}\n"
        with daemon(Path(folder), NODE, config, over_tcp=False) as node:
            return {
                told: attacked(node, kind, SECONDS, f"127.0.1.{number + 21}", trusted)
                for number, (kind, told) in enumerate(TLS_ATTACKS.items())
            }


def _tls_files(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Write a pair and its web configuration file; return that, and a client's context."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    pair = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    pair.private_key_and_cert_chain_pem.write_to_path(folder / "pair.pem")
    web = folder / "web.yml"
    web.write_text("tls_server_config: {cert_file: pair.pem, key_file: pair.pem}\n")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    return web, trusted


def report(seen: dict[str, Seen]) -> str:
    """Return the table."""
    lines = [
        "| attack | offered | connections cut off or refused | scrape, own address: p50 / p99 | "
        "kept connection, attacker's address: p50 / p99 | failed | memory before / most | "
        "daemon, % of a core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for told, one in seen.items():
        rate = one.attack.get("requests", one.attack["connected"]) / one.attack["seconds"]
        what = "requests/s" if "requests" in one.attack else "connections/s"
        shed = one.attack.get("cut_off", 0) + one.attack.get("503", 0)
        anew, kept = one.anew, one.kept
        failed = len(anew.failures), len(kept.failures)
        lines.append(
            f"| {told} | {rate:,.0f} {what} | {shed:,.0f}"
            f" | {anew.percentile(0.5):.1f} / {anew.percentile(0.99):.1f} ms"
            f" | {kept.percentile(0.5):.1f} / {kept.percentile(0.99):.1f} ms"
            f" | {failed[0]} of {len(anew.times)}, {failed[1]} of {len(kept.times)}"
            f" | {one.rss_before:.0f} / {one.rss_most:.0f} MiB | {100 * one.cpu:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(report({**measure(), **measure_tls()}))
