"""`run --listen` opens nothing that the file would have been refused for."""

from pathlib import Path

import pytest

from migscaler.app.config.compile import web_settings
from migscaler.app.config.load import load_text
from migscaler.app.config.model import WebSection
from migscaler.app.config.texts import SettingRefused
from migscaler.app.daemon import Daemon, DaemonOptions


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
