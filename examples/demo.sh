#!/usr/bin/env bash
# The whole line on real data: start the service, upload, train, watch, predict, stop. Ends by itself with exit 0.
# Called by `make demo`; with TRAINKIT_URL and TRAINKIT_KEY set it uses a service that already runs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${DEMO_OUTPUT:-$here/../demo-output}
rm -rf "$output" && mkdir -p "$output" && output=$(cd "$output" && pwd)
export PYTHON=${PYTHON:-python}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [ -z "${TRAINKIT_URL:-}" ]; then
  say "Starting trainkit: API, database, broker, one data worker, one training worker"
  export TRAINKIT_HOME=$output/home
  port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export TRAINKIT_URL=http://127.0.0.1:$port
  trainkit up --home "$TRAINKIT_HOME" --port "$port" >"$output/trainkit-up.log" 2>&1 &
  service=$!
  finish() {
    kill -TERM "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
  }
  trap finish EXIT
  for _ in $(seq 300); do
    curl --silent --fail --output /dev/null "$TRAINKIT_URL/readyz" && [ -s "$TRAINKIT_HOME/api-key" ] && break
    kill -0 "$service" 2>/dev/null || { cat "$output/trainkit-up.log"; exit 1; }
    sleep 0.2
  done
  TRAINKIT_KEY=$(cat "$TRAINKIT_HOME/api-key")
  export TRAINKIT_KEY
fi
source "$here/common.sh"

train() { # train SPEC DATASET TITLE: submit, watch, report; leaves $job and $accuracy
  job=$("$here/submit.sh" "$here/specs/$1.yaml" "$2")
  say "$3 ($job)"
  "$here/watch.sh" "$job"
  answer=$(api "/v1/jobs/$job")
  accuracy=$(field result.test.accuracy <<<"$answer")
  api "/v1/jobs/$job/plots/curves.png" --output "$output/$1-curves.png"
  verdict=$(api "/v1/jobs/$job/diagnosis" | "$PYTHON" -c \
    'import json, sys; first = json.load(sys.stdin)["verdicts"][0]; print(first["code"] + ": " + first["message"])')
  printf '  %s after %s epochs (best: %s); test accuracy %.4f; curves: %s\n' "$(field stop_reason <<<"$answer")" \
    "$(field result.stopped_epoch <<<"$answer")" "$(field result.best_epoch <<<"$answer")" "$accuracy" "${output#"$PWD/"}/$1-curves.png"
  printf '  diagnosis: %s\n' "$verdict"
}

say "Real data: handwritten digits as PNG class folders, and a table of cell measurements"
"$PYTHON" "$here/make_data.py" "$output"
"$here/upload.sh" "$output/digits.zip" digits
"$here/upload.sh" "$output/cancer.csv" cancer diagnosis

train digits-mlp digits "An MLP on the digits"
mlp_accuracy=$accuracy
train digits-cnn digits "A CNN on the digits"
cnn_accuracy=$accuracy cnn_job=$job
api "/v1/jobs/$cnn_job/plots/confusion.png" --output "$output/digits-cnn-confusion.png"
train cancer-table cancer "An MLP on the table"
table_accuracy=$accuracy

say "Ten jobs as one: is the network better than a linear model? Five folds of the table"
"$here/experiment.sh" "$here/experiments/cancer-folds.yaml" cancer

say "One prediction over HTTP, for a digit that was never uploaded (a seven)"
"$here/promote.sh" digits-cnn production
"$here/predict.sh" digits-cnn@production "$output/held-out-7.png" | tee "$output/prediction.json"
label=$(field label < <("$PYTHON" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["predictions"][0]))' <"$output/prediction.json"))
printf '\n'
"$here/predict.sh" cancer-table "$output/one-sample.csv"

say "Done"
printf '  test accuracy: MLP %.4f, CNN %.4f on digits; MLP %.4f on the table; the held-out seven was read as %s\n' \
  "$mlp_accuracy" "$cnn_accuracy" "$table_accuracy" "$label"
cat <<TEXT

How to go on
  make up                                       start the service and keep it (Ctrl-C stops it, nothing is lost)
  export TRAINKIT_HOME=\$PWD/.home               where the examples find the key
  examples/upload.sh FILE.zip NAME              your own images: one folder a class, zipped
  examples/submit.sh examples/specs/digits-cnn.yaml NAME
  examples/experiment.sh examples/experiments/cancer-folds.yaml NAME
  examples/watch.sh JOB_ID                      README.md has the same with plain curl
TEXT
