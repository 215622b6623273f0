#!/usr/bin/env bash
# Write the requirement locks anew from pyproject.toml. Indexes come from pip's own configuration and
# are kept out of the files. `lock.sh --upgrade` moves everything to its newest allowed version.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x .venv-lock/bin/pip-compile ]; then
    python3 -m venv .venv-lock
    .venv-lock/bin/python -m pip install -qq --require-hashes -r .ci/pip-tools.lock
fi

compile() { # OUTPUT ARGUMENTS...
    local output=$1
    shift
    .venv-lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --output-file "$output" "$@"
}

compile requirements.lock pyproject.toml "$@"
# The constraint keeps the tested versions those that are shipped.
compile requirements-dev.lock --extra dev --constraint requirements.lock pyproject.toml "$@"
compile requirements-bench.lock --extra bench --constraint requirements.lock pyproject.toml "$@"
compile requirements-audit.lock --extra audit --constraint requirements.lock pyproject.toml "$@"
