"""Write grafana/dashboards/*.json from grafana/src/; --check compares."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "grafana" / "dashboards"


def main() -> int:
    """Return 0 if the files are (now) as they should be, 1 if --check finds a difference."""
    sys.path.insert(0, str(ROOT))  # grafana/ is no installed package
    from grafana.src.boards import texts

    wanted = {TARGET / name: text for name, text in texts().items()}
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    extra = sorted(set(TARGET.glob("*.json")) - set(wanted))
    if "--check" in sys.argv[1:]:
        for path in (*stale, *extra):
            print(f"{path.relative_to(ROOT)} is not what `make generate` writes", file=sys.stderr)
        return 1 if stale or extra else 0
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
