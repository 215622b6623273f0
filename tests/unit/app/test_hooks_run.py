"""Hooks after a change: told by environment, bounded in time, and never an exception."""

import os
import signal
from datetime import timedelta
from pathlib import Path

from migscaler.app.config.settings import HookSettings
from migscaler.app.hooks import run_hooks
from tests.builders import A100, layout, uuid

HALVES = layout(A100, "3g@0 3g@4")


def run(*commands: tuple[str, ...], timeout: float = 10.0) -> str | None:
    settings = HookSettings(after_change=commands, timeout=timedelta(seconds=timeout))
    return run_hooks(settings, uuid(), HALVES)


def test_hook_is_told_gpu_and_layout_in_its_environment(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f'echo "$MIGSCALER_GPU_UUID $MIGSCALER_LAYOUT" > "{told}"; test -n "$PATH"'

    assert run(("sh", "-c", script)) is None
    assert told.read_text() == f"{uuid()} 3g.20gb@0 3g.20gb@4\n"


def test_words_are_arguments_and_no_shell_reads_them(tmp_path: Path) -> None:
    target = tmp_path / "a; touch b"

    assert run(("touch", str(target))) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a; touch b"]


def test_hook_that_fails_is_named_with_its_exit_code() -> None:
    assert run(("sh", "-c", "exit 3")) == "sh: exit code 3"


def test_hook_that_does_not_end_is_cut_off_in_time() -> None:
    assert run(("sleep", "60"), timeout=0.05) == "sleep: no end within 0.05 s"


def test_missing_program_is_told_and_the_others_still_run(tmp_path: Path) -> None:
    done = tmp_path / "done"

    problem = run(("/no/such/program",), ("false",), ("touch", str(done)))

    assert problem == "/no/such/program: No such file or directory; false: exit code 1"
    assert done.exists()


def test_hook_reads_nothing_from_our_input() -> None:
    assert run(("cat",)) is None


def test_no_hooks_are_no_problem() -> None:
    assert run() is None


def test_hook_that_leaves_a_process_behind_has_ended(tmp_path: Path) -> None:
    """What it left held its output open, and the change waited for that until the time was up."""
    left = tmp_path / "left"

    assert run(("sh", "-c", f"sleep 60 & echo $! > '{left}'"), timeout=15.0) is None

    os.kill(int(left.read_text()), signal.SIGKILL)


def test_word_that_no_program_can_be_given_is_told() -> None:
    assert run(("echo", "a\0b")) == "echo: embedded null byte"
