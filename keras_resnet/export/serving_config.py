"""Files beside the versions of a model that start a server on it and ask it something."""

import stat
from pathlib import Path

from keras_resnet.export.runtime import Version
from keras_resnet.storage import write_text

FOLDER = "serving_config"
# What a server pads batches to, and what the warm-up records hold.
BATCH_SIZES = (1, 2, 4, 8, 16)

# Images of TF Serving by the TensorFlow in them, the one that exports are checked with first; the
# newest is for what needs it.
_IMAGES: dict[Version, str] = {(2, 19): "2.19.1", (2, 20): "2.20.0"}

_MODELS = """\
# TF Serving: --model_config_file; text format of tensorflow.serving.ModelServerConfig
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""

_BATCHING = """\
# TF Serving: --batching_parameters_file; text format of tensorflow.serving.BatchingParameters
max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 2000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{allowed}
"""

_DOCKER = """\
#!/bin/sh
# Starts TF Serving on every version in the folder above: gRPC on port 8500, REST on 8501.
# oneDNN computes convolutions fastest on x86; servers switch it on by themselves only on CPUs
# that have AVX512-VNNI or newer.
here=$(cd "$(dirname "$0")/.." && pwd)
exec docker run --rm -p 8500:8500 -p 8501:8501 -e TF_ENABLE_ONEDNN_OPTS=1 \\
  -v "$here:/models/{name}:ro" -v "$here/serving_config:/config:ro" \\
  tensorflow/serving:{image} \\
  --model_config_file=/config/models.config \\
  --enable_batching=true --batching_parameters_file=/config/batching.config
"""

_CURL = """\
#!/bin/sh
# usage: sh curl.sh IMAGE [HOST:PORT]
# Asks a running server for the most probable classes of an image file.
request='{{"signature_name": "serving_default", "instances": [{{"image_bytes": {{"b64": "%s"}}}}]}}'
printf "$request" "$(base64 < "$1" | tr -d '\\n')" |
  curl --silent --show-error --fail-with-body --data @- \\
    "http://${{2:-localhost:8501}}/v1/models/{name}:predict"
"""

_GRPC = '''\
"""usage: python grpc_client.py IMAGE... [--server=HOST:PORT]

Asks a running server for the most probable classes of image files, all in one request. Needs
grpcio, protobuf and tensorflow-serving-api (pip install --no-deps tensorflow-serving-api if another
flavor of TensorFlow is installed).
"""

import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

server = next((a[9:] for a in sys.argv[1:] if a.startswith("--server=")), "localhost:8500")
files = [a for a in sys.argv[1:] if not a.startswith("--")]

request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "serving_default"
images = [open(file, "rb").read() for file in files]
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images))

stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server))
answer = {{k: tf.make_ndarray(v) for k, v in stub.Predict(request, timeout=60).outputs.items()}}
for file, classes, probabilities in zip(files, answer["classes"], answer["probabilities"]):
    names = [repr(c.decode(errors="backslashreplace"))[1:-1] for c in classes]
    print(file, ", ".join(f"{{name}} {{p:.1%}}" for name, p in zip(names, probabilities)))
'''


def write_serving_config(folder: Path, name: str, needs: Version) -> Path:
    """Writes models.config, batching.config, docker.sh, curl.sh and grpc_client.py.

    Args:
        folder: holds the versions.
        name: what clients call the model.
        needs: the oldest TensorFlow that runs it.

    Returns:
        The folder of the files, `folder/serving_config`.
    """
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    values = {
        "name": name,
        "image": next((tag for has, tag in _IMAGES.items() if has >= needs), "latest"),
        "largest": BATCH_SIZES[-1],
        "allowed": "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
    }
    for file, text in (
        ("models.config", _MODELS),
        ("batching.config", _BATCHING),
        ("docker.sh", _DOCKER),
        ("curl.sh", _CURL),
        ("grpc_client.py", _GRPC),
    ):
        write_text(target / file, text.format(**values))
        if file.endswith(".sh"):
            mode = (target / file).stat().st_mode
            (target / file).chmod(mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return target
