"""Makes the numbers tests compare with: logits/*.npz, parameter_counts.json, default_weights.json.

In an environment of its own (none of this is a dependency of the project), Python 3.11:

    pip install torch==2.13.0 numpy==2.4.6 pillow pyyaml huggingface_hub safetensors
    pip install --no-deps torchvision==0.28.0 timm==1.0.31
    pip install keras==3.15.1 tensorflow-cpu==2.21.0
    python tests/references/make_references.py [CASE ...]

Without arguments everything is made anew, about ten minutes on two cores; with names of cases
only their logits.
"""

import json
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

# torchvision registers its compiled operators when it is imported; beside a CPU-only torch from
# another build they are missing. Their declarations are enough: a ResNet uses none of them.
_library = torch.library.Library("torchvision", "DEF")  # kept referenced, or they vanish again
for _name in ("nms", "qnms"):
    _library.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402

from references import generator  # noqa: E402
from references.cases import CASES, CLASSES_KEPT, COUNTERPARTS, KERAS, Case  # noqa: E402

VERSIONS = {
    "torchvision": torchvision.__version__.split("+")[0],
    "timm": timm.__version__,
    KERAS: keras.__version__,
}


def build(library: str, model: str, **arguments):
    """The library's model with random weights, giving logits."""
    if library == "torchvision":
        return getattr(torchvision.models, model)(weights=None, **arguments).eval()
    if library == "timm":
        return timm.create_model(model, pretrained=False, **arguments).eval()
    keras.backend.clear_session()
    make = getattr(keras.applications, model)
    return make(weights=None, classifier_activation=None, **arguments)


def parameter_count(library: str, model: str) -> int:
    """Number of trainable parameters."""
    if library == KERAS:
        return sum(int(np.prod(w.shape)) for w in build(library, model).trainable_weights)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(library, model).parameters())


def logits(case: Case, size: int) -> np.ndarray:
    """Logits of the generator's images with the generator's weights, shape (2, 1000)."""
    images = generator.images(size)
    if case.library == KERAS:
        model = build(case.library, case.model, input_shape=(size, size, 3))
        for layer in model.layers:
            for variable in layer.weights:
                name = f"{layer.name}/{variable.name}"
                variable.assign(generator.weight(name, tuple(variable.shape)))
        return np.asarray(model(images, training=False))
    model = build(case.library, case.model, **case.library_arguments)
    state = {
        name: torch.from_numpy(generator.weight(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    with torch.inference_mode():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def default_weights() -> dict:
    """timm's own description of the weights that `weights="imagenet"` takes from the hub."""
    kept = ("architecture", "input_size", "interpolation", "crop_pct", "mean", "std", "num_classes")
    rows = {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        if config.get("hf_hub_id") and config["architecture"] in TIMM_NAMES:
            rows[name] = {key: config[key] for key in kept}
    return rows


TIMM_NAMES = {model for library, model in COUNTERPARTS.values() if library != KERAS}


def _write_json(name: str, value: dict) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n")


def main(names: list[str]) -> None:
    if not names:
        counts = {
            variant: {
                "source": f"{library} {VERSIONS[library]} {model}",
                "parameters": parameter_count(library, model),
            }
            for variant, (library, model) in COUNTERPARTS.items()
        }
        _write_json("parameter_counts.json", counts)
        _write_json("default_weights.json", default_weights())
    (HERE / "logits").mkdir(exist_ok=True)
    for name in names or CASES:
        case = CASES[name]
        values = {f"size_{size}": logits(case, size) for size in case.sizes}
        kept = {key: value[:, CLASSES_KEPT].astype("float32") for key, value in values.items()}
        source = f"{case.library} {VERSIONS[case.library]} {case.model} {case.library_arguments}"
        np.savez(HERE / "logits" / f"{name}.npz", source=source.strip(), **kept)
        spread = ", ".join(f"{value.std():.3g}" for value in values.values())
        print(f"{name}: {source}; standard deviation of the logits {spread}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
