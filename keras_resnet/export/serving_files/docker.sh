#!/bin/sh
# usage: docker.sh [FLAG OF tensorflow_model_server...]
# Starts TF Serving on every version of the model: gRPC on port 8500, REST on port 8501.
# oneDNN computes convolutions fastest on x86; servers switch it on by themselves only on CPUs
# that have AVX512-VNNI or newer. CORES=N: how many CPUs it should take.
here=$(cd "$(dirname "$0")" && pwd)
exec docker run --rm -p 8500:8500 -p 8501:8501 -e TF_ENABLE_ONEDNN_OPTS=1 -e CORES \
  -v "$here:/config:ro" @VERSIONS@ \
  --entrypoint /bin/sh tensorflow/serving:@IMAGE@ /config/serve.sh "$@"
