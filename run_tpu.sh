#!/usr/bin/env bash
# Train on Cloud TPU. docs/tpu.md explains; the three ways to call it:
#
#   run_tpu.sh launch [OPTION ...] -- train --config=NAME [--config.key=value ...]
#       From a workstation: creates a TPU, trains on it until done, deletes it.
#       --name=NAME --zone=ZONE --type=TYPE (such as v5litepod-8) --bucket=gs://BUCKET
#       --version=RUNTIME (default: by type; pods need it)  --project=PROJECT
#       --spot  --queued (a queued resource)  --keep (do not delete)  --restarts=20  --dry-run
#   run_tpu.sh train --config=NAME --workdir=DIR_OR_BUCKET
#       On a TPU VM: makes the environment and runs `keras-resnet train`, or any of its commands.
#   run_tpu.sh install | start ARGUMENT ... | follow
#       On a TPU VM, the parts of it that `launch` calls: `start` is detached from the terminal.
#
# This file is the launcher; what runs on the TPU VM is tpu_vm.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here wait=${RUN_TPU_WAIT:-30} # seconds between two looks at a state
# What the command line asks for; read_options and check_options set it, the rest only reads it.
name='' zone='' type='' version='' bucket='' project='' spot='' queued='' keep='' dry_run=''
restarts=20 pod=''
place=()     # the options that say where, for every command of gcloud
arguments=() # the training command
# How far it is: a TPU was there, this run may cost money, the exit code of training.
created='' running='' ended=''

fail() { # CODE MESSAGE
  echo "run_tpu.sh: $2" >&2
  exit "$1"
}

read_options() {
  local key
  while (($#)); do
    case $1 in
      --name=* | --zone=* | --type=* | --version=* | --bucket=* | --project=* | --restarts=*)
        key=${1%%=*}
        printf -v "${key#--}" %s "${1#*=}" ;;
      --spot | --queued | --keep) printf -v "${1#--}" yes ;;
      --dry-run) dry_run=yes ;;
      --) shift; break ;;
      *) fail 2 "launch: unknown option $(printf %q "$1"); see the head of run_tpu.sh" ;;
    esac
    shift
  done
  arguments=("$@")
}

check() { # WHAT VALUE PATTERN EXAMPLE
  [[ $2 =~ ^($3)$ ]] || fail 2 "launch: --$1=$(printf %q "$2"): $4"
}

check_options() {
  check name "$name" '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' 'lower case letters, digits, -: resnet-1'
  check zone "$zone" '[a-z]+-[a-z]+[0-9]+-[a-z]' 'a zone such as us-west4-a'
  check type "$type" '(v[234]|v5litepod|v5p|v6e)-[1-9][0-9]*' \
    'a type such as v5litepod-8, v5p-8, v6e-8, v4-8 (TensorFlow does not run on TPU7x)'
  check restarts "$restarts" '[0-9]{1,4}' 'a number'
  check bucket "$bucket" '(gs://[a-z0-9][-a-z0-9_.]+[a-z0-9](/.*)?)?' \
    'gs://BUCKET or gs://BUCKET/FOLDER'
  check project "$project" '([a-z][-a-z0-9:.]+)?' 'the id of a project'
  choose_version
  check version "$version" '[-a-z0-9_.]+' 'a runtime version such as v2-alpha-tpuv5-lite'
  [[ ${arguments[0]-} == train ]] ||
    fail 2 "launch: after -- comes the command, such as -- train --config=NAME"
  choose_workdir
  place=("--zone=$zone" ${project:+"--project=$project"})
}

