"""torchvision's ResNet-50 for `train_step.py`, which starts it with an interpreter that has torch.

Same work as there: a fixed batch in memory, mean cross-entropy, SGD with momentum 0.9; channels
last; bfloat16 by autocast. Orders come as lines of JSON on standard input (see
`train_step.serve`).
"""

import argparse
import contextlib
import json
import sys
import time

import torch
import torchvision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", required=True, choices=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    works = build(parser.parse_args())
    for line in sys.stdin:
        order = json.loads(line)
        start = time.perf_counter()
        for _ in range(order["steps"]):
            works[order["work"]]()
        seconds = (time.perf_counter() - start) / order["steps"]
        print(json.dumps({"seconds_per_step": seconds}), flush=True)


def build(options):
    torch.manual_seed(0)
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    model = torchvision.models.resnet50(weights=None).to(memory_format=torch.channels_last)
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (options.batch_size,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def precision():
        if options.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)

    def train():
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with precision():
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    @torch.inference_mode()
    def infer():
        model.eval()
        with precision():
            model(images)

    return {"training": train, "inference": infer}


if __name__ == "__main__":
    main()
