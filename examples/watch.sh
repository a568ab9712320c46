#!/usr/bin/env bash
# watch.sh JOB_ID: follow a job live (server-sent events) until it ends; exit 0 only when it ended well.
source "$(dirname "$0")/common.sh"
curl --silent --no-buffer --header "Authorization: Bearer $TRAINKIT_KEY" "$TRAINKIT_URL/v1/jobs/$1/stream" |
  "$PYTHON" "$(dirname "$0")/live.py"
state=$(api "/v1/jobs/$1" | field state)
[ "$state" = succeeded ] || [ "$state" = stopped ] || { api "/v1/jobs/$1" | field error >&2; exit 1; }
