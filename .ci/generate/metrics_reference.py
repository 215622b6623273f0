"""Writes docs/metrics.md from the metric table; with --check, says whether it is up to date."""

import sys
from pathlib import Path

from migscaler.metrics.reference import reference

TARGET = Path(__file__).parents[2] / "docs" / "metrics.md"


def main() -> int:
    """Write the file, or compare it."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET} is not what the table says; run make generate")
    return 1


if __name__ == "__main__":
    sys.exit(main())
