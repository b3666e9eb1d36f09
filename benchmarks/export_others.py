"""ResNet-50 inference in PyTorch, OpenVINO, ONNX Runtime and TFLite, for `export.py`.

    python export_others.py LIBRARY PRECISION BATCH CLIENTS FILE

Answers the tasks of `export_worker.py`. PyTorch's network is written out here (torchvision's
layers, v1.5) with the folded weights of ours, checked against our logits, and runs channels last;
bfloat16 by converting the weights. OpenVINO runs our export in the precision that its runtime info
names, or the ONNX file, which it converts itself; for one client as fast as possible, for several
by its hint for throughput.
"""

import os
import sys

import numpy as np
from export_worker import answer


def main() -> None:
    library, precision, batch, clients, path = sys.argv[1:]
    contestants = {
        "torch": torch_network,
        "openvino": openvino_network,
        "onnxruntime": onnx_network,
        "tflite": tflite_network,
    }
    answer(contestants[library](precision, int(batch), int(clients), path))


def pixels(batch: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3)).astype(dtype)


def torch_network(precision: str, batch: int, clients: int, path: str):
    import torch

    weights = np.load(path)
    model = torch_layers(weights).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = model(torch.from_numpy(weights["images"]).permute(0, 3, 1, 2)).numpy()
    distance = np.abs(found - weights["logits"]).max() / np.abs(weights["logits"]).max()
    if not distance < 1e-4:
        sys.exit(f"PyTorch's network is another one: its logits differ by {distance:.2g}")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = model.to(dtype)
    # NHWC memory seen as NCHW: channels last without a copy.
    images = torch.from_numpy(pixels(batch, "float32") / 64 - 2).permute(0, 3, 1, 2).to(dtype)
    with torch.inference_mode():
        model = torch.jit.optimize_for_inference(torch.jit.trace(model, images))

    def call():
        with torch.inference_mode():
            return model(images)

    return lambda: call


def torch_layers(weights):
    """v1.5 with the weights of our folded network, {"stage1_block1_conv1/kernel": HWIO, …}."""
    import torch
    from torch import nn

    def filled(layer, name):
        kernel = weights[f"{name}/kernel"]
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(axes)))
        layer.bias.data = torch.from_numpy(weights[f"{name}/bias"])
        return layer

    def conv(channels, filters, size, stride, name):
        return filled(nn.Conv2d(channels, filters, size, stride, size // 2), name)

    class Bottleneck(nn.Module):
        def __init__(self, channels, width, stride, name):
            super().__init__()
            self.branch = nn.Sequential(
                conv(channels, width, 1, 1, f"{name}_conv1"), nn.ReLU(True),
                conv(width, width, 3, stride, f"{name}_conv2"), nn.ReLU(True),
                conv(width, 4 * width, 1, 1, f"{name}_conv3"),
            )  # fmt: skip
            projects = f"{name}_shortcut_conv/kernel" in weights
            self.shortcut = (
                conv(channels, 4 * width, 1, stride, f"{name}_shortcut_conv")
                if projects
                else nn.Identity()
            )

        def forward(self, x):
            return torch.relu(self.branch(x) + self.shortcut(x))

    layers = [conv(3, 64, 7, 2, "stem_conv"), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for block in range(1, depth + 1):
            width, stride = 32 * 2**stage, 2 if stage > 1 and block == 1 else 1
            layers.append(Bottleneck(channels, width, stride, f"stage{stage}_block{block}"))
            channels = 4 * width
    head = filled(nn.Linear(2048, 1000), "predictions")
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def openvino_network(precision: str, batch: int, clients: int, path: str):
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    hint = {"bfloat16": "bf16"}.get(precision, "f32")
    if path.endswith(".xml"):
        hint = model.get_rt_info(["keras_resnet", "inference_precision"]).astype(str)
    config = {
        "PERFORMANCE_HINT": "LATENCY" if clients == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": hint,
    }
    model.reshape([batch, 224, 224, 3])
    compiled = core.compile_model(model, "CPU", config)
    images = pixels(batch, "uint8" if path.endswith(".xml") else "float32")

    def make_call():
        request = compiled.create_infer_request()
        return lambda: request.infer({0: images})

    return make_call


def onnx_network(precision: str, batch: int, clients: int, path: str):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = pixels(batch, "float32")
    return lambda: lambda: session.run(None, {"images": images})


def tflite_network(precision: str, batch: int, clients: int, path: str):
    """One image after the other, as its files take them; an interpreter for each client."""
    import tensorflow as tf

    images = pixels(1, "float32")
    cores = max(1, len(os.sched_getaffinity(0)) // clients)

    def make_call():
        interpreter = tf.lite.Interpreter(path, num_threads=cores)
        run = interpreter.get_signature_runner("serving_default")
        return lambda: [run(images=images) for _ in range(batch)]

    return make_call


if __name__ == "__main__":
    main()
