"""Each check of the doctor names what is wrong and the way out."""

import json
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from migscaler.cli.checks import (
    Check,
    Verdict,
    capability_nodes,
    gpu_checks,
    held_by,
    node_checks,
    permission,
    together,
)
from migscaler.cli.doctor import examine
from migscaler.cli.session import Options, Session
from migscaler.errors import CommandRefused
from migscaler.model.gpu import GpuOwner
from migscaler.store.codec import encode
from tests.builders import A100, gpu_state, snapshot
from tests.unit.cli.conftest import FakeNode, Terminal


def verdicts(checks: list[Check]) -> dict[str, Verdict]:
    return {check.subject: check.verdict for check in checks}


def test_healthy_node_is_fine() -> None:
    found = list(node_checks(snapshot(gpu_state(A100, "7g@0"))))

    assert {check.verdict for check in found} == {Verdict.FINE}


def test_each_thing_missing_is_a_problem_with_a_remedy() -> None:
    node = snapshot(
        processes_visible=False, allocations_known=False, foreign_owner="nvidia-mig-manager"
    )

    found = list(node_checks(node))

    assert verdicts(found) == {
        "driver": Verdict.PROBLEM,
        "processes": Verdict.PROBLEM,
        "layout owner": Verdict.PROBLEM,
        "allocations": Verdict.PROBLEM,
    }
    assert all(check.remedy for check in found)


def test_owner_and_way_out_are_told() -> None:
    node = snapshot(gpu_state(A100, "7g@0"), foreign_owner="mig-parted (process 7)")
    node = replace(node, foreign_owner_remedy="systemctl disable --now x.service")

    (check,) = (one for one in node_checks(node) if one.subject == "layout owner")

    assert check.found == (
        "mig-parted (process 7) shapes these GPUs too; nothing is changed beside it"
    )
    assert check.remedy.endswith("systemctl disable --now x.service")


def test_owners_out_of_sight_are_not_nobody() -> None:
    node = replace(snapshot(gpu_state(A100, "7g@0")), foreign_owner_unknown="no lsf.conf")
    node = replace(node, foreign_owner_remedy="let it read lsf.conf")

    (check,) = (one for one in node_checks(node) if one.subject == "layout owner")

    assert (check.verdict, check.found) == (Verdict.PROBLEM, "not known: no lsf.conf")
    assert check.remedy.startswith("let it read lsf.conf; nothing is changed until")


@pytest.mark.parametrize(
    ("owner", "words", "way_out"),
    [
        (GpuOwner.HYPERVISOR, "a vGPU", "on the hypervisor's host"),
        (GpuOwner.CONFIDENTIAL_COMPUTING, "confidential computing", "--set-cc-mode=off"),
    ],
)
def test_gpu_of_somebody_else_is_a_problem_with_the_way_out(
    owner: GpuOwner, words: str, way_out: str
) -> None:
    state = gpu_state(A100, "7g@0")
    state = replace(state, reading=replace(state.reading, foreign_owner=owner))

    first, _ = gpu_checks(state)

    assert first.verdict is Verdict.PROBLEM
    assert words in first.found
    assert way_out in first.remedy


def test_orphan_is_a_warning_that_names_the_fix() -> None:
    state = gpu_state(A100, "3g@0 3g@4")
    whole, other = state.instances or ()
    bare = replace(other.reading.instance, compute_instances=())
    orphan = replace(other, reading=replace(other.reading, instance=bare))

    found = list(gpu_checks(replace(state, instances=(whole, orphan))))

    assert [
        (c.verdict, c.remedy.split(": ")[-1]) for c in found if "nothing can run" in c.found
    ] == [(Verdict.WARNING, "migscaler doctor --fix")]


@pytest.mark.parametrize(
    ("gpm", "words"),
    [(False, "no activity per instance on this GPU without DCGM"), (True, "activity (GPM)")],
)
def test_gpu_says_what_idleness_rests_on(gpm: bool, words: str) -> None:
    (check,) = gpu_checks(gpu_state(A100, "7g@0", gpm=gpm))

    assert words in check.found


