#!/usr/bin/env bash
# experiment.sh PLAN.yaml DATASET: run many jobs as one, show the live table, print what the figures say together.
source "$(dirname "$0")/common.sh"
experiment=$(sed "s|DATASET|$2|" "$1" |
  api /v1/experiments --header "Content-Type: application/yaml" --data-binary @- | field id)
echo "  $experiment"
state=running
while [ "$state" = running ] || [ "$state" = waiting ] || [ "$state" = stopping ]; do
  sleep 0.5
  state=$(api "/v1/experiments/$experiment" | field state)
done
api "/v1/experiments/$experiment/results" | "$PYTHON" "$(dirname "$0")/table.py"
[ "$state" = succeeded ]
