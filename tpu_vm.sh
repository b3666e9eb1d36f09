#!/usr/bin/env bash
# The half of run_tpu.sh that runs on a TPU VM; run_tpu.sh hands these commands on to it:
#
#   tpu_vm.sh install             makes the environment .venv beside this file
#   tpu_vm.sh start ARGUMENT ...  the same as the next, once and detached from the terminal
#   tpu_vm.sh ARGUMENT ...        makes the environment and becomes `keras-resnet ARGUMENT ...`
#   tpu_vm.sh follow              prints the log of what `start` began until it ends; 0 if that did
#   tpu_vm.sh stop                ends it; it saves first
#   tpu_vm.sh status              prints one line for the launcher: what is installed, what trains
#   tpu_vm.sh deploy CODE ENGINE  in FOLDER.new: takes the place of FOLDER and installs itself
#
# Beside this file `start` leaves train.log, .pid, .job (which training it is), .boot (of the machine
# it began in), .lock (held while it runs) and at the end .exit, the exit code; `deploy` .installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here python=$here/.venv/bin/python
readonly boot_id=${RUN_TPU_BOOT_ID:-/proc/sys/kernel/random/boot_id}

fail() { # MESSAGE
  echo "tpu_vm.sh: $1" >&2
  exit 1
}

# Whoever looks at a VM keeps it from deleting itself (watchdog.sh). A full disk hides nothing.
beat() { touch "$here/.heartbeat" 2>/dev/null || true; }

