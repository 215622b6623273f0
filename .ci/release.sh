#!/usr/bin/env bash
# Build what is released into dist/: wheel, source archive, bill of materials, checksums. Twice, and
# fail if the two differ. Times in the archives are the commit's; only what is committed should be in.
set -euo pipefail
cd "$(dirname "$0")/.."

export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
if [ -n "$(git status --porcelain)" ]; then
    [ "${RELEASE_DIRTY:-}" = yes ] || {
        echo "release: there are changes that are not committed (RELEASE_DIRTY=yes tries it anyway)" >&2
        exit 1
    }
fi
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT

build() { # DIRECTORY
    .venv/bin/python -m hatchling build -d "$1" >&2
    # The locked runtime dependencies with their hashes, and the project as what they belong to.
    .venv-audit/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
        --output-reproducible --short-PURLs --of JSON -o "$1/migscaler.cdx.json"
    .venv/bin/python - "$1" <<'EOF' # the version stands in the code, where the tool does not look
import json, sys
from pathlib import Path
from migscaler import __version__
path = Path(sys.argv[1], "migscaler.cdx.json")
bill = json.loads(path.read_text())
bill["metadata"]["component"]["version"] = __version__
path.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")
EOF
    (cd "$1" && sha256sum -- *.whl *.tar.gz migscaler.cdx.json >SHA256SUMS)
}

rm -rf dist
mkdir dist
build dist
build "$again"
diff -r dist "$again" || { echo "release: two builds differ" >&2; exit 1; }
cat dist/SHA256SUMS
