#!/bin/sh
# The tasks of one session: make_tasks.sh [how many] [milliseconds]
seq "${1:-40}" | while read -r _; do printf '{"worker_arguments": ["%s", "1", "0"]}\n' "${2:-100}"; done
