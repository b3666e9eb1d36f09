"""Images per second of a ResNet-50 training step and of inference, side by side.

    python benchmarks/train_step.py --torch-python=/path/to/python-with-torchvision

Contestants, each in a process of its own:

- `keras_resnet`: our `ResNet50` with our batch normalization;
- `keras_resnet, fused`: the same model in the form that `fused_step=always` takes on a CPU and
  `auto` in bfloat16 where the processor has `amx_bf16` (docs/training.md, "A leaner step");
- `keras_resnet, Keras norm`: the same model with `keras.layers.BatchNormalization`;
- `keras.applications`: `keras.applications.ResNet50` (v1, with biases);
- `torchvision`: `torchvision.models.resnet50`, channels last, if `--torch-python` names an
  interpreter that has torch and torchvision (`train_step_torch.py` runs there).

Every step does the same work: forward, mean cross-entropy, backward, SGD with momentum 0.9, on
one fixed batch that is in memory already. Keras runs as a `tf.function` without XLA; bfloat16
means Keras' `mixed_bfloat16` and PyTorch's `autocast`. Rounds are interleaved: each round times
every contestant once, one after the other, so that a slow minute of the machine hits them all,
and each round starts with another one. Printed is a Markdown table of the median over rounds and,
in brackets, the extremes; the ratios are medians of the ratios within a round. Start it on an
idle machine; it says what machine that was.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FUSED = "keras_resnet, fused"
KERAS_CONTESTANTS = ("keras_resnet", FUSED, "keras_resnet, Keras norm", "keras.applications")
TORCH_CONTESTANT = "torchvision"
WORKS = ("training", "inference")


def main() -> None:
    options = parse_arguments()
    if options.worker:
        serve(*build_keras(options))
        return
    contestants = list(options.contestants or KERAS_CONTESTANTS)
    if options.torch_python and TORCH_CONTESTANT not in contestants:
        contestants.append(TORCH_CONTESTANT)
    print(
        f"ResNet-50, batch {options.batch_size}, {options.image_size} px, "
        f"{options.rounds} rounds of {options.steps} steps, images/s. {describe_machine()}\n"
    )
    if FUSED in contestants:
        print(f"{describe_fused()}\n")
    for dtype in options.dtypes:
        print_table(dtype, measure(contestants, dtype, options), options.batch_size)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps timed at a time")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--contestants", nargs="+", choices=KERAS_CONTESTANTS)
    parser.add_argument("--torch-python", help="interpreter that has torch and torchvision")
    parser.add_argument("--worker", choices=KERAS_CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    return parser.parse_args()


def describe_machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if os.name == "posix" else ""
    return f"{model}, {len(os.sched_getaffinity(0))} cores{load}."


def describe_fused() -> str:
    """Whether the form of the row is what training takes by itself on this processor."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    has = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    takes = "takes it in bfloat16" if "amx_bf16" in has else "does not take it"
    return (
        f"{FUSED!r} needs amx_bf16 to be what fused_step=auto takes: this processor has "
        f"{' and '.join(has) or 'neither amx_bf16 nor avx512_bf16'}, so auto {takes}."
    )


def measure(contestants, dtype, options) -> dict[str, dict[str, list[float]]]:
    """Seconds per step: `{contestant: {work: [one entry a round]}}`."""
    workers = {name: Worker(name, dtype, options) for name in contestants}
    try:
        for worker in workers.values():  # builds, traces and warms up, one after the other
            for work in WORKS:
                worker.time(work, steps=2)
        seconds = {name: {work: [] for work in WORKS} for name in contestants}
        for order in turns(workers, options.rounds):
            for work in WORKS:
                for name in order:
                    seconds[name][work].append(workers[name].time(work, options.steps))
    finally:
        for worker in workers.values():
            worker.stop()
    return seconds


class Worker:
    """A contestant in a process: takes a line of JSON with an order, answers with the seconds."""

    def __init__(self, name, dtype, options):
        self.name = name
        command = [sys.executable, str(HERE / "train_step.py"), "--worker", name]
        if name == TORCH_CONTESTANT:
            command = [options.torch_python, str(HERE / "train_step_torch.py")]
        command += ["--dtype", dtype, "--batch-size", str(options.batch_size)]
        command += ["--image-size", str(options.image_size)]
        # Run from anywhere: the package lies beside this folder, installed or not.
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        # oneDNN on every processor, for all of TensorFlow's contestants; PyTorch always has it.
        environment = {"TF_ENABLE_ONEDNN_OPTS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if name != TORCH_CONTESTANT:
            environment |= {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def time(self, work: str, steps: int) -> float:
        """Seconds per step of `steps` steps."""
        try:
            self.process.stdin.write(json.dumps({"work": work, "steps": steps}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(
                f"The process of {self.name!r} ended with status {self.process.wait()}; "
                "its own message is above."
            )
        return json.loads(answer)["seconds_per_step"]

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it may be gone already
            self.process.stdin.close()
        self.process.wait()


def serve(train_step, inference) -> None:
    """Answer the orders on standard input. `train_step_torch.py` speaks the same protocol."""
    for line in sys.stdin:
        order = json.loads(line)
        run = train_step if order["work"] == "training" else inference
        start = time.perf_counter()
        for _ in range(order["steps"]):
            run()
        seconds = (time.perf_counter() - start) / order["steps"]
        print(json.dumps({"seconds_per_step": seconds}), flush=True)


def build_keras(options):
    """Functions without arguments that run a training step and an inference step to their end."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    if options.dtype == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    size = options.image_size
    model = build_model(options.worker, (size, size, 3))
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(options.batch_size, size, size, 3)).astype("float32"))
    labels = tf.constant(rng.integers(0, 1000, options.batch_size))
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=False, autograph=False)
    def train():
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, weights), model.trainable_variables)
        return loss

    @tf.function(jit_compile=False, autograph=False)
    def infer():
        return model(images, training=False)

    # .numpy() waits for the result
    return lambda: train().numpy(), lambda: infer().numpy()


def build_model(contestant, input_shape):
    import keras

    arguments = {"weights": None, "input_shape": input_shape, "classifier_activation": None}
    if contestant == "keras.applications":
        return keras.applications.ResNet50(**arguments)
    import keras_resnet

    model = keras_resnet.create_model("ResNet50", **arguments)
    if contestant == "keras_resnet":
        return model
    if contestant == FUSED:
        from keras_resnet.fused import form_for

        model.training_form = form_for(model, "always", "CPU", "tensorflow")
        return model

    def swap(layer):
        ours = isinstance(layer, keras_resnet.layers.BatchNormalization)
        cls = keras.layers.BatchNormalization if ours else type(layer)
        return cls.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=swap)


def print_table(dtype, seconds, batch_size) -> None:
    """Rates, and how many times faster the first contestant was than each, round by round."""
    first = next(iter(seconds))
    print(f"| {dtype} | training | {first} is faster by | inference | {first} is faster by |")
    print("|---|---|---|---|---|")
    for name, by_work in seconds.items():
        cells = []
        for work in WORKS:
            cells.append(spread([batch_size / s for s in by_work[work]]))
            pairs = zip(by_work[work], seconds[first][work], strict=True)
            ratios = spread([its / ours for its, ours in pairs])
            cells.append("" if name == first else f"{ratios} x")
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def turns(names, rounds: int):
    """The names in each round's order: nobody always runs after the same contestant."""
    names = list(names)
    for number in range(rounds):
        turn = number % len(names)
        yield names[turn:] + names[:turn]


def spread(values, form: str = ".3g") -> str:
    """Median [smallest, largest]."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


if __name__ == "__main__":
    main()
