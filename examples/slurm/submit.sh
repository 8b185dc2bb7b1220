#!/bin/bash
# submit.sh BIDS_DIR OUTPUT_DIR IMAGE [LABELS]: one array task per participant, then the group level if all went well.
# LABELS is a file with one participant per line; without it, every participant of BIDS_DIR is submitted.
# Prints the two job numbers: the array's and the group level's.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
BIDS_DIR=$(realpath "$1")
OUTPUT_DIR=$(realpath -m "$2")
IMAGE=$(realpath "$3")
at_a_time=${AT_A_TIME:-50}

logs=$OUTPUT_DIR/logs/slurm
mkdir -p "$logs"
LABELS=$(mktemp "$logs/labels-XXXXXX")
if [ $# -gt 3 ]; then cat "$4"; else (cd "$BIDS_DIR" && ls -d sub-*/) | tr -d /; fi > "$LABELS"
number=$(wc -l < "$LABELS")
[ "$number" -gt 0 ] || { echo "submit.sh: no participant to submit" >&2; exit 66; }
while read -r label; do rm -f "$logs/$label.exit"; done < "$LABELS"

export BIDS_DIR OUTPUT_DIR IMAGE LABELS
array=$(sbatch --parsable --array="1-$number%$at_a_time" --output="$logs/%x-%A_%a.log" "$here/participants.sbatch")
group=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes \
  --output="$logs/%x-%j.log" "$here/group.sbatch")
echo "$array $group"
