#!/usr/bin/env bash
# Train on Cloud TPU. docs/tpu.md explains; the three ways to call it:
#
#   run_tpu.sh launch [OPTION ...] -- train --config=NAME [--config.key=value ...]
#       From a workstation: creates a TPU, trains on it until done, deletes it. It looks at what is
#       there first: the same command, at any time, takes the next step from there.
#       --name=NAME --zone=ZONE --type=TYPE (such as v5litepod-8) --bucket=gs://BUCKET
#       --engine=tensorflow|jax (default: by type)  --version=RUNTIME (default: by type)
#       --project=PROJECT --spot --reserved --labels --metadata --service-account --scopes
#       --network --subnetwork --internal-ips --tunnel-through-iap (as gcloud has them)
#       --queued (a queued resource)  --capacity-timeout=24h (waits so long for a free TPU)
#       --restarts=20 (after so many losses of the TPU or its training it gives up)
#       --replace (ends an older training that runs there)  --keep (do not delete)
#       --self-delete[=30] (the VM deletes itself that many minutes after training, unless a
#       launcher looks at it)  --dry-run
#   run_tpu.sh train --config=NAME --workdir=DIR_OR_BUCKET
#       On a TPU VM: makes the environment and runs `keras-resnet train`, or any of its commands.
#   run_tpu.sh install | start ARGUMENT ... | follow | status | stop
#       On a TPU VM, the parts of it that `launch` calls: `start` is detached from the terminal.
#
# The launcher is keras_resnet/launcher; what runs on the TPU VM is tpu_vm.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

launch() { # OPTION ...
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "run_tpu.sh: launch needs Python 3.9 or later as python3, and here that is" \
      "$(python3 --version 2>&1 || true)" >&2
    exit 1
  fi
  exec python3 "$here/keras_resnet/launcher" "$@"
}

case ${1-} in
  launch)
    case ${2-} in
      '' | -h | --help) exec "$0" --help ;;
      *) shift; launch "$@" ;;
    esac ;;
  '' | -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" ;;
  *) exec "$here/tpu_vm.sh" "$@" ;;
esac