def test_instances_that_dcgm_does_not_show_are_a_warning_with_a_remedy() -> None:
    state = gpu_state(A100, "3g@0 3g@4")
    first, second = state.reading.instances or ()
    blind = replace(second, activity_gap="DCGM does not see it")
    reading = replace(state.reading, dcgm=True, instances=(first, blind))

    rests, unseen = gpu_checks(replace(state, reading=reading))

    assert rests.found.endswith("idleness rests on processes, allocations, memory, activity (DCGM)")
    assert unseen.verdict is Verdict.WARNING
    assert unseen.found == "activity of 1 of 2 instances unknown: DCGM does not see it"
    assert "hooks.after_change" in unseen.remedy


def test_pending_mode_names_the_reset() -> None:
    (check,) = gpu_checks(gpu_state(A100, "-", index=3, mig=False, pending=True))

    assert check.verdict is Verdict.WARNING
    assert check.found == "MIG mode on is pending"
    assert check.remedy.endswith("nvidia-smi -i 3 --gpu-reset")


def test_mode_off_names_the_command() -> None:
    (check,) = gpu_checks(gpu_state(A100, "-", mig=False))

    assert check.remedy == "migscaler mig-mode on --gpu 0"


def test_excluded_gpu_is_a_problem() -> None:
    (check,) = gpu_checks(gpu_state(A100, "7g@0", excluded="GPU is lost"))

    assert check.verdict is Verdict.PROBLEM


def test_gpus_that_say_the_same_are_told_together() -> None:
    found = together(c for i in (0, 1, 2) for c in gpu_checks(gpu_state(A100, "7g@0", index=i)))

    assert [check.subject for check in found] == ["GPU 0, 1, 2"]


def test_permission_is_root_or_the_capability(tmp_path: Path) -> None:
    proc, dev = tmp_path / "proc", tmp_path / "dev"
    listing = proc / "driver/nvidia/capabilities/mig/config"
    listing.parent.mkdir(parents=True)
    (dev / "nvidia-caps").mkdir(parents=True)

    assert permission(0, proc, dev).verdict is Verdict.FINE
    assert permission(1000, proc, dev).verdict is Verdict.PROBLEM
    listing.write_text("DeviceFileMinor: 1\nDeviceFileMode: 256\n")
    refused = permission(1000, proc, dev)
    assert refused.verdict is Verdict.PROBLEM
    assert f"chown root:GROUP {dev}/nvidia-caps/nvidia-cap1" in refused.remedy
    (dev / "nvidia-caps/nvidia-cap1").touch()
    assert permission(1000, proc, dev).verdict is Verdict.FINE


