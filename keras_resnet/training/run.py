"""A run from start to end: `train`, `evaluate` and `predict` on a work directory."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.config import source_options
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.corrupt_images import describe
from keras_resnet.storage import read_json, replacing, write_text
from keras_resnet.training.finetuning import read_pretrained, take_over_preprocessing
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.session import Session
from keras_resnet.training.tensorflow.agreement import check_agreement, wait_for_all
from keras_resnet.training.tensorflow.checkpoints import Checkpoints, Progress
from keras_resnet.training.tensorflow.cluster import explain_lost_hosts
from keras_resnet.training.tensorflow.strategy import check_pod, is_chief, strategy_of
from keras_resnet.training.tensorflow.strategy import describe as describe_strategy
from keras_resnet.training.tensorflow.trainer import Trainer
from keras_resnet.training.workdir import WorkDir

PREDICT_BATCH = 32


@explain_lost_hosts()
def train(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the network of `config` in `workdir`, from its newest checkpoint if there is one.

    Args:
        config: of the run.
        workdir: a folder of this machine, or gs://BUCKET/FOLDER.

    Returns:
        The content of result.json: top1, top5, loss, examples, step, train_images_per_second, and
        with data.on_error=skip skipped_train_images and skipped_eval_images: the broken images that
        this host met since the command was started.

    Raises:
        UserError: the work directory, the devices or a checkpoint cannot be used, or another host
            of a multi_worker run went away.
        input_pipeline.DataError: the data set cannot be used.
    """
    check_pod(config, workdir)
    workdir = WorkDir(workdir)
    config = take_over_preprocessing(config, workdir)
    workdir.check(config)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_of(config)
    train_source, eval_source = open_sources(config)
    started = workdir.is_begun()
    weights = None if started or not config.model.weights else read_pretrained(config)
    trainer = Trainer(
        config, strategy, train_source.class_names, train_source.num_examples, weights
    )
    checkpoints = Checkpoints(
        workdir.checkpoints,
        trainer.trackables(),
        keep=config.checkpoint.keep,
        writes=is_chief(strategy),
    )
    with _own_outputs(workdir, strategy) as outputs:
        # Only now: a start that failed on a wrong path must not bind the folder to that config.
        outputs.claim(config)
        with outputs.locked():
            result = _train(outputs, trainer, checkpoints, train_source, eval_source)
            wait_for_all(strategy)
            return result


@contextlib.contextmanager
def _own_outputs(workdir: WorkDir, strategy: tf.distribute.Strategy) -> Iterator[WorkDir]:
    """Yields where this host writes: the work directory, or a copy that nobody will read."""
    if is_chief(strategy):
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = WorkDir(folder)
        if workdir.metrics.exists():
            copy.metrics.write_text(workdir.metrics.read_text())
        yield copy


def _train(
    workdir: WorkDir, trainer: Trainer, checkpoints: Checkpoints, train_source, eval_source
) -> dict[str, float]:
    _remember_dataset(workdir, train_source, eval_source)
    progress = checkpoints.restore_newest() or Progress()
    check_agreement(trainer.strategy, progress.step)
    reporter = Reporter(workdir, trainer, progress.step, speaks=is_chief(trainer.strategy))
    reporter.introduce(describe_strategy(trainer.strategy), train_source, eval_source)
    with reporter:
        Session(trainer, checkpoints, reporter, train_source, eval_source, progress).run()
    return _finish(workdir, trainer, reporter, train_source, eval_source)


def _finish(
    workdir: WorkDir, trainer: Trainer, reporter: Reporter, train_source, eval_source
) -> dict:
    before = read_json(workdir.result)
    if reporter.start >= trainer.total_steps and before is not None and workdir.model.exists():
        reporter.say(f"This run is finished ({trainer.total_steps} steps); evaluating it again.")
        result = {**before, **trainer.evaluate(eval_source)}
        used = {"eval": eval_source}
    else:
        if trainer.labels_and_predictions is None:  # resumed between the last step and here
            trainer.evaluate(eval_source)
        result = {
            **reporter.last_evaluation(),
            "step": trainer.total_steps,
            "train_images_per_second": reporter.images_per_second(),
        }
        with replacing(workdir.model) as temporary:
            trainer.inference_model().save(temporary)
        reporter.draw_curves()
        used = {"train": train_source, "eval": eval_source}
    for split, source in used.items():
        if source.skipped is not None:
            result[f"skipped_{split}_images"] = len(source.skipped)
    reporter.draw_confusion()
    write_text(workdir.result, reporter.to_json(result))
    reporter.conclude(result)
    return result


def open_sources(config: ConfigDict) -> tuple[input_pipeline.Source, input_pipeline.Source]:
    """Opens the training and the evaluation split; raises DataError unless their classes agree."""
    train_source = open_source(config, config.data.train_split)
    eval_source = open_source(config, config.data.eval_split)
    if train_source.class_names != eval_source.class_names:
        differing = sorted(set(train_source.class_names) ^ set(eval_source.class_names))
        raise input_pipeline.DataError(
            f"the classes of {config.data.train_split} and {config.data.eval_split} differ: "
            f"{', '.join(differing[:10])} in only one of them"
        )
    return train_source, eval_source


