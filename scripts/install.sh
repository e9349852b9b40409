#!/bin/sh
# Create .venv and install Primer into it, editable, with the versions of a constraints file.
# Run by the Makefile; safe to run again. Environment: PYTHON, and whatever pip and uv honour.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
UV_VERSION=0.13.9

fail() { printf '%s\n' "install: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON here. Install Python 3.11 or 3.12 (Debian: apt install python3 python3-venv)."
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' ||
    fail "$PYTHON is $("$PYTHON" --version); Primer needs Python 3.11 or 3.12. Choose one with: make PYTHON=python3.11"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "$PYTHON cannot make virtual environments. Debian: apt install python3-venv"

printf 'Installing into .venv (about 1.8 GB; the first time takes a minute or more) ...\n'
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
    fail "pip could not install uv; see the message above (is the package index reachable?)."

# uv does not read pip's settings: hand it the folder of local wheels, if this machine has one.
if [ -z "${UV_FIND_LINKS:-}" ]; then
    UV_FIND_LINKS=$(.venv/bin/python -m pip config get global.find-links 2>/dev/null || true)
    [ -z "$UV_FIND_LINKS" ] || export UV_FIND_LINKS
fi

constraints=constraints.txt
extras=dev
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    constraints=constraints-gpu.txt
    extras=dev,vllm
elif ! ls ${UV_FIND_LINKS:-/nonexistent}/torch-*cpu*.whl >/dev/null 2>&1; then
    # No GPU: PyTorch's CPU build (200 MB), not the default one with its gigabytes of CUDA.
    export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-cpu}"
fi

install() { VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet "$@" || fail "the installation failed; see the message above. Running make again continues it."; }
# DeepSpeed is used from Python alone: without this its installation would compile for CUDA.
export DS_BUILD_OPS=0
install --constraint "$constraints" --editable ".[$extras]"
install --no-deps --requirement requirements-bundled.txt
touch .venv/installed
