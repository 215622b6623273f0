"""`run --listen` opens nothing that the file would have been refused for."""

from pathlib import Path

import pytest

from migscaler.app.config.compile import web_settings
from migscaler.app.config.load import load_text
from migscaler.app.config.model import WebSection
from migscaler.app.config.texts import SettingRefused
from migscaler.app.daemon import Daemon, DaemonOptions
from migscaler.app.start import load_in_force, safe_listen
from migscaler.cli.simulated import boot_id_of, host_of, preparation, quiet_host
from migscaler.sim.node import build_node
from migscaler.store.store import Store
from tests.builders import NOW
from tests.simulation.clockwork import VirtualClock


def section(text: str = "mode: observe\n") -> WebSection:
    return load_text(text, "test").config.web


@pytest.mark.parametrize("listen", ["0.0.0.0:9836", ":9836", "[::]:9836", "10.0.0.7:9836"])
def test_listen_of_the_command_line_is_no_way_around_the_file(listen: str) -> None:
    """It was: metrics and layouts were shown to everybody, though a file saying so is refused."""
    with pytest.raises(SettingRefused, match="reached from outside without authentication"):
        web_settings(section(), listen)


def test_listen_of_the_command_line_may_do_what_the_file_allows() -> None:
    assert web_settings(section(), "127.0.0.1:0").open_to is None
    said = section("web: {unprotected_reads: true}\n")
    assert web_settings(said, "0.0.0.0:9877").host == "0.0.0.0"
    # The web file has to protect the address that is really listened on.
    protected = section("web: {config_file: /etc/migscaler/web.yml}\n")
    assert web_settings(protected, "0.0.0.0:9877").open_to == "0.0.0.0:9877"


def test_daemon_refuses_before_it_takes_anything(tmp_path: Path) -> None:
    config = tmp_path / "migscaler.yaml"
    config.write_text("mode: observe\n")
    state = tmp_path / "state"

    with pytest.raises(SettingRefused):
        Daemon(DaemonOptions(config=config, state_dir=state, listen="0.0.0.0:0"))

    assert not state.exists()


def test_broken_file_beside_an_open_address_leaves_loopback_and_no_dead_exporter(
    tmp_path: Path,
) -> None:
    """The file that protected the address can't be read: nobody there may be shown anything, and
    the exporter must not end for a typo.
    """
    config = tmp_path / "migscaler.yaml"
    config.write_text("mode: observ\n")
    clock = VirtualClock(NOW)
    without = load_in_force(config, {}, None, clock)

    build_node("A100-SXM4-40GB", "580.65.06", tmp_path / "node")
    pages: list[str] = []
    daemon = Daemon(
        DaemonOptions(
            config=config,
            state_dir=tmp_path / "state",
            listen="0.0.0.0:0",
            prepare=preparation(tmp_path / "node"),
            make_host=host_of(tmp_path / "node"),
            boot_id=boot_id_of(tmp_path / "node"),
            roots=quiet_host(tmp_path / "node"),
            on_ready=pages.append,
        )
    )
    daemon.stop()
    daemon.run()

    assert pages[0].startswith("http://127.0.0.1:")
    assert daemon._state.lock is not None
    assert daemon._state.lock.closed
    assert daemon.runtime.in_force.status.forced_observe is not None
    assert safe_listen(without, "0.0.0.0:9877") == "127.0.0.1:9877"
    assert safe_listen(without, "127.0.0.1:0") == "127.0.0.1:0"
    assert safe_listen(without, None) is None
    with pytest.raises(SettingRefused, match="not an address"):
        safe_listen(without, "nowhere")


def test_last_good_file_goes_on_protecting_an_open_address(tmp_path: Path) -> None:
    config, clock = tmp_path / "migscaler.yaml", VirtualClock(NOW)
    good = load_text("web: {config_file: /etc/migscaler/web.yml}\n", "test")
    config.write_text("mode: observ\n")
    store = Store.open(None, clock)
    store.write_good_config(good.text, good.sha256)

    fallen_back = load_in_force(config, {}, store, clock)

    assert safe_listen(fallen_back, "0.0.0.0:9877") == "0.0.0.0:9877"
    assert web_settings(fallen_back.loaded.config.web, "0.0.0.0:9877").open_to is not None
    store.close()
