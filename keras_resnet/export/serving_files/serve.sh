#!/bin/sh
# usage: serve.sh [FLAG OF tensorflow_model_server...]
# Starts TF Serving by the files beside this one; docker.sh and the Dockerfile run it in a container.
# CORES: how many CPUs it has; by default those of the machine, or of the container's limit.
here=$(cd "$(dirname "$0")" && pwd)
cores=${CORES:-}
if [ -z "$cores" ]; then
  cores=$(nproc)
  if read -r quota period 2>/dev/null < /sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
    limit=$(((quota + period - 1) / period))
    [ "$limit" -ge "$cores" ] || cores=$limit
  fi
fi
batching=${TMPDIR:-/tmp}/batching.config
sed -e "s/^num_batch_threads .*/num_batch_threads { value: $cores }/" \
  -e "s/^max_enqueued_batches .*/max_enqueued_batches { value: $((4 * cores)) }/" \
  "$here/batching.config" > "$batching" || exit 1
# AIP_HTTP_PORT is Vertex AI's, PORT Cloud Run's and Knative's.
exec tensorflow_model_server --port=8500 --rest_api_port="${AIP_HTTP_PORT:-${PORT:-8501}}" \
  --model_config_file="$here/models.config" \
  --monitoring_config_file="$here/monitoring.config" \
  --enable_batching=true --batching_parameters_file="$batching" \
  --tensorflow_intra_op_parallelism="$cores" --tensorflow_inter_op_parallelism="$cores" "$@"
