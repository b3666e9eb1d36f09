"""A run from start to end: `train`, `evaluate` and `predict` on a work directory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from ml_collections import ConfigDict

import input_pipeline
from input_pipeline.broken import describe
from keras_resnet.errors import UserError
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.schedules import learning_rate_at
from keras_resnet.training.strategy import check_pod_paths, strategy_of
from keras_resnet.training.strategy import describe as describe_strategy
from keras_resnet.training.trainer import Trainer
from keras_resnet.workdir import WorkDir, read_json, replacing, write_text

PREDICT_BATCH = 32


def train(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the network of `config` in `workdir`, from its newest checkpoint if there is one.

    Returns:
      The content of result.json: top1, top5, loss, examples, step, train_images_per_second.

    Raises:
      UserError: the work directory, the devices or a checkpoint cannot be used.
      input_pipeline.DataError: the data set cannot be used.
    """
    check_pod_paths(config, workdir)
    workdir = WorkDir(workdir)
    workdir.check(config)
    strategy = strategy_of(config)
    train_source, eval_source = open_sources(config)
    trainer = Trainer(config, strategy, train_source.class_names, train_source.num_examples)
    # Only now: a start that failed on a wrong path must not bind the folder to that config.
    workdir.claim(config)
    checkpoints = Checkpoints(
        workdir.checkpoints, trainer.model, trainer.optimizer, keep=config.checkpoint.keep
    )
    _remember_dataset(workdir, train_source, eval_source)
    start = checkpoints.restore_newest() or 0
    reporter = Reporter(workdir, trainer, start)
    reporter.introduce(describe_strategy(strategy), train_source, eval_source)
    with reporter:
        _train_and_evaluate(trainer, checkpoints, reporter, train_source, eval_source, start)
    return _finish(workdir, trainer, reporter, eval_source)


def _train_and_evaluate(trainer, checkpoints, reporter, train_source, eval_source, start) -> None:
    config, last = trainer.config, trainer.config.epochs
    step_of = {epoch: trainer.step_at_epoch(epoch) for epoch in range(1, last + 1)}
    every = config.evaluate_every_epochs
    evaluate_at = {step for epoch, step in step_of.items() if epoch % every == 0 or epoch == last}
    every = config.checkpoint.every_epochs
    save_at = {step for epoch, step in step_of.items() if epoch % every == 0 or epoch == last}
    for step, means in trainer.train(train_source, start, [*evaluate_at, *save_at]):
        reporter.trained(step, means, learning_rate_at(trainer.schedule, step - 1))
        if step in evaluate_at:
            reporter.evaluated(step, trainer.evaluate(eval_source))
        if step in save_at:
            # Last: what the checkpoint claims to have done is then already in metrics.jsonl.
            checkpoints.save(step)


def _finish(workdir: WorkDir, trainer: Trainer, reporter: Reporter, eval_source) -> dict:
    before = read_json(workdir.result)
    if reporter.start >= trainer.total_steps and before is not None and workdir.model.exists():
        reporter.say(f"This run is finished ({trainer.total_steps} steps); evaluating it again.")
        result = {**before, **trainer.evaluate(eval_source)}
    else:
        result = {
            **(reporter.last_evaluation() or trainer.evaluate(eval_source)),
            "step": trainer.total_steps,
            "train_images_per_second": reporter.images_per_second(),
        }
        with replacing(workdir.model) as temporary:
            trainer.inference_model().save(temporary)
        reporter.draw_curves()
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
    data = config.data
    return input_pipeline.open_source(data.source, name=data.name, path=data.path, split=split)


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


def restore(config: ConfigDict, workdir: WorkDir) -> tuple[Trainer, int]:
    """Returns a trainer for inference with the newest checkpoint of `workdir`, and its step."""
    classes = workdir.read_dataset()["classes"]
    trainer = Trainer(config, strategy_of(config), classes)
    step = Checkpoints(workdir.checkpoints, trainer.model).restore_newest()
    if step is None:
        raise UserError(f"{workdir.checkpoints}: no checkpoint yet; train first")
    return trainer, step


def evaluate(config: ConfigDict, workdir: WorkDir) -> dict[str, float]:
    """Evaluates the newest checkpoint; returns top1, top5, loss, examples and step."""
    trainer, step = restore(config, workdir)
    source = open_source(config, config.data.eval_split)
    if list(source.class_names) != trainer.model.class_names:
        raise input_pipeline.DataError(
            f"{source.description}: its classes are not the {len(trainer.model.class_names)} that "
            "this run was trained on"
        )
    return {**trainer.evaluate(source), "step": step}


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
        raise input_pipeline.DataError(f"{path} {describe(encoded, error.message)}") from error
