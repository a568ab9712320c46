#!/usr/bin/env bash
# predict.sh MODEL FILE: MODEL is an id, name, name:version or name@alias; one prediction for an image, or for the rows of a CSV, TSV, JSON, JSON Lines or Parquet file.
source "$(dirname "$0")/common.sh"
case $2 in
  *.png) type=image/png ;;
  *.jpg | *.jpeg) type=image/jpeg ;;
  *.csv) type=text/csv ;;
  *.tsv) type=text/tab-separated-values ;;
  *.jsonl | *.ndjson) type=application/x-ndjson ;;
  *.parquet) type=application/vnd.apache.parquet ;;
  *) type=application/json ;;
esac
api "/v1/models/$1/predict" --header "Content-Type: $type" --data-binary "@$2"
