#!/usr/bin/env bash
# Deletes the TPU that this VM is part of when nobody has a use for it any more: for MINUTES no
# training has run, nobody has looked (a launcher's looks touch .heartbeat), and the VM was not
# started. `run_tpu.sh launch --self-delete` makes it the VM's startup script, so that it is there
# from the first minute and after every reboot; `tpu_vm.sh start` starts it where it is missing.
#
#   watchdog.sh [nodes|queuedResources]/MINUTES      default: what the VM's metadata say
#
# On a pod the first worker watches. Deleting needs the service account of the VM: its scope
# cloud-platform, and a role with tpu.nodes.delete (roles/tpu.editor).
set -uo pipefail
readonly metadata=${RUN_TPU_METADATA:-http://metadata.google.internal/computeMetadata/v1/instance}
readonly api=${RUN_TPU_API:-https://tpu.googleapis.com/v2}
readonly folders=${RUN_TPU_FOLDERS:-/home/*/keras_resnet /root/keras_resnet}
readonly minute=${RUN_TPU_MINUTE:-60} fresh=${RUN_TPU_FRESH:-120} # seconds
readonly own=${HOME:-/root}/.keras_resnet_watchdog

get() { # PATH: of the metadata server
  curl --silent --fail --max-time 10 --retry 5 --retry-connrefused --header 'Metadata-Flavor: Google' "$metadata/$1"
}

of_tpu() { # KEY: of what Cloud TPU tells its VMs, lines such as NODE_ID: 'resnet'
  get attributes/tpu-env | sed -n "s/^$1: *'\{0,1\}\([^']*\)'\{0,1\}\$/\1/p"
}

in_use() {
  local folder lock
  for folder in $folders; do # a pattern, which is expanded here
    for lock in "$folder/train.lock" "$folder.lock"; do # training; an installation, which may last
      if [[ -f $lock ]] && ! flock --nonblock "$lock" true; then return 0; fi
    done
    if [[ $(find "$folder/.heartbeat" -newermt "-$fresh seconds" 2>/dev/null) ]]; then
      return 0
    fi
  done
  return 1
}

delete() { # KIND
  local token name query=''
  token=$(get service-accounts/default/token | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/') ||
    return
  name=projects/$(of_tpu CONSUMER_PROJECT_ID)/locations/$(of_tpu ZONE)/$1/$(of_tpu NODE_ID)
  if [[ $1 == queuedResources ]]; then query='?force=true'; fi # with the TPU that it brought
  echo "$(date): nobody has a use for $name: deleting it"
  curl --silent --show-error --max-time 60 --request DELETE \
    --header "Authorization: Bearer $token" "$api/$name$query"
}

main() { # KIND MINUTES
  exec 9>>"$own"
  flock --nonblock 9 || exit 0
  local number waited=0
  if [[ $HOSTNAME =~ -w-([0-9]+)$ ]]; then
    number=${BASH_REMATCH[1]}
  else
    number=$(get attributes/agent-worker-number)
  fi
  [[ ${number:-0} == 0 ]] || exit 0
  while true; do
    if in_use; then waited=0; else waited=$((waited + 1)); fi
    if ((waited > $2)); then delete "$1"; fi # again every minute, until there is no VM any more
    sleep "$minute" 9>&-
  done
}

what=${1:-$(get attributes/keras-resnet-self-delete)}
if [[ ! $what =~ ^(nodes|queuedResources)/([0-9]+)$ ]]; then
  echo "watchdog.sh: nodes/MINUTES, not ${what@Q}" >&2
  exit 2
fi
if (($#)); then
  main "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
else # the startup script, whose end the VM waits for
  main "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" </dev/null >>"$own.log" 2>&1 &
fi
