#!/usr/bin/env bash
# submit.sh SPEC.yaml DATASET: put the dataset's name (or id) into the spec, submit it, print the job's id.
source "$(dirname "$0")/common.sh"
sed "s|DATASET|$2|" "$1" | api /v1/jobs --header "Content-Type: application/yaml" --data-binary @- | field id
