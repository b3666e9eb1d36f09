"""ResNet-50 inference in PyTorch, OpenVINO and ONNX Runtime, for `export.py`, which starts it.

    python export_others.py LIBRARY PRECISION BATCH FILE.onnx

A line with a number of calls on standard input is answered with the seconds that they took.
PyTorch's network is written out here (torchvision's layers, v1.5), runs channels last and, as the
export does, with the normalizations folded where TorchScript's freezing folds them; bfloat16 by
converting the weights. OpenVINO and ONNX Runtime run the ONNX file; OpenVINO in bfloat16 by its
inference-precision hint; ONNX Runtime has no bfloat16 on CPU.
"""

import sys
import time

import numpy as np


def main() -> None:
    library, precision, batch, path = sys.argv[1:]
    run = {"torch": torch_network, "openvino": openvino_network, "onnxruntime": onnx_network}
    call = run[library](precision, int(batch), path)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            call()
        print(time.perf_counter() - start, flush=True)


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype("float32")


def torch_network(precision: str, batch: int, path: str):
    import torch
    from torch import nn

    def conv_norm(channels, filters, size, stride=1):
        conv = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(filters))

    class Bottleneck(nn.Module):
        def __init__(self, channels, width, stride):
            super().__init__()
            self.branch = nn.Sequential(
                conv_norm(channels, width, 1), nn.ReLU(True),
                conv_norm(width, width, 3, stride), nn.ReLU(True),
                conv_norm(width, 4 * width, 1),
            )  # fmt: skip
            projects = stride > 1 or channels != 4 * width
            self.shortcut = conv_norm(channels, 4 * width, 1, stride) if projects else nn.Identity()

        def forward(self, x):
            return torch.relu(self.branch(x) + self.shortcut(x))

    layers = [conv_norm(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(channels, 64 * 2**stage, stride))
            channels = 256 * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = nn.Sequential(*layers).eval().to(dtype).to(memory_format=torch.channels_last)
    # NHWC memory seen as NCHW: channels last without a copy.
    images = torch.from_numpy(pixels(batch)).permute(0, 3, 1, 2).to(dtype)
    with torch.inference_mode():
        model = torch.jit.optimize_for_inference(torch.jit.trace(model, images))

    def call():
        with torch.inference_mode():
            return model(images)

    return call


def openvino_network(precision: str, batch: int, path: str):
    import openvino

    core = openvino.Core()
    hint = {"bfloat16": "bf16", "float32": "f32"}[precision]
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    model = core.read_model(path)
    model.reshape([batch, 224, 224, 3])
    request = core.compile_model(model, "CPU", config).create_infer_request()
    images = pixels(batch)
    return lambda: request.infer({0: images})


def onnx_network(precision: str, batch: int, path: str):
    import onnxruntime

    if precision != "float32":
        sys.exit("ONNX Runtime computes in float32 only on CPU")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = pixels(batch)
    return lambda: session.run(None, {"images": images})


if __name__ == "__main__":
    main()
