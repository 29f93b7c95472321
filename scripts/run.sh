#!/usr/bin/env bash
# Set everything up and run the quick suite on the built-in verbalizers. Arguments go to `nlabench run`:
#   bash scripts/run.sh --verbalizer my_module:my_function --out runs/mine
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec nlabench run "$@"
