"""Runs the configured commands after a GPU changed; lists of words, never a shell."""

import os
import subprocess

from migscaler.app.config.settings import HookSettings
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout


def run_hooks(settings: HookSettings, uuid: GpuUuid, layout: Layout) -> str | None:
    """Run every command in order, each within its time; return what went wrong, None if nothing.

    A failing hook undoes nothing: the GPU has changed, and its consumers can be told again.
    """
    problems = []
    environment = {**os.environ, "MIGSCALER_GPU_UUID": uuid, "MIGSCALER_LAYOUT": str(layout)}
    for command in settings.after_change:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                # A pipe that nobody reads is waited for until the last process that holds it ends.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=settings.timeout.total_seconds(),
                check=False,
            )
            problem = f"exit code {done.returncode}" if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = f"no end within {settings.timeout.total_seconds():g} s"
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError as error:  # a word that no program can be given
            problem = str(error)
        if problem is not None:
            problems.append(f"{command[0]}: {problem}")
    return "; ".join(problems) or None
