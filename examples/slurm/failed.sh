#!/bin/bash
# failed.sh BIDS_DIR OUTPUT_DIR: the participants without a success so far, one per line, for submit.sh. A task that
# was killed (time, memory, node) left no exit code: it counts as failed too. Run it when the array has ended.
set -euo pipefail
(cd "$1" && ls -d sub-*/) | tr -d / | while read -r label; do
  status=$(cat "$2/logs/slurm/$label.exit" 2>/dev/null || echo none)
  [ "$status" = 0 ] || echo "$label"
done
