# Sourced by the examples. TRAINKIT_URL and TRAINKIT_KEY say where the service is and who asks.
set -euo pipefail

: "${TRAINKIT_URL:=http://127.0.0.1:8321}"
: "${PYTHON:=python3}"
if [ -z "${TRAINKIT_KEY:-}" ]; then
  key_file="${TRAINKIT_HOME:-$HOME/.trainkit}/api-key"
  [ -r "$key_file" ] || { echo "Set TRAINKIT_KEY, or TRAINKIT_HOME to the folder that trainkit up uses." >&2; exit 2; }
  TRAINKIT_KEY=$(cat "$key_file")
fi

# api PATH [curl options]: one call with the key; a problem document goes to stderr and ends the script.
api() {
  local path=$1 answer
  shift
  answer=$(curl --silent --show-error --fail-with-body --header "Authorization: Bearer $TRAINKIT_KEY" "$@" "$TRAINKIT_URL$path") ||
    { echo "$answer" >&2; return 1; }
  printf '%s' "$answer"
}

# field NAME[.NAME...]: that field of the JSON on standard input; empty when it is null or absent.
field() {
  "$PYTHON" -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value.get(name) if isinstance(value, dict) else None
print("" if value is None else value if isinstance(value, str) else json.dumps(value))' "$1"
}
