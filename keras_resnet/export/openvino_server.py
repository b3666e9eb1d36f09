"""Versions of a model for OpenVINO Model Server, and files that start it and ask it something.

The server speaks TF Serving's gRPC and REST APIs. It was not run here: what is written follows its
documentation.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import keras

from keras_resnet.export import comparison
from keras_resnet.export.files import export_file
from keras_resnet.export.openvino import HINTS, Runner
from keras_resnet.export.serving_config import FOLDER
from keras_resnet.export.versions import XML, check_name, new_version
from keras_resnet.storage import make_executable, write_text

_DOCKER = """\
#!/bin/sh
# Starts OpenVINO Model Server on every version in the folder above: gRPC on port 8500, REST on
# 8501, as TF Serving. It needs an OpenVINO that is not older than the one that wrote the versions.
here=$(cd "$(dirname "$0")/.." && pwd)
exec docker run --rm -p 8500:8500 -p 8501:8501 \\
  -v "$here:/models/{name}:ro" -v "$here/serving_config:/config:ro" \\
  openvino/model_server:latest \\
  --config_path /config/openvino.json --port 8500 --rest_port 8501
"""

_CLIENT = '''\
"""usage: python pixels_client.py IMAGE... [--server=HOST:PORT]

Prepares image files as the network wants them and asks a running server for the most probable
classes, over REST: OpenVINO Model Server, or TF Serving. The package keras-resnet-tpu prepares the
images here, as in evaluation.
"""

import json
import sys
import urllib.request
from pathlib import Path

import tensorflow as tf
from keras_resnet.input_pipeline import evaluation_image

here = Path(__file__).parent
told = json.loads((here / "description.json").read_text())
server = next((a[9:] for a in sys.argv[1:] if a.startswith("--server=")), "localhost:8501")
files = [a for a in sys.argv[1:] if not a.startswith("--")]

images = [evaluation_image(tf.io.read_file(file), told["preprocessing"]).numpy() for file in files]
request = {{
    "signature_name": "predict_images_uint8",
    "instances": [{{"images": image.tolist()}} for image in images],
}}
url = f"http://{{server}}/v1/models/{name}:predict"
with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=60) as answer:
    predictions = json.load(answer)["predictions"]
for file, prediction in zip(files, predictions):
    ranked = sorted(zip(prediction["probabilities"], told["class_names"]), reverse=True)[:5]
    print(file, ", ".join(f"{{name!r}} {{p:.1%}}" for p, name in ranked))
'''


@dataclasses.dataclass
class Version:
    """What was written.

    Attributes:
        path: the .xml file of the new version.
        serving_config: folder of the files for a server.
        difference: between the model and the export.
    """

    path: Path
    serving_config: Path
    difference: comparison.Difference


def export_version(
    model: keras.Model,
    output: str | os.PathLike,
    *,
    precision: str = "float32",
    name: str | None = None,
    **options: Any,
) -> Version:
    """Writes the next version of a model for OpenVINO Model Server, once it has passed every check.

    Args:
        model: as in `export_file`.
        output: folder of the versions, OUTPUT/NUMBER/model.xml and model.bin.
        precision: as in `export_file`.
        name: what clients call the model; default: the name of `output`.
        options: the others of `export_file`.

    Raises:
        UserError: as `export_file`; nothing is left behind then.
    """
    output = Path(output).expanduser()
    name = check_name(name or output.resolve().name)
    with new_version(output) as (folder, published):
        difference = export_file(
            model, folder / XML, format="openvino", precision=precision, **options
        )
    path = published[0] / XML
    return Version(path, write_config(output, path, name, precision), difference)


def write_config(folder: Path, version: Path, name: str, precision: str) -> Path:
    """Writes openvino.json, docker_openvino.sh, pixels_client.py and description.json.

    Args:
        folder: holds the versions.
        version: .xml file of one.
        name: what clients call the model.
        precision: of the version.

    Returns:
        The folder of the files, `folder/serving_config`.
    """
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    # Without the hint the server would compute a float32 network in bfloat16 where the CPU can.
    plugin = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "THROUGHPUT"}
    served = {"name": name, "base_path": f"/models/{name}", "plugin_config": plugin}
    config = json.dumps({"model_config_list": [{"config": served}]}, indent=2)
    write_text(target / "openvino.json", config + "\n")
    write_text(target / "description.json", Runner(version).description.to_json() + "\n")
    write_text(target / "pixels_client.py", _CLIENT.format(name=name))
    script = target / "docker_openvino.sh"
    write_text(script, _DOCKER.format(name=name))
    make_executable(script)
    return target