worker() { # the number of this host: TPU VMs are named t1v-n-NUMBER-w-WORKER
  if [[ $HOSTNAME =~ -w-([0-9]+)$ ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi
}

engine_of() { # ARGUMENT ...: of a training command
  local argument engine=tensorflow
  for argument in "$@"; do
    if [[ $argument == --config.engine=jax ]]; then engine=jax; fi
  done
  echo "$engine"
}

make_environment() {
  local found
  if found=$(command -v python3.12 || command -v python3.11); then
    "$found" -m venv "$here/.venv"
  else # the images come with Python 3.10, which is too old; uv brings its own
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 "$here/.venv"
  fi
}

install() { # ENGINE [again]: whole, or not at all; an environment that is there stays, unless again
  local extra=tpu unfinished=$here/.venv.unfinished
  if [[ $1 == jax ]]; then extra=jax-tpu; fi
  if [[ -f $unfinished ]]; then rm -rf "$here/.venv"; fi
  if [[ -x $python && -z ${2-} ]]; then return; fi
  # Each extra wants a libtpu of its own.
  if [[ $(cat "$here/.venv/extra" 2>/dev/null) != "$extra" ]]; then rm -rf "$here/.venv"; fi
  touch "$unfinished"
  [[ -x $python ]] || make_environment
  if ! "$python" -m pip install --quiet -e "${here}[$extra]"; then
    rm -r "$here/.venv"
    return 1
  fi
  echo "$extra" >"$here/.venv/extra"
  rm "$unfinished"
}

deploy() { # CODE ENGINE
  local old=${here%.new} name
  if [[ $(cat "$old/.installed" 2>/dev/null) == "$1 $2" ]]; then return; fi # meanwhile
  if [[ -d $old ]]; then
    if runs "$old"; then fail "training runs in $old"; fi
    if [[ -f $old/.venv.unfinished ]]; then rm -rf "$old/.venv"; fi
    for name in .venv train.log; do
      if [[ -e $old/$name ]]; then mv "$old/$name" "$here/"; fi
    done
    rm -rf "$old"
  fi
  mv "$here" "$old"
  exec "$old/tpu_vm.sh" settle "$1" "$2"
}

settle() { # CODE ENGINE: what `deploy` does once the folder has its name
  beat
  rm -f "$here/.installed"
  install "$2" again
  echo "$1 $2" >"$here/.installed" # last: until then nothing counts as installed
}

set_variables() { # ARGUMENT ...: those of the training command
  if [[ $(engine_of "$@") == jax ]]; then
    # JAX finds its TPU and the other hosts itself; without a TPU it is to fail, not to train on
    # the processor.
    unset TPU_NAME
    export JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu}
  elif [[ ${TPU_NAME:=local} == local ]]; then # one host: libtpu inside TensorFlow's own process
    export TPU_NAME
    TF_PLUGGABLE_DEVICE_LIBRARY_PATH=$(
      "$python" -c 'import libtpu; print(libtpu.get_library_path())'
    )
    export TF_PLUGGABLE_DEVICE_LIBRARY_PATH PJRT_DEVICE=TPU NEXT_PLUGGABLE_DEVICE_USE_C_API=true
    export TF_XLA_FLAGS="${TF_XLA_FLAGS:-} --tf_mlir_enable_mlir_bridge=true"
  else # a pod: the workers' own servers hold the TPU, this process only drives them
    export TPU_NAME TPU_LOAD_LIBRARY=0
  fi
  # Compiler flags that the config recommends, unless the caller has set his own.
  LIBTPU_INIT_ARGS=${LIBTPU_INIT_ARGS-$("$python" -m keras_resnet_cli libtpu-flags "$@")}
  export LIBTPU_INIT_ARGS
}

run() { # ARGUMENT ...
  install "$(engine_of "$@")"
  set_variables "$@"
  exec "$python" -m keras_resnet_cli "$@" # a signal reaches training, which then saves
}

runs() { # FOLDER: whether the training that `start` began there is alive; its lock dies with it
  [[ -f $1/train.lock ]] && ! flock --nonblock "$1/train.lock" true
}

start() { # ARGUMENT ...; a second call while training runs leaves it alone
  cd "$here"
  beat
  watch_over
  if [[ ${RUN_TPU_CODE-} && $(cat .installed 2>/dev/null) != "$RUN_TPU_CODE "* ]]; then
    fail "another launcher has installed another checkout meanwhile"
  fi
  exec 8>>train.lock
  if ! flock --nonblock 8; then
    if [[ ! -f train.exit ]]; then return; fi
    flock --wait 60 8 || fail "training has ended, but something that it started still runs"
  fi
  rm -f train.exit
  cat "$boot_id" >train.boot
  echo "${RUN_TPU_JOB:--}" >train.job
  # shellcheck disable=SC2016  # the inner shell expands these
  setsid nohup bash -c \
    'code=0; "$0" "$@" || code=$?; echo "$code" >train.exit.part; mv train.exit.part train.exit' \
    "$here/tpu_vm.sh" "$@" >>train.log 2>&1 </dev/null &
  echo $! >train.pid
}

watch_over() { # with --self-delete; a TPU that was created with it has a watchdog already
  if [[ ${RUN_TPU_SELF_DELETE-} && $(worker) == 0 ]]; then
    setsid nohup "$here/keras_resnet/launcher/watchdog.sh" "$RUN_TPU_SELF_DELETE" \
      >>watchdog.log 2>&1 </dev/null &
  fi
}

status() {
  cd "$here"
  beat
  local train=none code=none engine=none exit=- job=- reboot=no
  if [[ $(cat .installed 2>/dev/null) =~ ^([^ ]+)\ ([a-z]+)$ ]]; then
    code=${BASH_REMATCH[1]} engine=${BASH_REMATCH[2]}
  fi
  if [[ -s train.job ]]; then job=$(<train.job); fi
  if [[ -f train.pid ]]; then train=lost; fi
  if runs .; then train=running; fi
  # On a full disk it is empty.
  if [[ -s train.exit ]]; then train=ended exit=$(<train.exit); fi
  if [[ -f train.boot ]] && ! cmp -s train.boot "$boot_id"; then reboot=yes; fi
  echo "keras-resnet-vm worker=$(worker) code=$code engine=$engine train=$train exit=$exit" \
    "job=$job reboot=$reboot"
}

stop() {
  cd "$here"
  local pid second
  if runs . && pid=$(<train.pid); then
    kill -TERM -- "-$pid" 2>/dev/null || true
    for ((second = 0; second < 120; second++)); do
      if ! runs .; then break; fi
      sleep 1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
  fi
  rm -f train.pid train.exit
}

follow() { # [SECONDS]: no longer than that
  cd "$here"
  beat
  [[ -f train.log ]] || fail "nothing was started here"
  if runs .; then
    timeout "${1:-0}" tail -n 20 --pid="$(<train.pid)" -F train.log 2>/dev/null || (($? == 124))
  else
    tail -n 20 train.log
  fi
  [[ $(cat train.exit 2>/dev/null) == 0 ]]
}

main() {
  case ${1-} in
    install) install "$(engine_of "$@")" ;;
    deploy | settle | start | follow) "$@" ;;
    stop | status) "$1" ;;
    *) run "$@" ;;
  esac
}

main "$@"
