"""Our networks on CIFAR-10 in a bare JAX loop: many epochs and seeds within minutes on one GPU.

    KERAS_BACKEND=jax python benchmarks/cifar10_jax.py --data=FOLDER --epochs=10 --seeds=0,1,2

The models are this project's, with its own initialization or the one named; the recipe is that of
`configs/cifar10.py` and of `benchmarks/cifar10_torch.py`, whose reading and order of batches it
shares in kind: batches of 128 that run across the borders of epochs, a crop out of 4 pixels of
padding and a flip, SGD with Nesterov momentum 0.9, L2 on the kernels only, one epoch of warm-up and
a cosine. Images and augmentation stay on the device, and an epoch is one compiled loop. Prints a
line of JSON an epoch (seed, epoch, step, loss and top1 of training, top1 on the test images,
images_per_second), the form that `benchmarks/degradation.py` draws. Needs jax and Pillow.
"""

import argparse
import functools
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from PIL import Image

import keras_resnet
from keras_resnet.fused import form_for

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, PADDING, MOMENTUM, WEIGHT_DECAY = 128, 4, 0.9, 1e-4
# What a network starts with; `before` was the default until the CIFAR networks learned at once.
INITIALIZATIONS = {
    "ours": {},
    "zero-gamma": {"zero_init_last_gamma": True},
    "before": {"zero_init_last_gamma": True, "classifier_initializer": "normal"},
}


def read_split(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8[n, 32, 32, 3] and int32[n]: all images of a split, classes in alphabetical order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [
        (path, label) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())
    ]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda file: np.asarray(Image.open(file[0]).convert("RGB")), files))
    return np.stack(images), np.asarray([label for _, label in files], np.int32)


def order(count: int, steps: int, seed: int) -> np.ndarray:
    """int32[steps, BATCH]: a fresh permutation an epoch, batches across their borders."""
    generator = np.random.default_rng(seed)
    epochs = math.ceil(steps * BATCH / count)
    numbers = np.concatenate([generator.permutation(count) for _ in range(epochs)])
    return numbers[: steps * BATCH].reshape(steps, BATCH).astype(np.int32)


def normalize(pixels: jax.Array) -> jax.Array:
    return (pixels / 255.0 - jnp.asarray(MEAN)) / jnp.asarray(STD)


def augment(pixels: jax.Array, key: jax.Array) -> jax.Array:
    """A random crop out of zero padding, and a flip of every second image on average."""
    count, size, _, channels = pixels.shape
    crop_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(crop_key, (count, 2), 0, 2 * PADDING + 1)
    flips = jax.random.bernoulli(flip_key, 0.5, (count,))
    padded = jnp.pad(pixels, ((0, 0), (PADDING,) * 2, (PADDING,) * 2, (0, 0)))

    def one(image, corner, flip):
        crop = jax.lax.dynamic_slice(image, (*corner, 0), (size, size, channels))
        return jnp.where(flip, crop[:, ::-1], crop)

    return jax.vmap(one)(padded, corners, flips)


def make_loop(model: keras.Model, rate_at):
    """Returns the compiled steps from `start` to `stop`: state -> state, sums of loss and hits."""
    decayed = [float("kernel" in variable.path) for variable in model.trainable_variables]

    def loss_of(trainable, frozen, pixels, labels):
        logits, frozen = model.stateless_call(trainable, frozen, pixels, training=True)
        logs = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
        return -logs.mean(), (frozen, (logits.argmax(-1) == labels).sum())

    def step(train, batches, key, number, carry):
        trainable, frozen, velocity, loss_sum, hits = carry
        index = batches[number]
        pixels = normalize(augment(train[0][index], jax.random.fold_in(key, number)))
        (loss, (frozen, right)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, frozen, pixels, train[1][index]
        )
        rate = rate_at(number)
        gradients = [
            g + decay * WEIGHT_DECAY * w
            for g, w, decay in zip(gradients, trainable, decayed, strict=True)
        ]
        velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
        trainable = [
            w - rate * (g + MOMENTUM * v)
            for w, g, v in zip(trainable, gradients, velocity, strict=True)
        ]
        return trainable, frozen, velocity, loss_sum + loss * BATCH, hits + right

    @jax.jit
    def loop(train, batches, key, state, start, stop):
        body = functools.partial(step, train, batches, key)
        *state, loss_sum, hits = jax.lax.fori_loop(start, stop, body, (*state, 0.0, 0))
        return tuple(state), loss_sum, hits

    return loop


