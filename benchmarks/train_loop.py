"""What the training loop costs: images/s of `train` against the bare compiled step.

    python benchmarks/train_loop.py --config=cifar10 --steps=50 \
        data.source=image_folder data.path=FOLDER

Both train the network of a config, in one process and in turns, so that a slow minute hits them
alike. `step` is the compiled step on one batch that is in memory. `train` is the loop of
`keras-resnet train`: the input pipeline, the metrics, their file and TensorBoard's, the progress.
Arguments after the options are KEY=VALUE of the config. Printed is a Markdown table of images/s,
the median over the rounds, the slowest and the fastest, and the same of the ratio.
"""

import argparse
import tempfile
import time
from ast import literal_eval

from train_step import describe_machine, spread

from keras_resnet import training
from keras_resnet.commands.benchmark.step_timing import fixed_batches
from keras_resnet.training.callbacks import Callbacks, RunInfo
from keras_resnet.training.data import open_sources
from keras_resnet.training.evaluation import make_steps_per_call
from keras_resnet.training.events import TensorBoard
from keras_resnet.training.metrics import Window
from keras_resnet.training.progress import Timeline
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.say import say
from keras_resnet.training.schedules import learning_rate_at, make_schedule
from keras_resnet.training.tensorflow import TensorFlowEngine
from keras_resnet.training.workdir import WorkDir


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="cifar10")
    parser.add_argument("--steps", type=int, default=50, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    overrides = dict(pair.split("=", 1) for pair in options.overrides)
    config = training.load_config(
        options.config, {key: _value(text) for key, text in overrides.items()}
    )
    engine = TensorFlowEngine(config)
    train_source, _ = open_sources(config)
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(engine, train_source, WorkDir(folder), options.steps, options.rounds)
    print(
        f"{config.model.name}, {config.data.image_size} px, batch {config.batch_size}, "
        f"{options.rounds} rounds of {options.steps} steps, {train_source.description}. "
        f"{describe_machine()}\n"
    )
    print("| | images/s |\n|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {spread(values, ',.1f')} |")
    ratios = [loop / step for loop, step in zip(rates["train"], rates["step"], strict=True)]
    print(f"| train / step | {spread(ratios, '.3f')} |")


def _value(text: str):
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def measure(engine, source, workdir: WorkDir, steps: int, rounds: int) -> dict[str, list[float]]:
    """Images/s of each round."""
    config, timeline = engine.config, Timeline(engine.config, source.num_examples)
    if timeline.total_steps < (rounds + 1) * steps:
        raise SystemExit("The run is too short: more epochs, or fewer rounds.")
    schedule, steps_per_call = make_schedule(config, timeline), make_steps_per_call(engine)
    engine.build(source.class_names, schedule)
    fixed, batches = fixed_batches(engine), engine.train_batches(source, 0, timeline.total_steps)
    rates = {"step": [], "train": []}
    images = steps * config.batch_size
    callbacks = Callbacks(say)
    callbacks.start(
        [("TensorBoard", TensorBoard(workdir.tensorboard))],
        RunInfo("", str(workdir.path), {}, 0, timeline.total_steps, source.class_names),
    )
    reporter = Reporter(workdir, config, engine.model, timeline, 0, say, callbacks=callbacks)
    with reporter:

        def run_loop() -> float:
            """Goes on to the next multiple of `steps`, as `run.train` does without saving."""
            begin = time.perf_counter()
            window = Window(batches.position)
            end = window.step + steps
            while window.step < end:
                stop = min(end, timeline.next_stop(window.step, 0))
                count, called = steps_per_call.choose(stop - window.step), time.perf_counter()
                sums = engine.train(batches, count)
                window.add(sums, seconds := time.perf_counter() - called)
                steps_per_call.took(count, seconds)
                if window.step == stop:
                    rate = learning_rate_at(schedule, stop - 1)
                    reporter.trained(stop, window.means(), rate)
                    window = Window(stop)
            return time.perf_counter() - begin

        def run_step() -> float:
            begin = time.perf_counter()
            engine.train(fixed, steps)
            return time.perf_counter() - begin

        run_loop(), run_step()  # compile and warm up
        for _ in range(rounds):
            rates["step"].append(images / run_step())
            rates["train"].append(images / run_loop())
    return rates


if __name__ == "__main__":
    main()
