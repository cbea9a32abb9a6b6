#!/bin/sh
# Asks every minute which business unit the token of a mounted Secret acts in. Needs curl.
#   SFMC_DIR  where the Secret is mounted (/sfmc)
#   EVERY     seconds between calls (60)
set -eu
dir=${SFMC_DIR:-/sfmc}
trap exit TERM

# Prints a key of the Secret. It is read for each call: the files are replaced a few times an hour.
key() {
  cat "$dir/$1" 2> /dev/null || {
    echo "no $1 in $dir: is the Secret mounted there, and is the SFMCToken Ready?" >&2
    exit 1
  }
}

while true; do
  token=$(key access_token) || exit
  url=$(key rest_instance_url) || exit
  # The token goes through a pipe: arguments can be seen by every process.
  answer=$(printf 'Authorization: Bearer %s' "$token" |
    curl --silent --show-error --fail-with-body --max-time 30 --header @- "${url}platform/v1/tokenContext") || {
    echo "the call failed: $answer" >&2
    exit 1
  }
  echo "the token acts in business unit $(echo "$answer" | sed 's/.*"organization":{"id":\([0-9]*\).*/\1/')"
  sleep "${EVERY:-60}" & wait
done