def make_accuracy(model: keras.Model, test):
    """Returns the compiled count of right answers on all test images, 1,000 at a time."""
    pixels, labels = test[0].reshape(-1, 1000, *test[0].shape[1:]), test[1].reshape(-1, 1000)

    @jax.jit
    def accuracy(trainable, frozen):
        def part(right, number):
            inputs = normalize(pixels[number])
            logits, _ = model.stateless_call(trainable, frozen, inputs, training=False)
            return right + (logits.argmax(-1) == labels[number]).sum(), None

        return jax.lax.scan(part, 0, jnp.arange(len(pixels)))[0] / test[1].size

    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="train/CLASS/*, test/CLASS/*")
    parser.add_argument("--epochs", type=int, default=164)
    parser.add_argument("--depth", type=int, default=20, choices=[20, 32, 44, 56, 110])
    parser.add_argument("--plain", action="store_true", help="without shortcuts")
    parser.add_argument("--block", choices=["basic", "bottleneck"], default="basic")
    parser.add_argument(
        "--dtype", choices=["float32", "mixed_bfloat16"], default="float32", help="policy of Keras"
    )
    parser.add_argument(
        "--fused-step", choices=["always", "never"], default="never", help="as the config key"
    )
    parser.add_argument(
        "--kernel-scale",
        type=float,
        default=1.0,
        help="factor of all convolutions' kernels at the start; 0.408 is PyTorch's own deviation",
    )
    parser.add_argument("--init", choices=INITIALIZATIONS, default="ours")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seeds", default="0", help="one run for each, comma between")
    options = parser.parse_args()
    train, test = (
        tuple(map(jnp.asarray, read_split(options.data / split))) for split in ("train", "test")
    )
    count = len(train[1])
    steps, warmup = count * options.epochs // BATCH, round(count / BATCH)

    def rate_at(step):
        cosine = 0.5 * (1 + jnp.cos(math.pi * step / steps))
        return options.learning_rate * cosine * jnp.minimum((step + 1) / warmup, 1.0)

    loop = accuracy = None
    for seed in map(int, options.seeds.split(",")):
        model = make_model(options, seed)
        if loop is None:  # the other seeds run the same compiled functions
            loop, accuracy = make_loop(model, rate_at), make_accuracy(model, test)
        run = functools.partial(
            loop, train, jnp.asarray(order(count, steps, seed)), jax.random.key(seed)
        )
        for row in epochs_of(model, run, accuracy, count, options.epochs):
            print(json.dumps({"seed": seed, **row}), flush=True)


def make_model(options: argparse.Namespace, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras_resnet.create_model(
        f"CifarResNet{options.depth}",
        classes=10,
        residual=not options.plain,
        classifier_activation=None,
        block=options.block,
        dtype=options.dtype,
        **INITIALIZATIONS[options.init],
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and options.kernel_scale != 1:
            layer.kernel.assign(layer.kernel * options.kernel_scale)
    model.training_form = form_for(model, options.fused_step, "GPU", "jax")
    return model


def epochs_of(model: keras.Model, run, accuracy, count: int, epochs: int):
    """Trains from the values that `model` holds; yields a row an epoch."""
    trainable = [variable.value for variable in model.trainable_variables]
    frozen = [variable.value for variable in model.non_trainable_variables]
    state, begun = (trainable, frozen, [jnp.zeros_like(value) for value in trainable]), 0
    for epoch in range(1, epochs + 1):
        end, begin = count * epoch // BATCH, time.perf_counter()
        state, loss_sum, hits = jax.block_until_ready(run(state, begun, end))
        images = (end - begun) * BATCH
        yield {
            "epoch": epoch,
            "step": end,
            "loss": float(loss_sum) / images,
            "train_top1": int(hits) / images,
            "top1": float(accuracy(state[0], state[1])),
            "images_per_second": images / (time.perf_counter() - begin),
        }
        begun = end


if __name__ == "__main__":
    main()
