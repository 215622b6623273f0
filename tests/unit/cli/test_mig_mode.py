"""`mig-mode` asks, goes one GPU at a time, and stops at the first that can't be switched."""

import json

from migscaler.errors import CommandRefused
from tests.unit.cli.conftest import Json, Terminal


def result(gpu: int, *, active: bool, pending_on: str | None = None) -> Json:
    return {
        "gpu": gpu,
        "active": active,
        "pending_on": pending_on,
        "clients": ["DCGM (nvidia-dcgm.service)"],
        "message": "MIG is on" if active else "MIG on is pending until the GPU is reset",
    }


def switching(arguments: Json) -> Json:
    gpus = arguments["gpus"]
    assert isinstance(gpus, list)
    return {"results": [result(gpu, active=True) for gpu in gpus]}


def foreseeing(arguments: Json) -> Json:
    """Answer a dry run as the daemon does: what is not yet as asked."""
    if arguments["dry_run"]:
        gpus = arguments["gpus"]
        assert isinstance(gpus, list)
        return {"results": [result(gpu, active=False) for gpu in gpus]}
    return switching(arguments)


def test_mig_mode_names_clients_and_asks_before_it_switches(terminal: Terminal) -> None:
    terminal.replies(mig_mode=foreseeing)

    refused = terminal.run("mig-mode", "on", "--gpu", "0,1", stdin="n\n")

    assert refused.exit_code == 1
    assert "stop first: DCGM (nvidia-dcgm.service)" in refused.stderr
    assert "Switch MIG mode on for GPU 0, 1?" in refused.stderr
    assert refused.stderr.endswith("migscaler: nothing was changed\n")
    assert terminal.node.asked == [("mig_mode", {"gpus": [0, 1], "enabled": True, "dry_run": True})]


def test_mig_mode_switches_one_gpu_at_a_time(terminal: Terminal) -> None:
    terminal.replies(mig_mode=switching)

    done = terminal.run("mig-mode", "on", "--gpu", "0,1", "--layout", "7g", "--yes")

    assert done.exit_code == 0
    assert terminal.node.asked == [
        ("mig_mode", {"gpus": [0], "enabled": True, "dry_run": False, "layout": "7g"}),
        ("mig_mode", {"gpus": [1], "enabled": True, "dry_run": False, "layout": "7g"}),
    ]


def test_mig_mode_goes_on_after_one_that_waits_for_its_reset(terminal: Terminal) -> None:
    """A node of 8 A100 took 8 calls, and the GPUs after the first were not mentioned."""

    def pending(arguments: Json) -> Json:
        gpus = arguments["gpus"]
        assert isinstance(gpus, list)
        return {"results": [result(gpu, active=False, pending_on="reset") for gpu in gpus]}

    terminal.replies(mig_mode=pending)

    done = terminal.run("mig-mode", "on", "--gpu", "0,1", "--yes", "--output", "json")

    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "results": [result(gpu, active=False, pending_on="reset") for gpu in (0, 1)],
        "not_tried": [],
    }


def test_mig_mode_refused_on_a_busy_gpu_tells_what_was_done_before(terminal: Terminal) -> None:
    def second_is_busy(arguments: Json) -> Json:
        if arguments["gpus"] == [1]:
            raise CommandRefused("GPU 1 is in use by python3 (pid 7); stop it first")
        return switching(arguments)

    terminal.replies(mig_mode=second_is_busy)

    done = terminal.run("mig-mode", "on", "--gpu", "0,1,2,3", "--yes")

    assert done.exit_code == 1
    assert "GPU 0: MIG is on" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "GPU 2: not tried, since one before it is not as asked",
        "GPU 3: not tried, since one before it is not as asked",
    ]
    assert "GPU 1 is in use by python3 (pid 7); stop it first" in done.stderr


def test_mig_mode_without_anybody_to_answer_names_yes(terminal: Terminal) -> None:
    terminal.replies(mig_mode=foreseeing)

    refused = terminal.run("mig-mode", "on", "--gpu", "0", stdin="")

    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        "migscaler: nobody answered, so nothing was changed; --yes does not ask"
    )
    assert len(terminal.node.asked) == 1


def test_mig_mode_that_is_there_already_asks_nobody_and_is_recorded(terminal: Terminal) -> None:
    """The wish for the next boot is written down even where there is nothing to switch."""
    terminal.replies(mig_mode=switching)

    done = terminal.run("mig-mode", "on", "--gpu", "0", stdin="")

    assert done.exit_code == 0
    assert [arguments["dry_run"] for _, arguments in terminal.node.asked] == [True, False]
    assert terminal.run("mig-mode", "on", "--gpu", "0", "--dry-run").exit_code == 0


def test_mig_mode_dry_run_asks_nothing_and_exits_3(terminal: Terminal) -> None:
    terminal.replies(mig_mode=foreseeing)

    assert terminal.run("mig-mode", "off", "--gpu", "0", "--dry-run").exit_code == 3


def test_mig_mode_layout_goes_with_on(terminal: Terminal) -> None:
    assert terminal.run("mig-mode", "off", "--gpu", "0", "--layout", "7g").exit_code == 2


def test_mig_mode_that_fails_without_an_error_names_those_not_tried(terminal: Terminal) -> None:
    terminal.replies(mig_mode={"results": [result(0, active=False)]})

    done = terminal.run("mig-mode", "on", "--gpu", "0,1", "--yes", "--output", "json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["not_tried"] == [1]


def test_mig_mode_whose_layout_was_not_made_fails_and_leaves_the_next_gpu(
    terminal: Terminal,
) -> None:
    """It ended with 0, as if the GPU had its instances."""
    words = "MIG is on, but its layout could not be made: the driver refused"

    def unmade(_arguments: Json) -> Json:
        return {"results": [{**result(0, active=True), "layout_made": False, "message": words}]}

    terminal.replies(mig_mode=unmade)

    done = terminal.run("mig-mode", "on", "--gpu", "0,1", "--yes")

    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"GPU 0: {words}",
        "  stop first: DCGM (nvidia-dcgm.service)",
        "GPU 1: not tried, since one before it is not as asked",
    ]
    assert len(terminal.node.asked) == 1


def test_mig_mode_that_is_on_without_the_layout_asks_nobody_and_fails(terminal: Terminal) -> None:
    terminal.replies(mig_mode={"results": [{**result(0, active=True), "layout_made": False}]})

    assert terminal.run("mig-mode", "on", "--gpu", "0", stdin="").exit_code == 1
    assert terminal.run("mig-mode", "on", "--gpu", "0", "--dry-run").exit_code == 3
