#!/usr/bin/env bash
# predict.sh MODEL_ID FILE: one prediction for an image, or for the rows of a CSV or JSON file.
source "$(dirname "$0")/common.sh"
case $2 in
  *.png) type=image/png ;;
  *.jpg | *.jpeg) type=image/jpeg ;;
  *.csv) type=text/csv ;;
  *) type=application/json ;;
esac
api "/v1/models/$1/predict" --header "Content-Type: $type" --data-binary "@$2"
