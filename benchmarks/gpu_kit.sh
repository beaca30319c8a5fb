#!/usr/bin/env bash
# On a bare machine with Python 3.12, PyTorch and timm: an environment from the wheels beside this
# file, which sees the machine's packages, and the benchmark in it. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")"
test -e .venv/bin/python || python3 -m venv --system-site-packages .venv
.venv/bin/python -m pip install -q --no-index --no-deps wheels/*.whl
exec .venv/bin/python -m benchmarks.gpu "$@"