def test_account_without_rights_is_fine_where_a_privileged_worker_serves(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    assert permission(1000, tmp_path, tmp_path, path).verdict is Verdict.PROBLEM

    with socket.socket(socket.AF_UNIX) as worker:
        worker.bind(str(path))
        found = permission(1000, tmp_path, tmp_path, path)

    assert (found.verdict, found.found) == (
        Verdict.FINE,
        f"those of the NVML worker at {path}",
    )


def test_capability_nodes_are_needed_where_mig_is_on(tmp_path: Path) -> None:
    on, off = snapshot(gpu_state(A100, "7g@0")), snapshot(gpu_state(A100, "-", mig=False))

    assert capability_nodes(tmp_path, on).verdict is Verdict.WARNING
    assert capability_nodes(tmp_path, off).verdict is Verdict.FINE
    (tmp_path / "nvidia-caps").mkdir()
    (tmp_path / "nvidia-caps/nvidia-cap1").touch()
    assert capability_nodes(tmp_path, on).verdict is Verdict.FINE


def test_services_that_hold_handles_are_named() -> None:
    assert held_by(()).verdict is Verdict.FINE
    assert "DCGM (nvidia-dcgm.service)" in held_by(("DCGM (nvidia-dcgm.service)",)).found


def empty_roots(tmp_path: Path) -> tuple[str, ...]:
    for name in ("proc", "dev"):
        (tmp_path / name).mkdir()
    return "--proc", str(tmp_path / "proc"), "--dev", str(tmp_path / "dev")


def test_doctor_without_driver_says_how_to_get_one(terminal: Terminal, tmp_path: Path) -> None:
    terminal.replies(
        snapshot=CommandRefused("the GPUs can't be read: no driver; see `migscaler doctor`")
    )

    result = terminal.run("doctor", *empty_roots(tmp_path), "--output", "json")

    first = json.loads(result.stdout)["checks"][0]
    assert result.exit_code == 1
    assert (first["subject"], first["found"]) == ("driver", "the GPUs can't be read: no driver")
    assert "libnvidia-ml.so.1" in first["remedy"]


def test_doctor_warns_of_a_silent_source_and_names_dcgm(terminal: Terminal, tmp_path: Path) -> None:
    roots = empty_roots(tmp_path)
    (tmp_path / "proc/77").mkdir()
    (tmp_path / "proc/77/comm").write_text("nv-hostengine\n")
    config = tmp_path / "migscaler.yaml"
    config.write_text('gpus: [{model: "NVIDIA H100*"}]\n')
    terminal.replies(
        snapshot={"snapshot": encode(snapshot(gpu_state(A100, "7g@0")))},
        status={"config": {"path": str(config)}},
        demand={"sources": [{"source": "queue"}]},
        source_test={"problem": "http://127.0.0.1:9090: connection refused"},
    )

    result = terminal.run("doctor", *roots, "--output", "json")

    found = {c["subject"]: c for c in json.loads(result.stdout)["checks"] if c["verdict"] != "fine"}
    assert found["source queue"]["found"] == "http://127.0.0.1:9090: connection refused"
    assert found["source queue"]["remedy"].endswith("migscaler source test queue")
    assert found["handles"]["found"].startswith("DCGM (nvidia-dcgm.service)")
    assert "NVIDIA H100*" in found["configuration"]["found"]


def test_doctor_reads_the_web_configuration_file(terminal: Terminal, tmp_path: Path) -> None:
    roots = empty_roots(tmp_path)
    config, web = tmp_path / "migscaler.yaml", tmp_path / "web.yml"
    config.write_text(f"mode: observe\nweb: {{config_file: {web}}}\n")
    terminal.replies(
        snapshot={"snapshot": encode(snapshot(gpu_state(A100, "7g@0")))},
        status={"config": {"path": str(config)}},
        demand={"sources": []},
    )

    def found() -> tuple[int, list[tuple[str, str, str | None]]]:
        result = terminal.run("doctor", *roots, "--output", "json")
        return result.exit_code, [
            (check["verdict"], check["found"], check["remedy"])
            for check in json.loads(result.stdout)["checks"]
            if check["subject"] == "web configuration"
        ]

    code, ((verdict, what, remedy),) = found()
    assert (code, verdict) == (1, "problem")
    assert what.startswith(f"{web}: ")
    assert remedy

    web.write_text("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n")
    code, checks = found()
    assert (code, {one[0] for one in checks}) == (1, {"problem"})
    assert any("server.crt" in what for _, what, _ in checks)

    web.write_text("basic_auth_users: {}\n")
    _, checks = found()
    assert checks == [("fine", str(web), None)]


ORPHAN = {
    "gpu": 0,
    "gpu_uuid": "GPU-1",
    "instance": "3g.20gb@4",
    "gi_id": 2,
    "steps": ["destroy 3g.20gb@4"],
    "kept": None,
}
KEPT = {**ORPHAN, "instance": "1g.5gb@0", "steps": [], "kept": "held by ada: mine"}


def test_fix_without_yes_only_shows(terminal: Terminal) -> None:
    terminal.replies(orphans={"orphans": [ORPHAN, KEPT]})

    result = terminal.run("doctor", "--fix")

    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "GPU 0 3g.20gb@4 (GI 2): destroy 3g.20gb@4",
        "GPU 0 1g.5gb@0 (GI 2): kept: held by ada: mine",
    ]
    assert [name for name, _ in terminal.node.asked] == ["orphans"]


