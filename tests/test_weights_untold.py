"""What names and shapes of weights do not tell, such as strides: said by the file, or in a line."""

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run
from weights_helpers import assert_equal, filled, save_safetensors, tiny, values

import keras_resnet
from keras_resnet.weights import Checkpoint, WeightsError, WeightsNote, read_weights, schemes

# Of one set of names and shapes, with logits of their own.
HIDDEN = {"stride_in_1x1": True, "padding": "same", "epsilon": 0.01}


def _bottleneck(**arguments):
    model = randomize(tiny("ResNet50", **HIDDEN, **arguments))
    model.class_names = list("abcde")
    model.preprocessing = model.preprocessing.replace(mean=(0.1, 0.2, 0.3), resize="floor")
    return model


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_files_of_ours_say_which_network_they_hold(tmp_path, suffix):
    model = _bottleneck()
    path = tmp_path / f"x{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    for name in (None, "ResNet50"):
        with pytest.warns(WeightsNote, match=r"stride_in_1x1=True.*: so is the model\.$"):
            loaded = keras_resnet.create_model(
                name, weights=path, classes=5, input_shape=(32, 32, 3)
            )
        np.testing.assert_array_equal(run(loaded, images(model)), run(model, images(model)))
        assert (loaded.preprocessing, loaded.class_names) == (model.preprocessing, list("abcde"))
    with pytest.raises(WeightsError, match="are of ResNet50, not of ResNet101"):
        keras_resnet.create_model("ResNet101", weights=path)


def test_whole_models_in_h5_files_keep_their_zero_channels(tmp_path):
    model = randomize(tiny("CifarResNet20", shortcut="A-centered"))
    model.save(tmp_path / "x.h5")
    with pytest.warns(WeightsNote, match="shortcut='A-centered'"):
        loaded = tiny("CifarResNet20", weights=tmp_path / "x.h5")
    np.testing.assert_array_equal(run(loaded, images(model)), run(model, images(model)))


def test_described_weights_load_in_keras_and_are_written_again(tmp_path, monkeypatch):
    model, path = _bottleneck(), tmp_path / "x.weights.h5"
    for _ in range(2):
        model.save_weights(path)
    # A file that is there and stays keeps what it says.
    monkeypatch.setattr("builtins.input", lambda prompt="": "n")
    tiny("ResNet50").save_weights(path, overwrite=False)
    assert read_weights(path).network["stride_in_1x1"]
    twin = tiny("ResNet50", **HIDDEN)
    plain = keras.Model(twin.inputs, twin.outputs)
    plain.load_weights(path)
    assert_equal(values(plain), values(model))
    again = tiny("ResNet50", **HIDDEN)
    again.load_weights(path)
    assert_equal(values(again), values(model))


def test_weights_alone_are_said_to_be_that(tmp_path):
    """Nothing in such a file tells v1.5 from a network with its strides in the 1×1 convolutions."""
    model, path = _bottleneck(), tmp_path / "x.weights.h5"
    keras.Model.save_weights(model, path)
    taken = "taken are stride_in_1x1=False, padding='symmetric', epsilon=1e-05, as in ResNet50"
    flags = r"say so: --stride_in_1x1=true, --padding=same, --epsilon=0\.001"
    with pytest.warns(WeightsNote, match=f"{taken}.*{flags}"):
        wrong = tiny("ResNet50", weights=path)
    assert not np.allclose(run(wrong, images(model)), run(model, images(model)), atol=1e-3)
    right = tiny("ResNet50", weights=path, **HIDDEN)
    np.testing.assert_array_equal(run(right, images(model)), run(model, images(model)))


def test_names_of_keras_applications_mean_its_strides():
    model, arrays = filled("ResNet50V1", schemes.KERAS_APPLICATIONS, classifier_activation=None)
    expected = r"ResNet50 with stride_in_1x1=True, use_bias=True, epsilon=1\.001e-05: so is"
    with pytest.warns(WeightsNote, match=expected):
        loaded = tiny("ResNet50", weights=Checkpoint("x", arrays), classifier_activation=None)
    np.testing.assert_array_equal(run(loaded, images(model)), run(model, images(model)))


def test_names_of_timms_v2_mean_its_strides(tmp_path):
    timms = {"stride_in_last_block": False, "use_bias": False, "zero_pad_pool": False}
    timms |= {"epsilon": 1e-5, "classifier_activation": None}
    model, arrays = filled("ResNet50V2", schemes.TIMM_V2, **timms)
    path = save_safetensors(arrays, tmp_path / "x.safetensors")
    with pytest.warns(WeightsNote, match="ResNet50V2 with stride_in_last_block=False, use_bias"):
        loaded = tiny("ResNet50V2", weights=path, classifier_activation=None)
    np.testing.assert_array_equal(run(loaded, images(model)), run(model, images(model)))
    # What the caller says goes before.
    own = tiny("ResNet50V2", weights=path, stride_in_last_block=True, classifier_activation=None)
    assert not np.allclose(run(own, images(model)), run(model, images(model)), atol=1e-3)
