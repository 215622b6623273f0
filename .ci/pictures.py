"""`make pictures`: the page and the dashboards of three simulated nodes under load, as pictures.

Writes docs/pictures/*.png. Needs Chromium, Prometheus and Node; takes about six minutes, for a day
has to pass on the nodes. `--only page` leaves out the dashboards and with them Node.
"""

import argparse
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pictures_panels import answered_board, drawn_boards
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
DAY = "4m"
WATCHED_SECONDS = 230
LATEST_PAGE_SECONDS = 120
# Chromium's flags of the tests: no GPU, no sandbox (root), nothing asked of the network.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGES = {
    "page": {"viewport": {"width": 1200, "height": 900}},
    "page-dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "page-changes": {"viewport": {"width": 1200, "height": 1000}},
    "page-explained": {"viewport": {"width": 1200, "height": 900}},
    "page-phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "has_touch": True,
    },
}
# What is below the GPUs: demand, gates and changes; the decision explained, unfolded as by a click.
SCROLLED = {
    "page-changes": "document.querySelector('.columns').scrollIntoView()",
    "page-explained": """
        for (const part of [...document.querySelectorAll('.explanation details')].slice(0, 6)) {
            part.open = true;
        }
        document.querySelector('.explanation').scrollIntoView();
    """,
}


def main() -> int:
    """Run the nodes and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["page"], help="leave out the dashboards")
    only = parser.parse_args().only
    if only is None:
        build_renderer()
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="migscaler-pictures-")))
        nodes = {f"gpu-{n:02}": _free_port() for n in ((1,) if only else (1, 2, 3))}
        for seed, (name, port) in enumerate(nodes.items(), start=1):
            stack.enter_context(_demo(root / name, port, seed))
        server = "" if only else stack.enter_context(_prometheus(root, nodes))
        browser = stack.enter_context(_chromium())
        began = time.monotonic()
        _take_pages(browser, next(iter(nodes.values())))
        if only is None:
            time.sleep(max(0.0, WATCHED_SECONDS - (time.monotonic() - began)))
            drawn_boards(browser, _answers(server), PICTURES)
    return 0


def build_renderer() -> None:
    """Build grafana/render/, installing its locked packages at the first time."""
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install Node, or leave out the dashboards with --only page")
    place = ROOT / "grafana" / "render"
    if not (place / "node_modules").is_dir():
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)
    built = place / "dist" / "index.html"
    newest = max(path.stat().st_mtime for path in (*place.glob("*.*"), *place.glob("src/*")))
    if not built.is_file() or built.stat().st_mtime < newest:
        _run(["npm", "run", "build"], place)


def _run(command: list[str], place: Path) -> None:
    """Run a command quietly; its output is shown if it fails."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _answers(server: str) -> dict[str, dict[str, object]]:
    """Return each dashboard with Prometheus' answers to its queries, by picture's name."""
    boards = ROOT / "grafana" / "dashboards"
    texts = {path.stem: path.read_text("utf-8") for path in sorted(boards.glob("*.json"))}
    until = time.time()
    return {
        name: answered_board(json.loads(text), server, until - WATCHED_SECONDS + 10, until)
        for name, text in texts.items()
    }


def _take_pages(browser: Browser, port: int) -> None:
    """Take the page's pictures at a moment with many sizes in use."""
    began = time.monotonic()
    for name, options in PAGES.items():
        while time.monotonic() - began < LATEST_PAGE_SECONDS and not _is_busy(port):
            time.sleep(0.5)
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/", wait_until="load")
        if name in SCROLLED:
            page.evaluate(SCROLLED[name])
        page.screenshot(path=PICTURES / f"{name}.png")
        context.close()


def _is_busy(port: int) -> bool:
    """Return whether several sizes are in use on most GPUs and something is still missing."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pinned = [line for line in lines if line.startswith("migscaler_instance_pinned_info{")]
    sizes = {line.split('profile="')[1].split("g.")[0] for line in pinned}
    used = {line.split('gpu="')[1].split('"')[0] for line in pinned if 'reason="process"' in line}
    content = 'migscaler_decision_outcome{outcome="satisfied"} 1.0' in lines
    return len(used) >= 7 and len(sizes) >= 3 and "3" in sizes and not content


@contextlib.contextmanager
def _demo(directory: Path, port: int, seed: int) -> Iterator[None]:
    """Run a demo until the block ends."""
    command = [ROOT / ".venv" / "bin" / "migscaler", "demo", "--day", DAY]
    command += ["--port", str(port), "--seed", str(seed), "--directory", str(directory)]
    with _process(command, directory.with_suffix(".log")):
        _wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield


@contextlib.contextmanager
def _prometheus(root: Path, nodes: dict[str, int]) -> Iterator[str]:
    """Run Prometheus on the nodes and give its address."""
    targets = "".join(
        f'      - {{targets: ["127.0.0.1:{port}"], labels: {{instance: {name}, cluster: lab}}}}\n'
        for name, port in nodes.items()
    )
    config = root / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 2s, scrape_timeout: 2s}\n"
        f"scrape_configs:\n  - job_name: migscaler\n    static_configs:\n{targets}"
    )
    url = f"127.0.0.1:{_free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={root / 'data'}"]
    with _process([*command, f"--web.listen-address={url}"], root / "prometheus.log"):
        _wait_for(f"http://{url}/-/ready")
        yield f"http://{url}"


@contextlib.contextmanager
def _chromium() -> Iterator[Browser]:
    """Run Chromium until the block ends."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield made
        made.close()


@contextlib.contextmanager
def _process(command: list[str | Path], log: Path) -> Iterator[None]:
    """Run a process until the block ends."""
    with log.open("wb") as output:
        started = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output)
        try:
            yield
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(30)


def _wait_for(url: str) -> None:
    """Wait until an address answers."""
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def _free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