def test_fix_with_yes_removes_what_nothing_keeps(terminal: Terminal) -> None:
    done = {"outcome": "done", "explanation": "now 3g.20gb@0"}
    terminal.replies(orphans={"orphans": [ORPHAN]}, remove_orphan={"outcomes": [done]})

    result = terminal.run("doctor", "--fix", "--yes")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "GPU 0 3g.20gb@4: now 3g.20gb@0"
    assert terminal.node.asked[1:] == [("remove_orphan", {"gpu": "GPU-1", "instance": "3g.20gb@4"})]


def test_fix_that_leaves_one_fails(terminal: Terminal) -> None:
    """What was kept counted as removed."""
    done = {"outcome": "done", "explanation": "now 3g.20gb@0"}
    terminal.replies(orphans={"orphans": [ORPHAN, KEPT]}, remove_orphan={"outcomes": [done]})

    assert terminal.run("doctor", "--fix", "--yes").exit_code == 1
    assert [name for name, _ in terminal.node.asked] == ["orphans", "remove_orphan"]


def test_fix_that_is_refused_fails_and_says_why(terminal: Terminal) -> None:
    terminal.replies(
        orphans={"orphans": [ORPHAN]}, remove_orphan=CommandRefused("paused by ada: upgrade")
    )

    result = terminal.run("doctor", "--fix", "--yes", "--output", "json")

    assert result.exit_code == 1
    (outcome,) = json.loads(result.stdout)["outcomes"]
    assert (outcome["outcome"], outcome["explanation"]) == ("refused", "paused by ada: upgrade")


def test_nothing_to_fix_is_fine(terminal: Terminal) -> None:
    terminal.replies(orphans={"orphans": []})

    result = terminal.run("doctor", "--fix")

    assert (result.exit_code, result.stdout) == (0, "")


def test_yes_without_fix_is_wrong_usage(terminal: Terminal) -> None:
    assert terminal.run("doctor", "--yes").exit_code == 2


def test_doctor_does_not_call_a_released_driver_fine(terminal: Terminal, tmp_path: Path) -> None:
    why = "the GPUs were last read 20 s ago: the driver is released until `migscaler resume`"
    terminal.replies(
        snapshot={
            "snapshot": encode(snapshot(gpu_state(A100, "7g@0"))),
            "snapshot_problem": why,
        },
        status={},
        demand={"sources": []},
    )

    result = terminal.run("doctor", *empty_roots(tmp_path), "--output", "json")

    first = json.loads(result.stdout)["checks"][0]
    assert result.exit_code == 1
    assert (first["subject"], first["verdict"]) == ("driver", "problem")
    assert first["found"] == f"{why}; what follows is as it was then"


def test_doctor_of_a_stranger_does_not_blame_the_driver(tmp_path: Path) -> None:
    """It was told to install the driver of a node in good health, and to chown its state."""
    refusal = CommandRefused("only root and the daemon's account may do this, not uid 1000")
    asked = FakeNode({"snapshot": refusal})
    session = Session(Options(), lambda _options, _daemon_only: nullcontext(asked))
    for name in ("proc", "dev"):
        (tmp_path / name).mkdir()

    found = list(examine(session, tmp_path / "proc", tmp_path / "dev", 1000))

    first = found[0]
    assert (first.subject, first.verdict, first.found) == (
        "daemon", Verdict.PROBLEM, str(refusal),
    )  # fmt: skip
    assert first.remedy == "run the doctor as root or the daemon's account"
    assert {check.subject for check in found} == {"daemon", "handles", "configuration"}


def test_doctor_that_is_turned_away_for_now_says_so(terminal: Terminal, tmp_path: Path) -> None:
    terminal.replies(snapshot=CommandRefused("too many commands at once; try again"))

    result = terminal.run("doctor", *empty_roots(tmp_path), "--output", "json")

    first = json.loads(result.stdout)["checks"][0]
    assert (first["subject"], first["found"]) == ("daemon", "too many commands at once; try again")


def test_worker_that_this_account_may_not_see_is_none(tmp_path: Path) -> None:
    """The doctor crashed on the worker's directory, which other accounts may not enter."""
    too_long = tmp_path / ("x" * 5000)

    assert permission(1000, tmp_path, tmp_path, too_long).verdict is Verdict.PROBLEM
