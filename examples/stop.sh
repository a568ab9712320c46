#!/usr/bin/env bash
# stop.sh JOB_ID [best|last]: end training after the current step and keep a usable model.
source "$(dirname "$0")/common.sh"
api "/v1/jobs/$1/stop" --header "Content-Type: application/json" --data "{\"keep\": \"${2:-best}\"}" | field state
