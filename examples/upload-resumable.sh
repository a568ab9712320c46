#!/usr/bin/env bash
# upload-resumable.sh FILE NAME [TARGET_COLUMN]: upload in chunks (tus 1.0) and go on where a cut left off; print the dataset's id.
# Run again with UPLOAD=/v1/uploads/up_... to go on with an upload that was given up.
source "$(dirname "$0")/common.sh"
file=$1 name=$2 target=${3:-} chunk=${CHUNK_BYTES:-8388608}
size=$(wc -c <"$file" | tr -d ' ')
b64() { printf '%s' "$1" | base64 | tr -d '\n'; }
# tus METHOD PATH [curl options]: one request; prints status line and headers.
tus() {
  curl --silent --output /dev/null --dump-header - --request "$1" --header "Authorization: Bearer $TRAINKIT_KEY" \
    --header "Tus-Resumable: 1.0.0" --max-time 600 "${@:3}" "$TRAINKIT_URL$2" | tr -d '\r'
}
header() { sed -n "s/^$1: //Ip" | tail -1; }

metadata="name $(b64 "$name"),filename $(b64 "$(basename "$file")")${target:+,target $(b64 "$target")}"
upload=${UPLOAD:-$(tus POST /v1/uploads --header "Upload-Length: $size" --header "Upload-Metadata: $metadata" | header location)}
[ -n "$upload" ] || { echo "The upload was refused (size, quota or key)." >&2; exit 1; }
echo "Uploading to $upload" >&2
for attempt in $(seq 1 "${ATTEMPTS:-1000}"); do
  state=$(tus HEAD "$upload" --head || true)
  offset=$(header upload-offset <<<"$state")
  dataset=$(header trainkit-dataset <<<"$state")
  [ -z "$dataset" ] || { echo "$dataset"; exit 0; }
  case $(head -1 <<<"$state") in *\ 404\ * | *\ 410\ *) echo "The upload is gone; begin a new one." >&2; exit 1 ;; esac
  [ -n "$offset" ] || { sleep 1; continue; }
  tail -c +$((offset + 1)) "$file" | head -c "$chunk" |
    tus PATCH "$upload" --header "Upload-Offset: $offset" --header "Content-Type: application/offset+octet-stream" \
      --header "Expect:" --data-binary @- >/dev/null || sleep 1
done
echo "Gave up after $attempt attempts; UPLOAD=$upload goes on." >&2
exit 1
