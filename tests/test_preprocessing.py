"""`Preprocessing`: a checked value, a mapping, and what its versions mean in files."""

import dataclasses
import json
import zipfile
from typing import ClassVar

import keras
import numpy as np
import pytest

from keras_resnet import create_model, preprocessing
from keras_resnet.architectures import get_architecture
from keras_resnet.config import default_config
from keras_resnet.config import preprocessing as preprocessing_of_config
from keras_resnet.errors import UserError
from keras_resnet.preprocessing import NewerVersionError, Preprocessing, PreprocessingError
from keras_resnet.weights import WeightsError, read_weights

FIELDS = {
    "image_size": 224,
    "crop_ratio": 0.875,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": "rgb",
    "resize": "floor",
}
# What version 2 meant by them, and where the fields came later.
LATER = {"exif": "ignore", "max_pixels": 2**28, "scaled_decoding": "never"}
# What version 1 wrote for an evaluation with PIL's bicubic filter, all but its clipping.
VERSION_1 = {key: value for key, value in FIELDS.items() if key != "resize"}
MEANS_TODAY = {**VERSION_1, "interpolation": "bicubic_float", "resize": "round"}


def test_it_is_a_value_and_a_mapping():
    made = Preprocessing.from_dict(FIELDS)
    assert made == FIELDS
    assert made == FIELDS
    assert dict(made) == {**made} == {**FIELDS, **LATER}
    assert list(made) == [*FIELDS, *LATER]
    assert (made["mean"], made.mean) == ([0.485, 0.456, 0.406], (0.485, 0.456, 0.406))
    assert made.get("gamma") is None
    assert len({made, Preprocessing.from_dict({**FIELDS, "mean": tuple(FIELDS["mean"])})}) == 1
    changed = made.replace(image_size=256)
    assert changed == {**made, "image_size": 256} != made
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.image_size = 3
    with pytest.raises(TypeError):
        made["image_size"] = 3


def test_json_brings_it_back():
    made = Preprocessing.from_dict(FIELDS)
    written = json.loads(json.dumps(made.to_dict()))
    assert written == {"version": 3, **FIELDS, **LATER}
    assert Preprocessing.from_dict(written) == made
    assert Preprocessing.from_dict(made) is made


def test_numbers_of_numpy_become_plain_ones():
    values = {"image_size": np.int64(8), "crop_ratio": 1, "mean": np.float32([0.5]), "std": [2]}
    made = Preprocessing.from_dict({**FIELDS, **values})
    assert json.dumps([made[key] for key in values]) == "[8, 1.0, [0.5], [2.0]]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_sizes": 3}, "key 'image_sizes'; known are .*; did you mean 'image_size'"),
        ({"image_size": 0}, "image_size is 0; it must be a positive integer"),
        ({"image_size": 7.5}, "image_size is 7.5; it must be a positive integer"),
        ({"image_size": True}, "image_size is True; it must be a positive integer"),
        ({"crop_ratio": 1.2}, "crop_ratio is 1.2; it must be above 0, up to 1"),
        ({"crop_ratio": float("nan")}, "crop_ratio is nan"),
        ({"crop_ratio": "0.9"}, "crop_ratio is '0.9'; it must be a number"),
        ({"interpolation": "bicubik"}, "interpolation 'bicubik'; .* did you mean 'bicubic'"),
        ({"channel_order": None}, "channel_order None; known are rgb, bgr"),
        ({"mean": 0.5}, "mean is 0.5; it must hold one number per channel"),
        ({"mean": []}, r"mean is \[\]; it must hold one number per channel"),
        ({"mean": [0.5]}, r"mean is \[0.5\]; it must hold one number per channel, as many as std"),
        ({"std": [1, 1, 0]}, r"std is \[1, 1, 0\]; every value must be above 0"),
        ({"std": [1, "a", 1]}, r"std is \[1, 'a', 1\]; it must hold one number per channel"),
        ({"resize": "flor"}, "resize 'flor'; known are round, floor, .* did you mean 'floor'"),
        ({"exif": "rotate"}, "exif 'rotate'; known are apply, ignore"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be a positive integer"),
        ({"scaled_decoding": "always"}, "scaled_decoding 'always'; known are auto, never"),
        ({"version": 4}, "is of version 4, this keras_resnet knows versions up to 3; install"),
        ({"version": "new"}, "is of version 'new'"),
    ],
)
def test_what_cannot_be_used_is_quoted(changes, message):
    with pytest.raises(PreprocessingError, match=message) as caught:
        Preprocessing.from_dict({**FIELDS, **changes})
    assert isinstance(caught.value, UserError)
    with pytest.raises(PreprocessingError, match="lacks std, channel_order; got"):
        Preprocessing.from_dict(dict(list(FIELDS.items())[:4]))


