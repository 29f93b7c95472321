#!/usr/bin/env bash
# Set everything up and run every check that needs no GPU. Arguments go to pytest (bash scripts/test.sh -m "not slow").
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ruff check .
ruff format --check .
mypy
lint-imports
exec python -m pytest "$@"
