"""What can't be looked at is not nothing."""

from pathlib import Path

import pytest

from migscaler.schedulers.proc import environment, open_files, processes
from tests.unit.descriptors import no_more_descriptors
from tests.unit.schedulers.host_files import HostFiles


@pytest.fixture
def host(tmp_path: Path) -> HostFiles:
    files = HostFiles(tmp_path)
    files.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap30",), environment=("A=b",))
    return files


def test_process_without_a_descriptor_left_to_look_is_unknown_not_empty(host: HostFiles) -> None:
    """A flood of connections used up the descriptors, and the holder seemed to hold nothing."""
    with no_more_descriptors():
        files, words = open_files(host.roots.proc, 50), environment(host.roots.proc, 50)
    assert (files, words) == (None, None)
    assert open_files(host.roots.proc, 50) == ("/dev/nvidia-caps/nvidia-cap30",)
    assert environment(host.roots.proc, 50) == b"A=b"


def test_process_that_cannot_be_identified_is_no_process_that_ended(host: HostFiles) -> None:
    # A directory in the place of the file answers what no ended process would.
    (host.roots.proc / "50" / "stat").unlink()
    (host.roots.proc / "50" / "stat").mkdir()
    with pytest.raises(IsADirectoryError):
        processes(host.roots.proc)


def test_process_that_has_ended_has_nothing(host: HostFiles) -> None:
    assert open_files(host.roots.proc, 51) == ()
    assert environment(host.roots.proc, 51) == b""
