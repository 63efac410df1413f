#!/usr/bin/env bash
# Makes, or finds again, the Python environment of the tests, and prints the path of its python: the only line on
# stdout. Progress and errors go to stderr.
#
#   python=$(tests/python/venv.sh) && "$python" -m pytest tests/python
#
# REMUDA_VENV     its folder (default: under the user's cache folder, named after the lock file's digest)
# REMUDA_PYTHON   the Python to make it with (default: the first of python3.11 … python3.14, python3 that will do)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=$here/requirements.txt
say() { printf '%s\n' "$*" >&2; }

digest=$( (sha256sum "$lock" 2>/dev/null || shasum -a 256 "$lock") | cut -c1-64)
venv=${REMUDA_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/remuda/venv-${digest:0:12}}
# Written last, with what the environment was made from: without it, or with another lock's digest, it is made anew.
marker=$venv/.remuda-complete

ready() { [ -x "$venv/bin/python" ] && [ "$(cat "$marker" 2>/dev/null)" = "$digest" ]; }

new_enough() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${REMUDA_PYTHON:-}" ]; then
    new_enough "$REMUDA_PYTHON" && { printf '%s\n' "$REMUDA_PYTHON"; return; }
    say "error: \`$REMUDA_PYTHON\` (REMUDA_PYTHON) is not a Python 3.11 to 3.14"
    return 1
  fi
  for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
    new_enough "$candidate" && { printf '%s\n' "$candidate"; return; }
  done
  say "error: no Python 3.11 to 3.14 on PATH"
  say ""
  say "hint: install python3.11 with its venv module, or name one: REMUDA_PYTHON=/path/to/python3.11 $0"
  return 1
}

build() {
  local python
  python=$(find_python)
  say "making the Python environment $venv with $python …"
  # A folder that we did not make is not ours to empty.
  if [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
    say "error: \`$venv\` is not empty and not a Python environment"
    return 1
  fi
  rm -f "$marker"
  "$python" -m venv --clear "$venv" >&2 || {
    say "error: \`$python -m venv\` failed"
    say ""
    say "hint: on Debian and Ubuntu the module is a package of its own: apt-get install python3-venv"
    return 1
  }
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --require-hashes \
    -r "$lock" >&2
  printf '%s\n' "$digest" >"$marker"
  say "made $venv"
}

if ! ready; then
  mkdir -p "$(dirname "$venv")"
  # Two test runs that start at once must not build into the same folder.
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$venv.lock"
    flock 9
  fi
  ready || build
fi
printf '%s\n' "$venv/bin/python"