def open_source(config: ConfigDict, split: str) -> input_pipeline.Source:
    """Opens one split of the data set of `data.*`."""
    return input_pipeline.open_source(split=split, **source_options(config))


def _remember_dataset(workdir: WorkDir, train_source, eval_source) -> None:
    """Writes dataset.json, or checks that the data set is still the one the run began with."""
    now = {
        "classes": list(train_source.class_names),
        "train_examples": train_source.num_examples,
        "eval_examples": eval_source.num_examples,
    }
    before = read_json(workdir.dataset)
    if before is not None and before != now:
        changed = [key for key in now if before.get(key) != now[key]]
        values = [f"{key} {before.get(key)!r} -> {now[key]!r}" for key in changed]
        raise UserError(
            f"the data set is not the one this run began with: {'; '.join(values)}. "
            "Bring it back, or take another --workdir"
        )
    write_text(workdir.dataset, Reporter.to_json(now))


def restore(
    config: ConfigDict, workdir: WorkDir, checkpoint: str = "newest"
) -> tuple[Trainer, int]:
    """Returns a trainer for inference with a checkpoint of `workdir`, and its step.

    Args:
        config: the run's, with what has moved since.
        workdir: of the run.
        checkpoint: "newest", or "best": the one with the highest top-1 in evaluation.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    classes = workdir.read_dataset()["classes"]
    trainer = Trainer(config, strategy_of(config), classes)
    checkpoints = Checkpoints(workdir.checkpoints, trainer.trackables())
    restore = {"newest": checkpoints.restore_newest, "best": checkpoints.restore_best}[checkpoint]
    progress = restore()
    if progress is None:
        raise UserError(f"{workdir.checkpoints}: no checkpoint yet; train first")
    return trainer, progress.step


@explain_lost_hosts()
def evaluate(config: ConfigDict, workdir: WorkDir, checkpoint: str = "newest") -> dict[str, float]:
    """Evaluates a checkpoint (see `restore`); returns top1, top5, loss, examples and step."""
    check_pod(config, workdir.path)
    trainer, step = restore(config, workdir, checkpoint)
    source = open_source(config, config.data.eval_split)
    _check_classes(source, trainer.model.class_names)
    return {**trainer.evaluate(source), "step": step}


def _check_classes(source: input_pipeline.Source, class_names: list[str]) -> None:
    """Raises DataError unless the data set has the classes of the network, in their order."""
    theirs = list(source.class_names)
    if theirs == class_names:
        return
    if len(theirs) != len(class_names):
        how = f"it has {len(theirs)} classes, the network {len(class_names)}"
    else:
        index = next(i for i, name in enumerate(theirs) if name != class_names[i])
        how = f"its class {index} is {theirs[index]!r}, the network's is {class_names[index]!r}"
    raise input_pipeline.DataError(
        f"{source.description}: not the classes this run was trained on: {how}. Point "
        "config.data.* at data with these classes, or fine-tune with config.model.weights"
    )


def describe_result(result: dict[str, float]) -> str:
    """Returns the line of figures that ends training and evaluation."""
    return (
        f"top1 {result['top1']:.4f}  top5 {result['top5']:.4f}  loss {result['loss']:.4f}  "
        f"on {result['examples']:,} examples at step {result['step']:,}"
    )


def predict(
    config: ConfigDict, workdir: WorkDir, paths: Sequence[str], top: int
) -> Iterator[tuple[str, list[dict]]]:
    """Yields (path, rows) for each image file, rows being the `top` classes by probability.

    A row is {"class": name, "class_id": index, "probability": 0..1}.

    Raises:
        input_pipeline.DataError: a file is no readable image.
    """
    trainer, _ = restore(config, workdir)
    model, names = trainer.model, trainer.model.class_names
    for first in range(0, len(paths), PREDICT_BATCH):
        chunk = paths[first : first + PREDICT_BATCH]
        images = tf.stack([_read_image(path, model.preprocessing) for path in chunk])
        inputs = input_pipeline.normalize(images, model.preprocessing, dtype=model.compute_dtype)
        with trainer.averaged_weights():
            logits = tf.cast(model(inputs, training=False), tf.float32)
        values, ids = tf.math.top_k(tf.nn.softmax(logits), min(top, len(names)))
        for path, probabilities, classes in zip(chunk, values.numpy(), ids.numpy(), strict=True):
            yield (
                path,
                [
                    {"class": names[index], "class_id": int(index), "probability": float(value)}
                    for index, value in zip(classes, probabilities, strict=True)
                ],
            )


def _read_image(path: str, preprocessing: dict) -> tf.Tensor:
    encoded = Path(path).read_bytes()
    try:
        return input_pipeline.evaluation_image(tf.constant(encoded), preprocessing)
    except tf.errors.OpError as error:
        raise input_pipeline.DataError(f"{path} {describe(encoded, error)}") from error
