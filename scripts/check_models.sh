#!/usr/bin/env bash
# Measures the embedded models as they are committed, and counts which are good enough.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0
for script in models/*/train.py; do
    echo "$script --check"
    if python3 "$script" --check; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
