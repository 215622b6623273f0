"""Hostile clients of a real daemon: scrapers beside them are served, and memory stays bounded.

How fast they are served is measured in tests/benchmarks/web_bench.py, on a quiet machine.
"""

import re
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.processes import Daemon, daemon, wait_until
from tests.e2e.under_attack import SCRAPE_SECONDS, Seen, attacked
from tests.unit.web.certificates import PAIR, Authority

pytestmark = pytest.mark.xdist_group("web_attack")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("node"), "2xA100-SXM4-40GB", "mode: observe\n") as made:
        yield made


@pytest.fixture(scope="module")
def tls_node(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Daemon, ssl.SSLContext]]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    (folder / "web.yml").write_text(PAIR)
    config = f"mode: observe\nweb: {{config_file: {folder / 'web.yml'}}}\n"
    with daemon(folder, "2xA100-SXM4-40GB", config, over_tcp=False) as made:
        yield made, authority.client()


def served_meanwhile(seen: Seen) -> None:
    """Every scrape was answered, by 200, in a time that Prometheus waits."""
    assert seen.anew.failures == []
    assert seen.kept.failures == []
    assert len(seen.anew.times) >= 3
    assert seen.anew.times[-1] < 1000 * SCRAPE_SECONDS
    assert seen.rss_most < seen.rss_before + 32


@pytest.mark.parametrize(
    ("number", "kind"),
    [(1, "silent"), (2, "slow_heads"), (3, "slow_bodies"), (4, "slow_readers")],
)
def test_clients_that_hold_connections_keep_no_scraper_out(
    node: Daemon, number: int, kind: str
) -> None:
    # One address has at most 32 places; with six kept by scrapers, the rest is cut off or refused.
    def enough(done: Counter[str]) -> bool:
        return done["connected"] >= 100 and done["cut_off"] + done["503"] >= 50

    seen = attacked(node, kind, 2.0, f"127.0.2.{number}", enough=enough)

    served_meanwhile(seen)
    assert enough(Counter(seen.attack))


def refused(node: Daemon) -> dict[str, float]:
    """Return how often the daemon's page says that it refused something, by reason."""
    lines = re.findall(
        r'^migscaler_http_refused_total{reason="(.+)"} (\S+)$', node.metrics(), re.MULTILINE
    )
    return {reason: float(count) for reason, count in lines}


@pytest.mark.parametrize(
    ("number", "kind", "reason"), [(11, "pipelined", "request"), (12, "connecting", "connection")]
)
def test_excess_of_a_flood_is_shed_and_counted(
    node: Daemon, number: int, kind: str, reason: str
) -> None:
    before = refused(node)
    seen = attacked(node, kind, 2.0, f"127.0.2.{number}", enough=lambda done: done["503"] >= 32)

    served_meanwhile(seen)
    assert seen.attack["503"] >= 32
    # Budget of one address: a burst of 200 and 100 a second, and what its connections have.
    budget = 200 + 100 * seen.attack["seconds"] + 32 * 10
    assert seen.attack.get("200", 0) <= budget
    # Counts are published with the next sample. Of each refusal that was read the daemon knows, and
    # of those that a fast attacker did not wait for.
    excess = max(seen.attack["503"], seen.attack["connected"] - budget)
    wait_until("it is told", lambda: sum(refused(node).values()) - sum(before.values()) >= excess)
    assert refused(node)[reason] > before[reason]


@pytest.mark.parametrize(("number", "kind"), [(1, "silent"), (2, "hellos"), (3, "handshakes")])
def test_clients_that_wear_tls_out_keep_no_scraper_out(
    tls_node: tuple[Daemon, ssl.SSLContext], number: int, kind: str
) -> None:
    node, trusted = tls_node
    source = f"127.0.3.{number}"
    seen = attacked(node, kind, 2.0, source, trusted, lambda done: done["connected"] >= 10)

    served_meanwhile(seen)
    assert seen.attack["connected"] >= 10


def test_daemon_says_that_it_refuses(node: Daemon) -> None:
    attacked(node, "connecting", 0.5, "127.0.2.20", enough=lambda done: done["503"] >= 1)

    wait_until("it says so", lambda: "event=connections_refused" in node.log.read_text())
    assert node.process.poll() is None


def test_nothing_is_left_of_a_crowd(node: Daemon) -> None:
    """Places come back: after thousands of connections the same address is served again."""
    seen = attacked(node, "silent", 0.5, "127.0.2.1")

    served_meanwhile(seen)
