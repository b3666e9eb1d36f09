"""From a network of ours to other classes in an image folder, end to end."""

import keras
import numpy as np
import pytest
from PIL import Image
from run_helpers import tiny_config

from keras_resnet import config as configs
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.training import run
from keras_resnet.training.finetuning import take_over_preprocessing
from keras_resnet.training.workdir import WorkDir


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The work directory of a run on the digits, with a preprocessing of its own."""
    folder = tmp_path_factory.mktemp("pretrained")
    config = tiny_config(deterministic=False, epochs=1, data__mean=(0.3, 0.4, 0.5))
    run.train(config, folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """An image folder with three classes of colored noise."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for channel, name in enumerate(["red", "green", "blue"]):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (10, 10, 3), "uint8")
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def _finetune(pretrained, photos, **changes):
    return tiny_config(
        deterministic=False,
        batch_size=12,
        epochs=2,
        data__source="image_folder",
        data__path=str(photos),
        model__weights=str(pretrained),
        **changes,
    )


def _layers(path, names):
    model = keras.saving.load_model(path)
    return {name: model.get_layer(name).get_weights() for name in names}


NORM, BODY, HEAD = "stem_norm", "stem_conv", "predictions"


@pytest.mark.ci
@pytest.mark.parametrize(
    "freeze",
    [
        pytest.param("", marks=pytest.mark.slow),
        "norm",
        pytest.param("body", marks=pytest.mark.slow),
    ],
)
def test_fine_tuning_on_an_image_folder(freeze, pretrained, photos, tmp_path):
    config = _finetune(pretrained, photos, model__freeze=freeze)
    result = run.train(config, tmp_path)
    assert result["examples"] == 15
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.class_names == ["blue", "green", "red"]
    assert model.preprocessing["mean"] == [0.3, 0.4, 0.5]
    norm = next(layer.name for layer in model.layers if "norm" in layer.name)
    convolution = next(layer.name for layer in model.layers if "conv" in layer.name)
    before = _layers(pretrained / "model.keras", [norm, convolution])
    after = _layers(tmp_path / "model.keras", [norm, convolution])

    def same(name):
        pairs = zip(before[name], after[name], strict=True)
        return all(np.array_equal(mine, other) for mine, other in pairs)

    assert same(norm) == (freeze in ("norm", "body"))
    assert same(convolution) == (freeze == "body")
    # A resumed run needs the weights no longer, and ends with the same preprocessing.
    recorded = WorkDir(tmp_path).read_config()
    assert recorded.data.mean == (0.3, 0.4, 0.5)


@pytest.mark.slow
def test_resuming_does_not_read_the_weights_again(pretrained, photos, tmp_path):
    weights = tmp_path / "weights.keras"
    weights.write_bytes((pretrained / "model.keras").read_bytes())
    config = _finetune(weights, photos)
    first = run.train(config, tmp_path / "w")
    weights.unlink()
    again = run.train(config, tmp_path / "w")
    assert again["top1"] == first["top1"]


@pytest.mark.ci
def test_the_same_classes_keep_their_classifier(pretrained, tmp_path, capsys):
    config = tiny_config(
        deterministic=False, epochs=1, model__weights=str(pretrained), model__freeze="norm"
    )
    config.optimizer.learning_rate = 0.0
    config.optimizer.weight_decay = 0.0
    run.train(config, tmp_path)
    before = _layers(pretrained / "model.keras", [HEAD])[HEAD]
    after = _layers(tmp_path / "model.keras", [HEAD])[HEAD]
    for mine, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert "starts from random" not in capsys.readouterr().out


@pytest.mark.ci
def test_a_file_of_ours_names_its_own_network(pretrained, photos, tmp_path, capsys):
    config = _finetune(pretrained / "model.keras", photos, model__name="ResNet50")
    config.epochs = 1
    with config.unlocked():
        config.model.depths, config.model.widths = (), ()
    run.train(config, tmp_path)
    recorded = WorkDir(tmp_path).read_config().model
    trained = keras.saving.load_model(pretrained / "model.keras")
    assert recorded.name == trained.architecture["name"] == "CifarResNet20"
    assert recorded.depths == tuple(trained.architecture["depths"])
    assert "model.keras names its network, CifarResNet20" in capsys.readouterr().out
    run.train(config, tmp_path)  # resumed with the same command


def test_a_file_of_keras_says_its_padding(tmp_path):
    x = keras.Input((32, 32, 3))
    y = keras.layers.Conv2D(8, 3, 2, "same", name="conv2_block1_1_conv")(x)
    keras.Model(x, y).save(tmp_path / "x.keras")
    config = tiny_config(model__weights=str(tmp_path / "x.keras"))
    taken = take_over_preprocessing(config, WorkDir(tmp_path / "new"))
    assert (config.model.padding, taken.model.padding) == (None, "same")
    config = tiny_config(model__weights=str(tmp_path / "x.keras"), model__padding="symmetric")
    taken = take_over_preprocessing(config, WorkDir(tmp_path / "new"))
    assert taken.model.padding == "symmetric"


@pytest.mark.ci
def test_weights_of_another_architecture(pretrained, photos, tmp_path):
    config = _finetune(pretrained, photos, model__widths=(16, 32, 32))
    with pytest.raises(UserError, match="are not those of CifarResNet20"):
        run.train(config, tmp_path)
    assert not WorkDir(tmp_path).config.exists()


@pytest.mark.parametrize(("content", "quoted"), [(None, "no model.keras"), (b"x", "truncated")])
def test_weights_that_cannot_be_read(content, quoted, photos, tmp_path):
    folder = tmp_path / "pretrained"
    folder.mkdir()
    if content is not None:
        (folder / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match=quoted):
        run.train(_finetune(folder, photos), tmp_path / "w")


def test_classes_that_are_not_the_networks(pretrained, photos, capsys):
    arguments = [f"--config.data.path={photos}", "--config.data.source=image_folder"]
    assert main(["evaluate", f"--workdir={pretrained}", *arguments]) == 1
    message = capsys.readouterr().err
    assert "it has 3 classes, the network 10" in message
    assert message.count("\n") == 1


def test_a_run_begun_with_the_older_bicubic_keeps_it(tmp_path):
    config = tiny_config(data__interpolation="bicubic")
    (tmp_path / "config.json").write_text(
        configs.to_json(config).replace(f": {configs.CONFIG_VERSION},", ": 1,", 1)
    )
    workdir = WorkDir(tmp_path)
    assert workdir.read_config().data.interpolation == "bicubic_float"
    with pytest.raises(UserError, match=r"data\.interpolation: 'bicubic_float' -> 'bicubic'"):
        workdir.check(config)
    kept = take_over_preprocessing(config, workdir)
    workdir.check(kept)
    assert (kept.data.interpolation, kept.data.resize) == ("bicubic_float", "round")
    assert take_over_preprocessing(config, WorkDir(tmp_path / "new")) == config
