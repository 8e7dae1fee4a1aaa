#!/usr/bin/env bash
# Format, lint and types: what `make test`, CI and pre-commit run before anything else.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -d .venv/bin ]; then PATH="$PWD/.venv/bin:$PATH"; fi
ruff format --check .
ruff check .
pyrefly check
