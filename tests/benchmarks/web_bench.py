"""Scrapes of a daemon on 8 simulated GPUs while it is attacked: rows of docs/benchmarks.md.

Run it with `make bench`, or alone: `python -m tests.benchmarks.web_bench`.
"""

import tempfile
from pathlib import Path

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


def measure() -> dict[str, Seen]:
    """Return what was seen under each attack, each from an address of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), "8xA100-SXM4-40GB", "mode: observe\n") as node,
    ):
        return {
            kind: attacked(node, kind, SECONDS, f"127.0.1.{number + 1}")
            for number, kind in enumerate(ATTACKS)
        }


def report(seen: dict[str, Seen]) -> str:
    """Return the table."""
    lines = [
        "| attack | offered | connections cut off or refused | scrape, own address: p50 / p99 | "
        "kept connection, attacker's address: p50 / p99 | failed | memory before / most | "
        "daemon, % of a core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, one in seen.items():
        rate = one.attack.get("requests", one.attack["connected"]) / one.attack["seconds"]
        what = "requests/s" if "requests" in one.attack else "connections/s"
        shed = one.attack.get("cut_off", 0) + one.attack.get("503", 0)
        anew, kept = one.anew, one.kept
        failed = len(anew.failures), len(kept.failures)
        lines.append(
            f"| {ATTACKS[kind]} | {rate:,.0f} {what} | {shed:,.0f}"
            f" | {anew.percentile(0.5):.1f} / {anew.percentile(0.99):.1f} ms"
            f" | {kept.percentile(0.5):.1f} / {kept.percentile(0.99):.1f} ms"
            f" | {failed[0]} of {len(anew.times)}, {failed[1]} of {len(kept.times)}"
            f" | {one.rss_before:.0f} / {one.rss_most:.0f} MiB | {100 * one.cpu:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(measure()))
