#!/usr/bin/env bash
# The half of run_tpu.sh that runs on a TPU VM; run_tpu.sh hands these commands on to it:
#
#   tpu_vm.sh install             makes the environment .venv beside this file
#   tpu_vm.sh start ARGUMENT ...  the same as the next, once and detached from the terminal
#   tpu_vm.sh ARGUMENT ...        makes the environment and becomes `keras-resnet ARGUMENT ...`
#   tpu_vm.sh follow              prints the log of what `start` began until it ends
#
# `start` leaves train.pid, train.log and, at the end, train.exit with the exit code beside this file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here python=$here/.venv/bin/python

install() {
  [[ -x $python ]] && return
  local found
  if found=$(command -v python3.12 || command -v python3.11); then
    "$found" -m venv "$here/.venv"
  else # the images come with Python 3.10, which is too old; uv brings its own
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 "$here/.venv"
  fi
  if ! "$python" -m pip install --quiet -e "${here}[tpu]"; then
    rm -r "$here/.venv" # so that the next call does not take half an environment for a whole one
    return 1
  fi
}

set_variables() { # ARGUMENT ...: those of the training command
  export TPU_NAME=${TPU_NAME:-local}
  if [[ $TPU_NAME == local ]]; then # one host: libtpu inside TensorFlow's own process
    TF_PLUGGABLE_DEVICE_LIBRARY_PATH=$(
      "$python" -c 'import libtpu; print(libtpu.get_library_path())'
    )
    export TF_PLUGGABLE_DEVICE_LIBRARY_PATH PJRT_DEVICE=TPU NEXT_PLUGGABLE_DEVICE_USE_C_API=true
    export TF_XLA_FLAGS="${TF_XLA_FLAGS:-} --tf_mlir_enable_mlir_bridge=true"
  else # a pod: the workers' own servers hold the TPU, this process only drives them
    export TPU_LOAD_LIBRARY=0
  fi
  # Compiler flags that the config recommends, unless the caller has set his own.
  LIBTPU_INIT_ARGS=${LIBTPU_INIT_ARGS-$("$python" -m keras_resnet_cli libtpu-flags "$@")}
  export LIBTPU_INIT_ARGS
}

run() { # ARGUMENT ...
  install
  set_variables "$@"
  exec "$python" -m keras_resnet_cli "$@" # a signal reaches training, which then saves
}

start() { # ARGUMENT ...; a second call while training runs leaves it alone
  cd "$here"
  if [[ -f train.pid ]] && kill -0 "$(<train.pid)" 2>/dev/null; then return; fi
  rm -f train.exit
  # shellcheck disable=SC2016  # the inner shell expands these
  setsid nohup bash -c 'code=0; "$0" "$@" || code=$?; echo "$code" >train.exit' \
    "$here/tpu_vm.sh" "$@" >>train.log 2>&1 </dev/null &
  echo $! >train.pid
}

follow() {
  cd "$here"
  tail -n 20 --pid="$(<train.pid)" -F train.log 2>/dev/null
}

main() {
  case ${1-} in
    install) install ;;
    start) shift; start "$@" ;;
    follow) follow ;;
    *) run "$@" ;;
  esac
}

main "$@"
