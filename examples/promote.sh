#!/usr/bin/env bash
# promote.sh MODEL ALIAS: let NAME@ALIAS mean this model (an id, name or name:version) from now on; print what it means.
source "$(dirname "$0")/common.sh"
answer=$(api "/v1/models/$1/aliases/$2" --request PUT)
printf '%s@%s is %s:%s\n' "$(field name <<<"$answer")" "$2" "$(field name <<<"$answer")" "$(field version <<<"$answer")"
