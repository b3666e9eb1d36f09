"""usage: keras-resnet calibrate --model=FILE.keras --data=FOLDER [--split=NAME]
                              [--output=COPY.keras] [--tta=flip]

Fits on labelled images how far the probabilities of a model can be believed, and writes it into the
.keras file, or into a copy: a temperature, by which `predict` and `export` know --calibrated and
--unknown; of a model of several labels an image the threshold of each class. Runs of `keras-resnet
train` have done so. Take images that the model was not trained on, and not those by which it is
judged: the probabilities of images that it knows are too good.

FOLDER is laid out in any usual way, as for `keras-resnet evaluate`; --split takes a part of it.
Weights that are no .keras file become one by `keras-resnet convert`."""

import os
import shlex
from pathlib import Path

import tqdm
from absl import flags as absl_flags

from keras_resnet import calibration
from keras_resnet.calibration import Calibration
from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    define_tta,
    refuse_arguments,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.data_evaluation import DataEvaluation, LabelSetDataEvaluation
from keras_resnet.errors import UsageError
from keras_resnet.flips import with_flips
from keras_resnet.printing import printable
from keras_resnet.storage import check_keras_file, replacing

SUMMARY = "Fit a temperature or thresholds on labelled images, and write them into a .keras file."
_EXAMPLE = "keras-resnet calibrate --model=model.keras --data=photos --split=val"
_FEW = 100  # images that give a rough figure
_ROWS = 10  # thresholds that are printed


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        model="A .keras file.",
        data="Folder of class folders, alone or below splits, or a table of paths and labels.",
        split="Which part of --data, such as val or train[80%:].",
        output="The .keras file to write instead of --model.",
    )
    define_tta(flags, "as the model says; with it, the model is to say so from then on")


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Fits, writes, prints and returns 0."""
    refuse_arguments(arguments, _EXAMPLE)
    for name in ("model", "data"):
        if not flags[name].value:
            raise UsageError(f"--{name} is missing; for example: {_EXAMPLE}")
    file = check_keras_file(Path(flags.model))
    output = Path(flags.output).expanduser() if flags.output else file
    if output.suffix != ".keras":
        raise UsageError(f"--output={output}: the name should end with .keras")
    check_folder_of(flags, "output")
    start_tensorflow()
    from keras_resnet import evaluation
    from keras_resnet.models.classifiers import gives_label_sets
    from keras_resnet.models.loading import load_model

    model = load_model(file)
    if flags.tta:
        model.tta, model.calibration, model.thresholds = flags.tta, None, None
    source = evaluation.open_labelled(
        flags.data, flags.split, "stop", evaluation.MAX_BROKEN_SHARE, gives_label_sets(model)
    )
    with tqdm.tqdm(unit="image", dynamic_ncols=True, disable=None) as bar:
        judged = evaluation.evaluate(model, source, progress=bar.update)
    fitted = evaluation.calibrate_by(model, judged, source.title)
    # A link keeps to what it leads to.
    with replacing(Path(os.path.realpath(output))) as temporary:
        model.save(temporary)
    if isinstance(fitted, Calibration):
        assert isinstance(judged, DataEvaluation)  # of one label an image
        lines = _temperature(judged, fitted, output)
    else:
        assert isinstance(judged, LabelSetDataEvaluation)
        lines = _thresholds(judged)
    judged_on = with_flips(judged.source, judged.tta)
    print("\n".join(map(printable, [judged_on, *lines, f"{output}"])))
    return 0


def _temperature(judged: DataEvaluation, fitted: Calibration, output: Path) -> list[str]:
    from keras_resnet.evaluation import logits_of

    logits = logits_of(judged)
    errors = [
        calibration.expected_calibration_error(
            calibration.reliability_bins(*calibration.judge(logits, judged.labels, temperature))
        )
        for temperature in (1.0, fitted.temperature)
    ]
    rough = " So few images give a rough figure." if fitted.images < _FEW else ""
    lines = [
        f"a temperature of {fitted.temperature:.3g}, fitted on {fitted.images:,} images, takes the "
        f"expected calibration error on them from {errors[0]:.2%} to {errors[1]:.2%}.{rough}"
    ]
    confidence, right = calibration.judge(logits, judged.labels, fitted.temperature)
    for coverage in calibration.COVERAGES:
        limit = fitted.threshold(coverage)
        if limit > 0:
            lines.append(
                f"  --unknown={coverage:.0%}: unknown below {limit:.4g}; "
                f"{right[confidence >= limit].mean():.2%} of the others are right"
            )
    command = shlex.join(["keras-resnet", "predict", f"--model={output}", "--unknown=90%"])
    return [*lines, f"{command} PHOTOS   answers so"]


def _thresholds(judged: LabelSetDataEvaluation) -> list[str]:
    from keras_resnet.training import label_sets

    limits = label_sets.best_thresholds(judged.labels, judged.probabilities)
    before, after = (
        label_sets.figures(judged.labels, judged.probabilities, values)["f1"]
        for values in (judged.thresholds, limits)
    )
    rough = " So few images give rough thresholds." if judged.examples < _FEW else ""
    names = judged.class_names
    lines = [f"  {name}  {limit:.4g}" for name, limit in zip(names, limits, strict=True)][:_ROWS]
    more = [f"  and {len(names) - _ROWS:,} more"] if len(names) > _ROWS else []
    return [
        f"the thresholds with the best F1 of each class take F1 on these images from {before:.4f} "
        f"to {after:.4f}.{rough}",
        *lines,
        *more,
    ]
