"""Makes elsewhere/keras_hub_*.json: what KerasHub's ResNets give.

In an environment of its own (none of this is a dependency of the project), Python 3.11:

    pip install keras==3.15.1 tensorflow-cpu==2.21.0 keras-hub==0.32.0
    python tests/references/make_keras_hub.py
"""

import json
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from references import generator  # noqa: E402

KINDS = {
    "basic": {"block_type": "basic_block"},
    "bottleneck": {"block_type": "bottleneck_block"},
    "v2": {"block_type": "bottleneck_block", "use_pre_activation": True},
    "vd": {"block_type": "bottleneck_block_vd"},
    # Projections where the shape does not change.
    "basic_vd": {"block_type": "basic_block_vd"},
    "v2_wide_stem": {
        "block_type": "bottleneck_block",
        "use_pre_activation": True,
        "input_conv_filters": [256],
    },
    "v2_equal_widths": {
        "block_type": "basic_block",
        "use_pre_activation": True,
        "stackwise_num_filters": [64, 64],
    },
}


def main() -> None:
    """Writes one JSON file for each kind of network."""
    for kind, arguments in KINDS.items():
        deep = kind.endswith("vd")
        shared = {
            "input_conv_filters": [32, 32, 64] if deep else [64],
            "input_conv_kernel_sizes": [3, 3, 3] if deep else [7],
            "stackwise_num_filters": [64, 128],
            "stackwise_num_blocks": [2, 1],
            "stackwise_num_strides": [1, 2],
        }
        backbone = keras_hub.models.ResNetBackbone(**{**shared, **arguments})
        model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=4)
        arrays = {}
        for layer in (*backbone.layers, model.output_dense):
            for variable in layer.weights:
                name, shape = f"{layer.name}/{variable.name}", tuple(variable.shape)
                arrays[name] = list(shape)
                variable.assign(generator.weight(name, shape))
        logits = {64: np.asarray(model(generator.images(64))).tolist()}
        record = {"arrays": arrays, "keras_hub": keras_hub.__version__, "keras": keras.__version__}
        record["config"] = keras.saving.serialize_keras_object(backbone)  # as in presets
        path = HERE / "elsewhere" / f"keras_hub_{kind}.json"
        path.write_text(json.dumps({**record, "logits": logits}) + "\n")


if __name__ == "__main__":
    main()
