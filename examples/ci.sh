#!/usr/bin/env bash
# ci.sh SPEC.yaml DATASET METRIC>=VALUE [ALIAS]: train, hold the model to a bound on the test part, publish it. For a pipeline.
# TRAINKIT_URL and TRAINKIT_KEY say where the service is. Exit codes are those of trainkit: 1 when the bound is missed.
set -euo pipefail
spec=$1 dataset=$2 bound=$3 alias=${4:-production}

job=$(sed "s|DATASET|$dataset|" "$spec" | trainkit jobs submit - --quiet)
echo "job $job"
trainkit jobs watch "$job"
model=$(trainkit jobs show "$job" --json | "${PYTHON:-python3}" -c 'import json, sys; print(json.load(sys.stdin)["result"]["model"])')
trainkit models evaluate "$model" --dataset "$dataset" --part test --require "$bound"
trainkit models alias "$model" "$alias"