def test_what_version_1_meant():
    assert Preprocessing.from_dict({"version": 1, **VERSION_1}) == MEANS_TODAY
    assert Preprocessing.from_metadata(VERSION_1, "a file") == MEANS_TODAY  # files without version
    assert Preprocessing.from_metadata({"version": 2, **FIELDS}, "a file") == FIELDS
    # A dict by hand means what its words mean today.
    assert Preprocessing.from_dict(VERSION_1) == {**FIELDS, "resize": "round"}
    changed = Preprocessing.from_dict({**Preprocessing.from_dict(MEANS_TODAY), "image_size": 8})
    assert changed == {**MEANS_TODAY, "image_size": 8}
    for wrong in (7, "imagenet", [1]):
        with pytest.raises(PreprocessingError, match="it must be a Preprocessing or a dict with"):
            Preprocessing.from_dict(wrong)


def test_a_field_that_comes_later_says_what_its_absence_means():
    @dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
    class Later(Preprocessing):
        gamma: bool = True

        VERSION: ClassVar[int] = 4
        MEANING_OF_ABSENCE: ClassVar[dict] = {**Preprocessing.MEANING_OF_ABSENCE, "gamma": False}

    assert Later(**FIELDS).gamma  # its default today
    assert not Later.from_dict(FIELDS).gamma  # what files of version 3 mean
    assert not Later.from_dict({"version": 3, **FIELDS}).gamma
    written = Later(**FIELDS).to_dict()
    assert written == {"version": 4, **FIELDS, **LATER, "exif": "apply", "gamma": True}
    assert Later.from_dict(written).gamma
    with pytest.raises(NewerVersionError, match="version 4"):
        Preprocessing.from_dict(written)


def test_the_table_and_the_configs_give_it():
    assert get_architecture("ResNet50V2").preprocessing == {
        "image_size": 224,
        "crop_ratio": 1.0,
        "interpolation": "nearest",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "channel_order": "rgb",
        "resize": "plain",
        "exif": "apply",
    }
    # torchvision's rule for torchvision's networks, timm's for timm's.
    rules = [get_architecture(name).resize for name in ("ResNet50", "ResNet50D", "SEResNet50")]
    assert rules == ["round", "floor", "floor"]
    config = default_config()
    made = preprocessing_of_config(config)
    recorded = {key: config.data[key] for key in made.names()}
    assert {**recorded, "exif": "ignore"} == {key: getattr(made, key) for key in made.names()}


def _tiny(**kwargs):
    return create_model(
        "CifarResNet20",
        depths=(1, 1, 1),
        widths=(16, 16, 16),
        input_shape=(None, None, 3),
        **kwargs,
    )


def _rewrite(source, target, change):
    """Copies a .keras file with another `preprocessing` in its metadata."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["preprocessing"] = change(config["config"]["preprocessing"])
                content = json.dumps(config)
            new.writestr(name, content)
    return target


def test_keras_files_carry_a_version_and_old_ones_keep_their_meaning(tmp_path):
    model = _tiny()
    model.preprocessing = FIELDS
    model.save(tmp_path / "new.keras")
    assert model.get_config()["preprocessing"] == {"version": 3, **FIELDS, **LATER}
    # As 9caf05c wrote it, and the version after.
    old = _rewrite(tmp_path / "new.keras", tmp_path / "old.keras", lambda values: VERSION_1)
    first = _rewrite(
        tmp_path / "new.keras", tmp_path / "1.keras", lambda values: {"version": 1, **VERSION_1}
    )
    meanings = ((tmp_path / "new.keras", FIELDS), (old, MEANS_TODAY), (first, MEANS_TODAY))
    for path, meaning in meanings:
        loaded = keras.saving.load_model(path)
        assert isinstance(loaded.preprocessing, Preprocessing)
        assert loaded.preprocessing == meaning
        assert read_weights(path, variant="CifarResNet20").preprocessing == meaning
    none = _rewrite(tmp_path / "new.keras", tmp_path / "none.keras", lambda values: None)
    assert keras.saving.load_model(none).preprocessing is None


def test_newer_files_are_refused_and_what_is_no_preprocessing_is_left_out(tmp_path):
    _tiny().save(tmp_path / "now.keras")
    newer = _rewrite(
        tmp_path / "now.keras", tmp_path / "newer.keras", lambda values: {**values, "version": 7}
    )
    with pytest.raises(WeightsError, match=r"newer.keras: the preprocessing is of version 7"):
        read_weights(newer, variant="CifarResNet20")
    with pytest.raises((TypeError, ValueError), match="is of version 7"):
        keras.saving.load_model(newer)
    # 9caf05c took and stored any dict.
    odd = _rewrite(tmp_path / "now.keras", tmp_path / "odd.keras", lambda values: {"image_size": 8})
    with pytest.warns(UserWarning, match="comes without preprocessing: .* lacks crop_ratio"):
        assert keras.saving.load_model(odd).preprocessing is None
    with pytest.warns(UserWarning, match="odd.keras comes without preprocessing"):
        assert read_weights(odd, variant="CifarResNet20").preprocessing is None


def test_networks_of_other_channels_have_theirs():
    model = create_model("CifarResNet20", input_shape=(8, 8, 1), mean=(0.5,), std=(0.25,))
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.5,), (0.25,))
    assert preprocessing.INTERPOLATIONS == ("bilinear", "bicubic", "nearest", "bicubic_float")
