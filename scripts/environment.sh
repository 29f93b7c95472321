# Sourced by run.sh and test.sh: the virtual environment, with pinned packages. Idempotent, and quick once it is there.
#
#   NLABENCH_PYTHON   the Python to use (3.11 or newer; default python3)
#   NLABENCH_VENV     the virtual environment (default .venv in the repository)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${NLABENCH_VENV:-$root/.venv}
python=${NLABENCH_PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "nlabench needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Set NLABENCH_PYTHON to one." >&2
    exit 2
fi

# What is installed is decided by these three files: when none has changed, nothing is done.
wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" "$root/scripts/constraints.txt" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.nlabench" 2>/dev/null || true)" != "$wanted" ]; then
    echo "Setting up $venv (a few minutes the first time) …"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # PyPI's torch for Linux brings gigabytes of CUDA libraries. PyTorch's own index has a CPU build of the same version;
    # it is added where it can be reached, and elsewhere pip takes what its configured indexes have.
    extra=()
    if [ -z "${NLABENCH_CUDA:-}" ] && "$venv/bin/python" - <<'PY' 2>/dev/null
import urllib.request
urllib.request.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=5)
PY
    then
        extra=(--extra-index-url https://download.pytorch.org/whl/cpu)
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/scripts/constraints.txt" "${extra[@]}" --editable "$root[dev]"
    # Type checkers find the package, whose root is the repository, under its name.
    mkdir -p "$venv/src" && ln -sfn "$root" "$venv/src/nlabench"
    echo "$wanted" >"$venv/.nlabench"
fi
# Waiting threads sleep: on a machine whose cores are shared, spinning ones slow torch down several times.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
cd "$root"
