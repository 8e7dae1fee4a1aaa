#!/usr/bin/env bash
# Prints the path of the first Python of 3.11 to 3.13 that can make virtual environments.
set -u
# The interpreter below an active virtual environment, so that .venv can be made anew from inside itself.
probe='import sys, venv, ensurepip
print(sys._base_executable)
sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
for name in "${INTERPRETER:-python3}" python3.13 python3.12 python3.11; do
  # A name on the PATH may be a launcher of a version that is not selected, so each one is tried.
  if path=$("$name" -c "$probe" 2>/dev/null); then
    echo "$path"
    exit 0
  fi
done
found=$("${INTERPRETER:-python3}" --version 2>&1) || found="none"
echo "polarjax needs Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip; found: $found." >&2
echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: make INTERPRETER=/path/to/python3.12 .." >&2
exit 1
