"""Peak memory and time of a training step, with and without `rematerialize`.

    python benchmarks/rematerialize.py --model CifarResNet1001V2 --batch_size 64

Each case runs in a process of its own: SGD steps in TensorFlow's graph mode, float32, random
images of the variant's native size. Memory is the peak resident set of the whole process
(`getrusage`), the interpreter and the libraries included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts KiB


def measure(model_name: str, batch_size: int, rematerialize: bool, steps: int) -> dict:
    """Build, trace and train; seconds and MiB of each."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    from keras_resnet.models import create_model

    imported = peak_mib()
    start = time.perf_counter()
    model = create_model(model_name, classifier_activation=None, rematerialize=rematerialize)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)
    build_seconds = time.perf_counter() - start
    variables = [v.value for v in model.trainable_variables]

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(loss)
        optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
        return loss

    images = tf.random.stateless_normal((batch_size, *model.input_shape[1:]), seed=(0, 0))
    labels = tf.range(batch_size) % model.output_shape[-1]
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = float(step(images, labels))
        seconds.append(time.perf_counter() - start)
    return {
        "rematerialize": rematerialize,
        "build_seconds": round(build_seconds, 1),
        "first_step_seconds": round(seconds[0], 1),
        "step_seconds": round(min(seconds[1:]), 2),
        "imports_mib": imported,
        "peak_mib": peak_mib(),
        "loss": loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="CifarResNet1001V2")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--case", choices=("with", "without"), help="one case, in this process")
    options = parser.parse_args()
    if options.case:
        with_it = options.case == "with"
        print(json.dumps(measure(options.model, options.batch_size, with_it, options.steps)))
        return
    peaks = []
    for case in ("without", "with"):
        command = [sys.executable, __file__, *sys.argv[1:], "--case", case]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(f"{options.model}, batch {options.batch_size}: {result.strip()}", flush=True)
        peaks.append(json.loads(result)["peak_mib"])
    print(f"peak memory falls by {1 - peaks[1] / peaks[0]:.0%}")


if __name__ == "__main__":
    main()
