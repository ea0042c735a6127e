#!/bin/sh
# Everything that can be judged without running the program. All of it runs even when one part fails: who mends a style
# fault wants to hear of the type error in the same minute. Ends with the list of what failed.
bin=.venv/bin
failed=""
check() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name,"
}
python_files="chatpro scripts tests"
for more in app.py pages bench; do
    [ -e "$more" ] && python_files="$python_files $more"
done
check style $bin/ruff check --quiet $python_files
check layout $bin/ruff format --check --quiet $python_files
check types $bin/mypy
check imports $bin/lint-imports --no-logo --no-cache
check secrets $bin/python scripts/secret_scan.py
check vulnerabilities $bin/python scripts/audit.py
if [ -n "$failed" ]; then
    echo "Failed:${failed%,}." >&2
    exit 1
fi
echo "All checks passed."
