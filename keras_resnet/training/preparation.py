"""What a run consists of, and how it comes together: devices, data, model, restore.

`run.py` trains with it. What is asked of a run while it goes on stands here as `Run`.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config import evaluation_image_size, merge
from keras_resnet.config.schema import flatten
from keras_resnet.errors import UserError
from keras_resnet.training import callbacks
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.class_balance import class_weights, describe_balance
from keras_resnet.training.data import open_sources, open_test_source, remember_dataset
from keras_resnet.training.distillation import Teacher
from keras_resnet.training.engine import Engine, find_engine
from keras_resnet.training.evaluation import AnyEvaluation, make_steps_per_call
from keras_resnet.training.events import TensorBoard
from keras_resnet.training.finetuning import read_pretrained, take_over_preprocessing
from keras_resnet.training.interruption import Interruption
from keras_resnet.training.introduction import check_same_data
from keras_resnet.training.metrics import DISTILLATION, LABEL_SET_SUMS, SUMS
from keras_resnet.training.progress import Progress, Timeline
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.resumption import describe_resumption
from keras_resnet.training.say import Say
from keras_resnet.training.schedules import make_schedule, plateau_of
from keras_resnet.training.sizes import describe_sizes
from keras_resnet.training.split_lists import remember_splits
from keras_resnet.training.steps_per_call import StepsPerCall
from keras_resnet.training.teachers import (
    check_still_taught,
    describe_teacher,
    is_probably_through,
    remember_teacher,
    teacher_of_run,
)
from keras_resnet.training.workdir import WorkDir


@dataclasses.dataclass
class Run:
    """What a run consists of, and how far it is."""

    config: ConfigDict
    outputs: WorkDir  # the work directory, or on other hosts than the first a copy nobody reads
    engine: Engine
    say: Say
    train_source: Any
    eval_source: Any
    test_source: Any  # None without data.test_split
    timeline: Timeline
    schedule: Any
    checkpoints: Checkpoints
    progress: Progress
    reporter: Reporter
    callbacks: callbacks.Callbacks
    interruption: Interruption
    check_lock: Callable[[], None]  # raises if another process has taken over
    train_steps_per_call: StepsPerCall
    eval_steps_per_call: StepsPerCall
    saved_step: int
    rollbacks_in_a_row: int = 0
    stopping: bool = False
    evaluation: AnyEvaluation | None = None  # the last one

    @property
    def sums(self) -> tuple[str, ...]:
        """What each step of the engine counts, in its order."""
        names = LABEL_SET_SUMS if self.config.data.multi_label else SUMS
        return (*names, DISTILLATION) if self.config.distill.teacher else names

    @property
    def stopped_early(self) -> bool:
        """Whether evaluations have brought nothing better for `early_stopping.patience`."""
        return self.progress.stops_early(self.config.early_stopping.patience)

    @property
    def is_over(self) -> bool:
        """Whether there is no step left to train."""
        return self.stopped_early or self.progress.step >= self.timeline.total_steps

    def follow_evaluations(self) -> None:
        """Gives the learning rate what `progress` says of reductions by the plateau schedule."""
        if plateau := plateau_of(self.schedule):
            plateau.reduced(self.progress.rate_reductions)


def prepare(
    config: ConfigDict,
    path: str | os.PathLike,
    closing: contextlib.ExitStack,
    say: Say,
    given: Sequence[tuple[str, callbacks.Callback]] = (),
) -> Run:
    """Returns a run that is ready to train; what has to be left at its end goes on `closing`.

    `given` are the callbacks besides those that the config names, each with its name.
    """
    # Devices, after all that can be refused without them.
    engine_type = find_engine(config)
    engine_type.check(config, path)
    workdir = WorkDir(path)
    config = take_over_preprocessing(workdir.keep_older_defaults(config), workdir)
    config, begun = _keep_precision(config, workdir), workdir.is_begun()
    workdir.check(config)
    check_still_taught(config, workdir)
    engine = engine_type(config)
    resolved, config = engine.config is not config, engine.config
    closing.enter_context(engine.explain_lost_hosts())
    say.enabled = say.enabled and engine.is_chief
    closing.enter_context(say.speaks_for("input_pipeline"))

    # Data
    # Where another host has no such folder, it decodes in every epoch, to the same pixels.
    kept_in = str(workdir.decoded) if engine.is_chief else ""
    train_source, eval_source = open_sources(config, kept_in)
    test_source = open_test_source(config, train_source.class_names, kept_in)
    check_same_data(engine, train_source, eval_source, test_source)
    timeline = Timeline(config, train_source.num_examples)

    # Model
    schedule = make_schedule(config, timeline)
    weights = None if begun or not config.model.weights else read_pretrained(config)
    engine.build(
        train_source.class_names, schedule, weights, say, class_weights(config, train_source)
    )
    teacher = None
    if not is_probably_through(config, workdir):
        teacher = teacher_of_run(engine, workdir, train_source.class_names, say)
    checkpoints = engine.checkpoints(workdir.checkpoints, say)
    checkpoints.refuse_older()

    # Restore. Only now: a start that failed on a wrong path must not bind the folder to its config.
    outputs = closing.enter_context(_outputs(workdir, engine.is_chief))
    check_lock = closing.enter_context(outputs.locked(say))
    say.keep_log(outputs.log)
    outputs.remove_leftovers()
    remember_teacher(outputs, teacher)
    changed = outputs.claim(config)
    changed |= remember_dataset(outputs, train_source, eval_source, test_source)
    sources = {"train": train_source, "eval": eval_source, "test": test_source}
    for line in remember_splits(outputs, config, sources):
        say(line)
    progress = checkpoints.restore_newest() or Progress()
    for line in describe_resumption(config, changed, timeline, progress.step):
        say(line)
    _check_start(engine, checkpoints, progress)
    over = progress.step >= timeline.total_steps
    over = over or progress.stops_early(config.early_stopping.patience)
    if not over:  # without a teacher, though it has one: the newest checkpoint was damaged
        teacher = teacher or teacher_of_run(engine, workdir, train_source.class_names, say)
        if teacher is not None:
            engine.teach(teacher)
    told = closing.enter_context(callbacks.Callbacks(say))
    run = Run(
        config=config,
        outputs=outputs,
        engine=engine,
        say=say,
        train_source=train_source,
        eval_source=eval_source,
        test_source=test_source,
        timeline=timeline,
        schedule=schedule,
        checkpoints=checkpoints,
        progress=progress,
        reporter=Reporter(outputs, config, engine.model, timeline, progress.step, say, over, told),
        callbacks=told,
        interruption=Interruption(say),
        check_lock=check_lock,
        train_steps_per_call=make_steps_per_call(engine),
        eval_steps_per_call=make_steps_per_call(engine),
        saved_step=progress.step,
    )
    run.follow_evaluations()
    _introduce(run, resolved, None if over else teacher)
    _start_callbacks(run, given)
    return run


def _introduce(run: Run, resolved_precision: bool, teacher: Teacher | None) -> None:
    """Says what is about to run."""
    sources = (run.train_source, run.eval_source, run.test_source)
    run.reporter.introduce(run.engine.description, *sources)
    if resolved_precision:
        run.say(_describe_precision(run.config.precision))
    if line := describe_sizes(run.timeline, evaluation_image_size(run.config)):
        run.say(line)
    for line in describe_teacher(run.config, teacher):
        run.say(line)
    for line in describe_balance(run.config, run.train_source):
        run.say(line)


def _start_callbacks(run: Run, given: Sequence[tuple[str, callbacks.Callback]]) -> None:
    """Lets TensorBoard and the callbacks of the config and of the program follow the run."""
    if not run.engine.is_chief:
        return
    model = run.engine.model if run.config.tensorboard.histograms else None
    own = ("TensorBoard", TensorBoard(run.outputs.tensorboard, model))
    named = [*callbacks.load(run.config.training.callbacks, run.say), *given]
    if named:
        run.say(f"callbacks  {', '.join(name for name, _ in named)}")
    info = callbacks.RunInfo(
        id=run.outputs.keep_id() if named else "",
        workdir=str(run.outputs.path),
        config=dict(flatten(run.config)),
        step=run.progress.step,
        total_steps=run.timeline.total_steps,
        class_names=tuple(run.train_source.class_names),
    )
    run.callbacks.start([own, *named], info)


def _keep_precision(config: ConfigDict, workdir: WorkDir) -> ConfigDict:
    """Returns `config`, in place of precision=auto with what it came to when the run began."""
    if config.precision != "auto" or not workdir.is_begun():
        return config
    recorded = {"precision": workdir.read_config().precision}
    return merge(config.copy_and_resolve_references(), recorded, str(workdir.config))


def _describe_precision(precision: str) -> str:
    how = "multiplies" if precision == "mixed_bfloat16" else "does not multiply"
    return (
        f"precision  {precision}, as precision=auto: the device {how} bfloat16 natively. The run "
        "keeps it, wherever it resumes"
    )


@contextlib.contextmanager
def _outputs(workdir: WorkDir, is_chief: bool) -> Iterator[WorkDir]:
    """Yields where this host writes: the work directory, or a copy that nobody will read."""
    if is_chief:
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = WorkDir(folder)
        if workdir.metrics.exists():
            copy.metrics.write_text(workdir.metrics.read_text())
        yield copy


def _check_start(engine: Engine, checkpoints: Checkpoints, progress: Progress) -> None:
    """Raises UserError unless all hosts begin at the same step; saves what to roll back to."""
    step = progress.step
    if engine.any_host(engine.mean(float(step)) != step):
        raise UserError(
            f"this host begins at step {step:,}, another one elsewhere: --workdir must be a folder "
            "that all hosts share"
        )
    if engine.config.on_nonfinite == "rollback" and not checkpoints.steps():
        checkpoints.save(progress)  # there must be something to go back to
