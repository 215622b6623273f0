"""Write config/migscaler.schema.json and the tables of docs/configuration.md; --check compares."""

import sys
from pathlib import Path

from migscaler.app.config.reference import reference_page, schema_text

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
SCHEMA = ROOT / "config" / "migscaler.schema.json"


def main() -> int:
    """Return 0 if both files are (now) as they should be, 1 if --check finds a difference."""
    wanted = {SCHEMA: schema_text(), PAGE: reference_page(PAGE.read_text("utf-8"))}
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what `make generate` writes", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
