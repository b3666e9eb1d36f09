"""What a run does for a schedule of image sizes: says it, and compiles a step for each in time.

Which share of a run has which size says `config/image_sizes.py`; which step, `Timeline`.
"""

import time
from collections.abc import Callable
from typing import Any

from keras_resnet.training.engine import Engine
from keras_resnet.training.progress import Timeline


def describe_sizes(timeline: Timeline, evaluated: int) -> str:
    """Returns a line on the sizes of a run, "" where there is one alone.

    Args:
        timeline: of the run.
        evaluated: pixels of the images in evaluation.
    """
    *before, last = timeline.segments
    if not before:
        return ""
    parts = [f"{segment.image_size} px until step {segment.end:,}" for segment in before]
    other = "" if evaluated == last.image_size else f"; evaluated at {evaluated} px"
    return f"sizes      {', '.join(parts)}, then {last.image_size} px{other}"


def compile_sizes(
    engine: Engine,
    source: Any,
    timeline: Timeline,
    step: int,
    say: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Compiles the training step for each size of images that is still to come.

    So no step waits for the compiler half way through a run, and a size for which the devices have
    too little memory shows at the start. What compiles is a step on zeros, after which the state is
    put back as from a checkpoint, bit by bit. A run of one size compiles as it begins to train:
    this does nothing.

    Args:
        engine: built.
        source: of the training images.
        timeline: of the run.
        step: where it stands.
        say: told which sizes, and how long each has taken.
        should_stop: asked before each of them.
    """
    sizes = list(dict.fromkeys(size for size, _ in timeline.steps_to_compile(step)))
    if len(sizes) < 2:
        return
    named = f"{', '.join(map(str, sizes[:-1]))} and {sizes[-1]} px"
    say(f"compiling  the training step for {named}, before any of them is needed")
    seconds = dict.fromkeys(sizes, 0.0)
    state = engine.state()
    try:
        for size, frozen in timeline.steps_to_compile(step):
            if should_stop():
                return
            begin = time.perf_counter()
            engine.train(engine.blank_batches(source, size), 1, frozen)
            seconds[size] += time.perf_counter() - begin
    finally:
        engine.load_state(state)
    say(f"compiled   {', '.join(f'{size} px in {took:.1f} s' for size, took in seconds.items())}")