choose_version() { # sets pod, and version unless it is given
  # Eight chips (or cores of v2 to v5p) are the most that one host has.
  if ((${type##*-} > 8)); then pod=yes; fi
  if [[ $version ]]; then return; fi
  [[ $pod ]] && fail 2 "launch: --type=$type has several hosts and needs --version=\
tpu-vm-tf-X.Y.Z-pod-pjrt, with X.Y.Z the TensorFlow of the extra tpu; all that there are:
  gcloud compute tpus tpu-vm versions list --zone=$zone"
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
}

choose_workdir() { # adds --workdir to the arguments unless it is given
  local argument workdir=''
  for argument in "${arguments[@]}"; do
    if [[ $argument == --workdir=* ]]; then workdir=${argument#*=}; fi
  done
  if [[ -z $workdir && $bucket ]]; then
    workdir=${bucket%/}/$name
    arguments+=("--workdir=$workdir")
  fi
  [[ $workdir == gs://* ]] ||
    fail 2 "launch: --workdir=$(printf %q "$workdir") would be deleted with the TPU; give \
--bucket=gs://BUCKET"
}

# Runs gcloud, or prints the command.
tpus() { # GROUP VERB ARGUMENT ...
  local command=(gcloud compute tpus "$@")
  if [[ $dry_run ]]; then
    printf '%q ' "${command[@]}" && echo
  else
    "${command[@]}"
  fi
}

remote() { # WORKER COMMAND: in the project's folder there; 255 where the connection broke
  tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=cd keras_resnet && $2" \
    -- -o ServerAliveInterval=30 -o ServerAliveCountMax=4
}

state() { # READY, CREATING, PREEMPTED, …; NONE: there is no such TPU; UNKNOWN: nobody answers
  local said
  if said=$(
    gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)' 2>&1
  ); then
    tail -n 1 <<<"$said"
  elif [[ $said == *NOT_FOUND* || $said == *"not found"* ]]; then
    echo NONE
  else
    echo UNKNOWN
  fi
}

is_gone() {
  [[ $(state) =~ ^(PREEMPTED|TERMINATED|STOPPED|NONE)$ ]]
}

create() {
  if [[ -z $queued ]]; then
    tpus tpu-vm create "$name" "${place[@]}" "--accelerator-type=$type" "--version=$version" \
      ${spot:+--spot}
    return
  fi
  tpus queued-resources create "$name" "--node-id=$name" "${place[@]}" \
    "--accelerator-type=$type" "--runtime-version=$version" ${spot:+--spot} || return
  local now=''
  while [[ -z $dry_run && $now != ACTIVE ]]; do
    now=$(
      gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
        '--format=value(state.state)'
    ) || return
    case $now in
      ACTIVE) ;;
      FAILED | SUSPEND*) echo "run_tpu.sh: the queued resource $name is $now" >&2 && return 1 ;;
      *) echo "queued resource $name: $now" && sleep "$wait" ;;
    esac
  done
}

delete() {
  if [[ $queued ]]; then # --force takes the TPU along
    tpus queued-resources delete "$name" "${place[@]}" --force --quiet
  else
    tpus tpu-vm delete "$name" "${place[@]}" --quiet
  fi
}

pack() { # ARCHIVE: the project as it is here, without data and runs
  # In a checkout only what git does not ignore. keras_resnet/input_pipeline and configs are links
  # to the folders beside keras_resnet; tar keeps them as such.
  { git -C "$here" ls-files -zco --exclude-standard 2>/dev/null || printf '.\0'; } |
    tar -C "$here" -czf "$1" --exclude=./.venv --ignore-failed-read --null -T -
}

copy_and_install() {
  local archive=keras_resnet.tgz code=0
  if [[ -z $dry_run ]]; then
    archive=$(mktemp --suffix=.tgz)
    pack "$archive"
  fi
  tpus tpu-vm scp "$archive" "$name:keras_resnet.tgz" "${place[@]}" --worker=all || code=$?
  [[ $dry_run ]] || rm "$archive"
  ((code == 0)) || return "$code"
  tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
    '--command=mkdir -p keras_resnet && tar -xzf keras_resnet.tgz -C keras_resnet' || return
  remote all './run_tpu.sh install'
}

# Starts training on the first worker and follows it to its end; sets `ended` to its exit code.
train() {
  local words
  words=$(printf '%q ' ${pod:+env "TPU_NAME=$name"} ./run_tpu.sh start "${arguments[@]}")
  remote 0 "$words" || return
  while true; do
    remote 0 './run_tpu.sh follow' || true
    if [[ $dry_run ]]; then ended=0 && return; fi
    # The connection ends for many reasons; whether training did is written on the worker.
    ended=$(remote 0 'cat train.exit 2>/dev/null || echo running') || ended=unreachable
    if [[ $ended =~ ^[0-9]+$ ]]; then return; fi
    if is_gone; then return 1; fi
    echo "run_tpu.sh: the connection broke, training is $ended; following it again" >&2
    sleep "$wait"
  done
}

# From nothing, or from a TPU that is already there, to the end of training.
run_once() {
  if [[ $dry_run || $(state) != READY ]]; then
    create || return
    created=yes
    copy_and_install || return
  fi
  created=yes
  train
}

say_what_costs() { # at every exit
  local code=$?
  trap - EXIT
  if [[ $running && -z $dry_run ]] && { [[ $queued ]] || [[ $(state) != NONE ]]; }; then
    echo "run_tpu.sh: $name in $zone may still run, and costs money until you delete it:" >&2
    dry_run=yes delete | sed 's/^/  /' >&2
    echo "Training that has started goes on; the same launch command follows it again." >&2
  fi
  exit "$code"
}

launch() {
  local attempt=0
  read_options "$@"
  check_options
  [[ $dry_run ]] || command -v gcloud >/dev/null ||
    fail 1 "gcloud is not installed: https://cloud.google.com/sdk"
  [[ -d $here/keras_resnet/input_pipeline ]] ||
    fail 1 "$here/keras_resnet/input_pipeline is no link to a folder; check the project out with \
symbolic links (git config core.symlinks true)"
  trap 'exit 130' INT TERM HUP
  trap say_what_costs EXIT
  running=yes
  until run_once; do
    # A TPU that never was there could not be created: an error. One that was there comes again when
    # the zone has a free one.
    if [[ -z $created ]] || ! is_gone; then fail 1 "gcloud failed; its message is above"; fi
    ((++attempt <= restarts)) || fail 1 "$name was lost $attempt times; --restarts=$restarts"
    echo "run_tpu.sh: $name is gone; restart $attempt of $restarts, from the last checkpoint" >&2
    delete || true # what is left of it holds the name
    sleep "$wait"
  done
  ((ended == 0)) || fail "$ended" "training ended with exit code $ended; its log is above"
  if [[ -z $keep ]]; then
    delete
    running=''
  fi
}

case ${1-} in
  launch) shift; launch "$@" ;;
  '' | -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" ;;
  *) exec "$here/tpu_vm.sh" "$@" ;;
esac
