"""Images per second of ResNet-50 on one GPU: the JAX engine's step, flax, and torch.compile.

    pip install 'keras-resnet-tpu[jax]' 'jax[cuda12]' flax optax      (no TensorFlow is needed)
    pip install torch torchvision                                      (for that row)
    python benchmarks/gpu.py                                           (under five minutes)

Contestants, each in a process of its own that has the GPU alone:

- `keras_resnet`: the very program that `keras-resnet train --config.engine=jax` runs on one device;
- `flax`: the network of flax's ImageNet example (ResNet50, v1.5, zero gamma at the end of a block),
  with optax, as one donated `jax.jit`;
- `torch.compile`: torchvision's ResNet-50, channels last, bfloat16 autocast.

Each step does the same work: 224 px, bfloat16 with weights in float32, mean cross-entropy, SGD with
momentum 0.9 and weight decay 1e-4 on the kernels, one batch of noise that is on the device already.
Inference is the network alone, at batch 1 and at the batch of training. Each contestant warms up,
then times its rounds; printed are medians, slowest and fastest round, and ratios of medians. They
are not interleaved, as compiled programs of this size do not share a GPU's memory: run it twice if
the spread is wide. `--image-size=64 --batch-size=8 --dtype=float32 --steps=2` runs on a CPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONTESTANTS = ("keras_resnet", "flax", "torch.compile")
CLASSES = 1000
DECAY, MOMENTUM, RATE = 1e-4, 0.9, 0.1


def main() -> None:
    options = parse_arguments()
    if options.worker:
        for row in BUILDERS[options.worker](options):
            print("ROW " + json.dumps(row), flush=True)
        return
    rows = []
    for name in options.contestants:
        begin = time.perf_counter()
        rows += run_worker(name)
        print(f"# {name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print_table(rows, options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument(
        "--fused-step", choices=["auto", "always", "never"], default="auto", help="of keras_resnet"
    )
    parser.add_argument("--only-training", action="store_true", help="no inference")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_worker(name: str) -> list[dict]:
    """Runs a contestant; one that cannot run is said and left out."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--worker={name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        print(f"{name} does not run: {lines[-1]}", file=sys.stderr)
    return [json.loads(row.removeprefix("ROW ")) for row in rows]


def timed(
    name: str, work: str, images: int, options: argparse.Namespace, run: Callable[[int], object]
) -> dict:
    """Returns a row; `run(steps)` returns when the device is done."""
    begin = time.perf_counter()
    run(1)
    first = time.perf_counter() - begin
    run(options.steps)
    rates = []
    for _ in range(options.rounds):
        begin = time.perf_counter()
        run(options.steps)
        rates.append(images * options.steps / (time.perf_counter() - begin))
    return {"name": name, "work": work, "rates": rates, "first_seconds": first}


def print_table(rows: list[dict], options: argparse.Namespace) -> None:
    devices = {row["device"] for row in rows}
    print(
        f"ResNet-50, {options.image_size} px, {options.dtype}, {options.rounds} rounds of "
        f"{options.steps} steps, images/s, on {', '.join(sorted(devices))}\n"
    )
    works = list(dict.fromkeys(row["work"] for row in rows))
    for work in works:
        found = [row for row in rows if row["work"] == work]
        ours = next((row for row in found if row["name"] == "keras_resnet"), None)
        print(f"| {work} | images/s | slowest to fastest | ours / it | first call |")
        print("|---|---|---|---|---|")
        for row in found:
            rate = statistics.median(row["rates"])
            ratio = f"{statistics.median(ours['rates']) / rate:.2f}" if ours else ""
            print(
                f"| {row['name']} | {rate:,.0f} | {min(row['rates']):,.0f} to "
                f"{max(row['rates']):,.0f} | {ratio} | {row['first_seconds']:.0f} s |"
            )
        print()


