#!/bin/sh
# Runs a script with the first Python 3.11 or newer of this machine: the only thing besides make that a fresh one must have.
# Each candidate is run, not just found: a version manager leaves commands on the path that only print an error.
# Without this, "make run" on an older Python ends in a syntax error of a file that nobody opened.
for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$candidate" "$@"
    fi
done
echo "Python 3.11 or newer was not found. Install it (on Debian and Ubuntu: apt-get install python3 python3-venv), or name one: make run PYTHON=/path/to/python3" >&2
exit 1
