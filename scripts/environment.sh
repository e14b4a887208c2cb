# Sourced by the other scripts: makes .venv beside the checkout's files and installs tritkit into it, once.
# A second call does nothing unless what the installation depends on has changed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${TRITKIT_PYTHON:-python3}
venv=${TRITKIT_VENV:-$root/.venv}
bin=$venv/bin

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

install_tritkit() {  # $1: extras, e.g. "train,onnx"
  local extras=$1 stamp=$venv/.tritkit-$1 key
  key=$(cat pyproject.toml constraints.txt CMakeLists.txt $(git ls-files csrc 2>/dev/null || find csrc -type f) | cksum; echo "$root")
  if [ -x "$bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then return; fi
  command -v "$python" >/dev/null || { say "python3 is not installed; install Python 3.11 or later"; exit 2; }
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "tritkit needs Python 3.11 or later, $python is $("$python" -V)"; exit 2; }
  [ -x "$bin/python" ] || { say "Making an environment in $venv"; "$python" -m venv "$venv"; }
  say "Installing tritkit and what it needs (a few minutes the first time)"
  # torch first and alone: resolved together with its dependents, pip may pick a build with CUDA
  "$bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt torch scikit-build-core ninja cmake
  "$bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[$extras]"
  echo "$key" > "$stamp"
}