def keras_resnet(options: argparse.Namespace) -> Iterator[dict]:
    """The engine's own `Steps`, whose state goes from step to step."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding

    from keras_resnet.config import check, load_config, merge
    from keras_resnet.training.jax.mesh import AXIS, EVERYWHERE, split_over
    from keras_resnet.training.jax.step import State, Steps
    from keras_resnet.training.network import build_model
    from keras_resnet.training.optimizers import make_optimizer

    changes = {
        "batch_size": options.batch_size,
        "precision": "float32" if options.dtype == "float32" else "mixed_bfloat16",
        "data.image_size": options.image_size,
        "fused_step": options.fused_step,
        "log_gradient_norms": "off",
        "optimizer.weight_decay": DECAY,
        "loss.label_smoothing": 0.0,
    }
    config = check(merge(load_config("resnet50_imagenet"), changes, "benchmark"))
    model = build_model(config, [str(number) for number in range(CLASSES)])
    optimizer = make_optimizer(config, RATE, model)
    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    steps = Steps(model, optimizer, mesh, config)
    everywhere = NamedSharding(mesh, EVERYWHERE)
    groups = (steps.trained, steps.rest, optimizer.variables)
    state = State(*(_copies(group, everywhere) for group in groups), averages=[])
    weights = _copies(model.variables, everywhere)
    batch = {
        name: jax.device_put(value, split_over(mesh)) for name, value in noise(options).items()
    }

    def train(count: int) -> None:
        nonlocal state
        steps.train(state, _forever(batch), count)
        state = steps.latest

    device = jax.devices()[0].device_kind
    yield timed("keras_resnet", "training", options.batch_size, options, train) | {"device": device}

    @jax.jit
    def infer(weights, images):
        import keras

        mapping = list(zip(model.variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return model(images.astype(model.compute_dtype) / 255, training=False)

    def answer(images):
        return infer(weights, images)

    yield from inference("keras_resnet", options, batch["image"], answer, device)


def flax(options: argparse.Namespace) -> Iterator[dict]:
    """examples/imagenet of flax: models.py and train.py, with the optimizer of this benchmark."""
    from functools import partial

    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    dtype = jnp.dtype(options.dtype)

    class Block(nn.Module):
        filters: int
        strides: int

        @nn.compact
        def __call__(self, x, train):
            conv = partial(nn.Conv, use_bias=False, dtype=dtype)
            norm = partial(
                nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype
            )
            y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
            y = nn.relu(norm()(conv(self.filters, (3, 3), (self.strides,) * 2)(y)))
            y = norm(scale_init=nn.initializers.zeros)(conv(self.filters * 4, (1, 1))(y))
            if x.shape != y.shape:
                x = norm()(conv(self.filters * 4, (1, 1), (self.strides,) * 2)(x))
            return nn.relu(x + y)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(64, (7, 7), (2, 2), [(3, 3)] * 2, use_bias=False, dtype=dtype)(x)
            x = nn.BatchNorm(
                use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype
            )(x)
            x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding="SAME")
            for stage, blocks in enumerate((3, 4, 6, 3)):
                for block in range(blocks):
                    x = Block(64 * 2**stage, 2 if stage and not block else 1)(x, train)
            x = jnp.mean(x, axis=(1, 2))
            return jnp.asarray(nn.Dense(CLASSES, dtype=dtype)(x), jnp.float32)

    network = Network()
    batch = {name: jax.device_put(value) for name, value in noise(options).items()}
    pixels = jnp.zeros((1, options.image_size, options.image_size, 3), dtype)
    variables = jax.jit(partial(network.init, train=False))(jax.random.key(0), pixels)
    kernels = jax.tree.map(lambda value: value.ndim > 1, variables["params"])
    optimizer = optax.chain(
        optax.add_decayed_weights(DECAY, kernels), optax.sgd(RATE, momentum=MOMENTUM)
    )
    state = [variables["params"], variables["batch_stats"], optimizer.init(variables["params"])]

    @partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        params, stats, slots = state
        images = batch["image"].astype(dtype) / 255

        def loss_of(params):
            logits, changed = network.apply(
                {"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return losses.mean(), changed["batch_stats"]

        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, slots = optimizer.update(gradients, slots, params)
        return [optax.apply_updates(params, updates), stats, slots], loss

    def train(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, loss = step(state, batch)
        loss.block_until_ready()

    device = jax.devices()[0].device_kind
    yield timed("flax", "training", options.batch_size, options, train) | {"device": device}

    @jax.jit
    def infer(state, images):
        values = {"params": state[0], "batch_stats": state[1]}
        return network.apply(values, images.astype(dtype) / 255, False)

    yield from inference("flax", options, batch["image"], lambda x: infer(state, x), device)


def torch_compile(options: argparse.Namespace) -> Iterator[dict]:
    """torchvision.models.resnet50 under torch.compile."""
    import torch
    import torchvision

    cuda = torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.resnet50(num_classes=CLASSES)
    model = model.to(place, memory_format=torch.channels_last)
    kernels = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    compiled = torch.compile(model)
    batch = {name: torch.from_numpy(value).to(place) for name, value in noise(options).items()}
    images = batch["image"].permute(0, 3, 1, 2)  # channels last in memory
    labels, autocast = batch["label"].long(), options.dtype == "bfloat16"

    def forward(pixels):
        with torch.autocast(place.type, torch.bfloat16, enabled=autocast):
            return compiled(pixels.float() / 255)

    def finish() -> None:
        if cuda:
            torch.cuda.synchronize()

    def train(count: int) -> None:
        model.train()
        for _ in range(count):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        finish()

    device = torch.cuda.get_device_name() if cuda else "cpu"
    name = "torch.compile"
    yield timed(name, "training", options.batch_size, options, train) | {"device": device}
    if options.only_training:
        return
    model.eval()
    for size in dict.fromkeys((1, options.batch_size)):

        def infer(count: int, pixels=images[:size]) -> None:
            with torch.inference_mode():
                for _ in range(count):
                    forward(pixels)
            finish()

        row = timed(name, f"inference, batch {size}", size, options, infer)
        yield row | {"device": device}


def inference(name, options, images, infer, device) -> Iterator[dict]:
    """Rows for batch 1 and the batch of training, of a function of images on JAX."""
    if options.only_training:
        return
    for size in dict.fromkeys((1, options.batch_size)):

        def run(count: int, pixels=images[:size]) -> None:
            for _ in range(count):
                answer = infer(pixels)
            answer.block_until_ready()

        yield timed(name, f"inference, batch {size}", size, options, run) | {"device": device}


def noise(options: argparse.Namespace) -> dict:
    """A batch in memory: uint8 images, as a pipeline delivers them, and int32 labels."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    return {
        "image": random.integers(0, 256, shape, np.uint8),
        "label": random.integers(0, CLASSES, options.batch_size, np.int32),
    }


def _copies(variables, sharding) -> list:
    """The values of variables in memory of their own, as a donated state has to be."""
    import jax
    import numpy as np

    return [jax.device_put(np.array(variable.value), sharding) for variable in variables]


def _forever(batch: dict) -> Iterator[dict]:
    while True:
        yield batch


BUILDERS = {"keras_resnet": keras_resnet, "flax": flax, "torch.compile": torch_compile}


if __name__ == "__main__":
    main()
