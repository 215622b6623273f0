"""Ask the advisory service about every dependency of the locks; fine only if it answered about all.

pip-audit itself ends with 0 where the service does not know a package (a mirror without advisories
answers so), hence this look at its report. Exit codes: 0 nothing known, 1 advisories, 2 not all
could be asked about.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP_AUDIT = str(ROOT / ".venv-audit" / "bin" / "pip-audit")
# What is installed with the product, and what develops, measures and audits it.
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")
LOCKS += ("requirements-audit.lock",)
SERVICES = ("pypi", "osv")
SECONDS = 300


def main() -> int:
    """Audit every lock; return the exit code."""
    return max(audit(lock) for lock in LOCKS)


def audit(lock: str) -> int:
    """Audit one lock, by the first service that knows all of its packages; return the exit code."""
    problems = []
    for service in SERVICES:
        code, said = ask(lock, service)
        print(f"audit: {lock}, by {service}: {said}", flush=True)
        if code != 2:
            return code
        problems.append(service)
    print(f"audit: {lock}: NOT AUDITED; neither {' nor '.join(problems)} could tell", flush=True)
    return 2


def ask(lock: str, service: str) -> tuple[int, str]:
    """Return the exit code for one lock and service, and what there is to say."""
    command = [PIP_AUDIT, "-r", lock, "--require-hashes", "--disable-pip", "--strict"]
    command += ["--progress-spinner", "off", "--timeout", "15", "-s", service, "-f", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return 2, f"no answer within {SECONDS} s"
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no report"])[-1]
        return 2, f"failed with exit code {done.returncode}: {last}"
    return judge(found)


def judge(found: list[dict[str, object]]) -> tuple[int, str]:
    """Return the exit code and the words for a report's dependencies."""
    skipped = [one for one in found if "skip_reason" in one]
    known = [one for one in found if one.get("vulns")]
    if known:
        return 1, "; ".join(f"{one['name']} {one['version']}: {_ids(one)}" for one in known)
    if skipped or not found:
        why = skipped[0]["skip_reason"] if skipped else "an empty report"
        return 2, f"{len(skipped)} of {len(found)} packages could not be asked about: {why}"
    return 0, f"{len(found)} packages, no known advisory"


def _ids(dependency: dict[str, object]) -> str:
    vulns = dependency["vulns"]
    assert isinstance(vulns, list)
    return ", ".join(f"{one['id']} (fixed in {one['fix_versions'] or 'none'})" for one in vulns)


if __name__ == "__main__":
    sys.exit(main())
