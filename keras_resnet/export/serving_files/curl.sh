#!/bin/sh
# usage: sh curl.sh IMAGE... [HOST:PORT]
# Asks a running server for the most probable classes of image files, a request for each. Waits up to
# WAIT seconds (60) until it has loaded the model. For many files take client.py.
cr=$(printf '\r')
server=localhost:8501
for last; do :; done
case ${last:-} in
  *:*[0-9]) [ -e "$last" ] || server=$last ;;
esac
model=http://$server/v1/models/@NAME@

waited=0
until state=$(curl --silent --show-error --fail-with-body "$model" 2>&1) &&
  case $state in *AVAILABLE*) ;; *) false ;; esac; do
  case $state in
    *'"error"'*) waited=${WAIT:-60} ;; # it knows no such model
  esac
  if [ "$waited" -ge "${WAIT:-60}" ]; then
    printf '%s: %s\n' "$model" "$state" >&2
    exit 1
  fi
  sleep 1
  waited=$((waited + 1))
done

failed=0
for image; do
  [ "$image" != "$server" ] || continue
  image=${image%"$cr"} # of a list with the line ends of Windows
  if ! [ -r "$image" ] || [ -d "$image" ]; then
    printf '%s: error: cannot be read\n' "$image"
    failed=1
    continue
  fi
  printf '%s:\n' "$image"
  {
    printf '{"signature_name": "serving_default", "instances": [{"image_bytes": {"b64": "'
    base64 < "$image" | tr -d '\r\n'
    printf '"}}]}'
  } | curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' \
    --data-binary @- "$model:predict" || failed=1
  echo
done
exit $failed
