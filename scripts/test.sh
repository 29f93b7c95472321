#!/usr/bin/env bash
# Set everything up and run every check that needs no GPU. Arguments go to pytest (bash scripts/test.sh -m "not slow").
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ruff check .
ruff format --check .
mypy
lint-imports
# A file of tests is one worker's, so that what its tests share is made once. Each worker computes with one thread.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
