"""What a run that resumes with other values says of them."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from keras_resnet.config.records import Changes, describe_changes
from keras_resnet.training.progress import Timeline
from keras_resnet.training.schedules import learning_rate_at, make_schedule

_TRAIN_EXAMPLES = "dataset.train_examples"


def describe_resumption(
    config: ConfigDict, changed: Changes, timeline: Timeline, step: int
) -> Iterator[str]:
    """Yields a line on what has changed, and one on what that does to the schedule.

    Args:
        config: with which the run goes on.
        changed: what the history notes: keys of the config, and sizes of the data set.
        timeline: of `config`.
        step: where the run stands.
    """
    if not changed:
        return
    yield f"changed    since the run began: {describe_changes(changed)}"
    if not {"epochs", _TRAIN_EXAMPLES} & changed.keys():
        return
    before = config.copy_and_resolve_references()
    before.epochs, _ = changed.get("epochs", (config.epochs, None))
    examples, _ = changed.get(_TRAIN_EXAMPLES, (timeline.train_examples, None))
    former, total = Timeline(before, examples), timeline.total_steps
    if total == former.total_steps:
        return
    ends = f"the run ends after step {total:,} instead of {former.total_steps:,}"
    if step >= total:
        yield f"schedule   {ends}; it is at step {step:,}, so it ends here"
        return
    now, was = (each.segment_at(step).image_size for each in (timeline, former))
    if now != was:
        yield f"sizes      in step {step:,} images have {now} px instead of {was} px"
    if config.schedule.name == "plateau":  # the evaluations decide
        yield f"schedule   {ends}"
        return
    rate = learning_rate_at(make_schedule(config, timeline), step)
    before_rate = learning_rate_at(make_schedule(before, former), step)
    yield (
        f"schedule   {ends}, and the learning rate follows: in step {step:,} it is {rate:.6g} "
        f"instead of {before_rate:.6g}"
    )
