"""Command lines of other people's processes: nothing reads them, so nothing can show them.

They carry tokens and names of projects. The proof is in two parts: no file of the product opens a
`cmdline`, and a process whose arguments hold a secret leaves no trace of it anywhere.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import migscaler
from migscaler.hardware.host import ProcHost
from migscaler.metrics.exposition import Renderer
from migscaler.schedulers.traces import read_host
from tests.unit.app.nodes import ADA, RECOMMEND, ROOT, node_at_work

SECRET = "hunter2-of-project-x"


def test_no_file_of_the_product_names_a_command_line() -> None:
    package = Path(migscaler.__file__).parent
    found = [
        f"{file.relative_to(package)}:{node.lineno}"
        for file in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and "cmdline" in node.value
    ]

    assert found == []


def test_arguments_and_environment_of_a_real_process_are_not_in_what_is_read_of_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", SECRET],
        stdin=subprocess.PIPE,
        env={"TOKEN": SECRET, "CUDA_VISIBLE_DEVICES": "MIG-11111111-1111-5111-8111-111111111111"},
    ) as process:
        while True:  # for a moment around exec a process has no environment to be read
            assert process.poll() is None
            table = read_host(Path("/proc"), os.getppid() + 10**7, with_traces=True)
            traces = [one for one in table.traces if one.pid == process.pid]
            if traces:
                break
        (trace,) = traces
        seen = repr((table, ProcHost().process(process.pid)))
        process.communicate(b"")

    assert trace.mig_uuids == ("MIG-11111111-1111-5111-8111-111111111111",)
    assert SECRET not in seen


def test_arguments_of_a_holder_are_in_no_metric_answer_or_explanation(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=RECOMMEND) as here:
        snapshot = here.runtime.loop.sample()
        assert snapshot is not None
        uuid = (snapshot.gpus[0].instances or ())[0].reading.instance.mig_uuid
        words = (f"CUDA_VISIBLE_DEVICES={uuid}", f"TOKEN={SECRET}")
        place = here.host.process(50, "python3", environment=words)
        (place / "cmdline").write_text(f"python3\0train.py\0--token={SECRET}\0")
        here.watch(5)
        renderer = Renderer()
        renderer.publish(here.runtime.loop.status())
        shown = [renderer.render("text/plain").body.decode()]
        for actor in (ROOT, ADA):
            shown += [str(here.ask_as(actor, name)) for name in ("status", "explain", "snapshot")]

    assert "process 50 (python3" in "".join(shown)
    assert SECRET not in "".join(shown)
