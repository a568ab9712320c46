#!/usr/bin/env bash
# upload.sh FILE NAME [TARGET_COLUMN]: stream a file to the service, wait until it is checked, print the dataset's id.
source "$(dirname "$0")/common.sh"
file=$1 name=$2 target=${3:-}

query="name=$name${target:+&target=$target}"
dataset=$(api "/v1/datasets?$query" --upload-file "$file" | field id)
while true; do
  answer=$(api "/v1/datasets/$dataset")
  case $(field state <<<"$answer") in
    ready) break ;;
    invalid)
      echo "The dataset is not usable:" >&2
      field error <<<"$answer" >&2
      exit 1
      ;;
  esac
  sleep 0.3
done
echo "$(field samples <<<"$answer") samples are ready ($(field kind <<<"$answer"))." >&2
echo "$dataset"
