"""From image files to class names: against keras.applications and the exported arithmetic."""

import keras
import numpy as np
import pytest
from input_helpers import encode, smooth_image
from model_helpers import randomize, run, small

import keras_resnet
from keras_resnet import decode_predictions, input_pipeline, preprocess, preprocessing_layer


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("ResNet50V1", keras.applications.resnet), ("ResNet50V2", keras.applications.resnet_v2)],
)
def test_images_are_those_of_keras_applications(tmp_path, name, theirs):
    model = small(name, input_shape=(96, 96, 3))
    paths = []
    for height, width in ((130, 200), (251, 101), (96, 96)):
        paths.append(tmp_path / f"{height}.jpg")
        paths[-1].write_bytes(encode(smooth_image(height, width), "JPEG"))
    loaded = [keras.utils.load_img(path, target_size=(96, 96)) for path in paths]
    expected = theirs.preprocess_input(np.stack([keras.utils.img_to_array(x) for x in loaded]))
    result = preprocess(model, paths)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=3e-5)
    np.testing.assert_array_equal(preprocess(model, str(paths[0])), result[:1])
    np.testing.assert_array_equal(preprocess(model, loaded[0])[0], result[0])  # PIL's image


def test_arrays_are_resized_as_files_are():
    model = small("ResNet18", input_shape=(64, 64, 3))
    photo = np.asarray(smooth_image(90, 120))
    expected = input_pipeline.normalize(
        input_pipeline.evaluation_image(encode(photo), model.preprocessing), model.preprocessing
    )
    for images in (photo, [photo], photo[None], photo.astype("float32")):
        np.testing.assert_array_equal(preprocess(model, images)[0], expected)
    assert preprocess(model, []).shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    ("image", "quoted"),
    [
        (np.zeros((8, 8)), r"received ndarray of shape \(8, 8\) and dtype float64"),
        (np.full((8, 8, 3), 0.5), "from 0.5 to 0.5"),
        (np.full((8, 8, 3), 256), "from 256 to 256"),
        (3, r"received int of shape \(\)"),
    ],
)
def test_what_is_no_image_is_quoted(image, quoted):
    with pytest.raises(ValueError, match=quoted):
        preprocess(small("ResNet18"), [image])


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50V1"])
def test_the_layer_is_saved_with_the_model(tmp_path, name):
    model = randomize(small(name))
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    whole = keras.Model(inputs, model(preprocessing_layer(model)(inputs)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    normalized = input_pipeline.normalize(pixels, model.preprocessing).numpy()
    layer = preprocessing_layer(model)
    np.testing.assert_allclose(layer(pixels), normalized, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(whole, pixels), run(model, normalized), rtol=1e-4, atol=1e-6)
    whole.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    np.testing.assert_array_equal(run(loaded, pixels), run(whole, pixels))


def test_channels_first_and_16_bits():
    wanted = small("ResNet50V1").preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    layers = [
        keras_resnet.layers.NormalizeImages(
            wanted.mean, wanted.std, "bgr", data_format, dtype="mixed_bfloat16"
        )
        for data_format in ("channels_last", "channels_first")
    ]
    last = layers[0](pixels)
    first = layers[1](np.moveaxis(pixels, -1, 1))
    expected = pixels[..., ::-1] - 255 * np.array(wanted.mean)
    np.testing.assert_allclose(last, expected, atol=3e-5)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)


def test_probabilities_become_names():
    model = small("CifarResNet20")
    values = np.array([[0.1, 0.5, 0.2, 0.05, 0.15], [0.2, 0.2, 0.2, 0.2, 0.2]])
    assert [entry[:2] for entry in decode_predictions(model, values, top=2)[0]] == [
        (1, "1"),
        (2, "2"),
    ]
    model.class_names = list("abcde")
    decoded = decode_predictions(model, values, top=2)
    assert [[entry[:2] for entry in row] for row in decoded] == [
        [(1, "b"), (2, "c")],
        [(0, "a"), (1, "b")],
    ]
    np.testing.assert_allclose([entry[2] for entry in decoded[0]], [0.5, 0.2], rtol=1e-6)
    assert [len(row) for row in decode_predictions(model, values, top=9)] == [5, 5]
    for wrong in (values[0], values[:, :4]):
        with pytest.raises(ValueError, match=r"of shape \(images, 5\); received the shape"):
            decode_predictions(model, wrong)
    with pytest.raises(ValueError, match="`top` must be a positive integer, received 0"):
        decode_predictions(model, values, top=0)


def test_models_that_take_no_images():
    sound = small("ResNet18", input_shape=(64, 1))
    for function in (preprocessing_layer, lambda model: preprocess(model, [])):
        with pytest.raises(ValueError, match="does not say how its images are prepared"):
            function(sound)
