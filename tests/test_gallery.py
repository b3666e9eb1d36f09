"""Embeddings and the gallery: Python and the commands `embed` and `explain`."""

import csv
import html.parser
import io

import keras
import numpy as np
import pytest
from input_helpers import encode, smooth_image
from model_helpers import randomize, small

import keras_resnet
from keras_resnet import explain
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.explain.embedding import Embeddings
from keras_resnet.explain.gallery import open_data
from keras_resnet.explain.networks import load_embedder
from keras_resnet.explain.predictions import Predictions

CLASSES = ["<b>'cat' & \"dog\"", "ünï cödé", "plain"]


@pytest.fixture(scope="module")
def model():
    made = randomize(small("ResNet18", classes=3))
    made.class_names = CLASSES
    return made


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(file)
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders below train and test, and a folder with a photo and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 5), ("test", 4)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                image = smooth_image(40, 36, seed=100 * label + index)
                (folder / split / name / f"{index} <i>.png").write_bytes(encode(image))
    loose = folder.parent / "loose"
    loose.mkdir()
    (loose / "fine.jpg").write_bytes(encode(smooth_image(50, 40, seed=7), "JPEG"))
    (loose / "broken.jpg").write_bytes(b"\xff\xd8\xffno")
    return folder


@pytest.fixture(scope="module")
def found(model, photos):
    data = open_data(photos, "test")
    training = open_data(photos, "train")
    return explain.gallery(model, data=data, training=training, per_class=2, neighbors=2)


@pytest.mark.ci
def test_embeddings_are_what_the_classifier_sees(model, photos):
    files = sorted((photos / "test" / "plain").glob("*.png"))
    vectors = keras_resnet.embed(model, files, batch_size=3).vectors
    body = keras.Model(model.input, model.get_layer("pool").output)
    x = keras_resnet.preprocess(model, files)
    expected = body(x, training=False)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    head = model.get_layer("predictions")
    np.testing.assert_allclose(
        keras.ops.softmax(vectors @ head.kernel + head.bias),
        model(x),
        atol=1e-5,
    )
    folder = keras_resnet.embed(model, photos / "test" / "plain")
    assert folder.names == tuple(map(str, files))
    np.testing.assert_array_equal(folder.vectors, vectors)
    headless = keras_resnet.embed(body, x, prepared=True)
    np.testing.assert_allclose(headless.vectors, vectors, atol=1e-6)
    maps = keras.Model(model.input, model.get_layer("stage4_block1_out").output)
    averaged = keras_resnet.embed(maps, x, prepared=True)
    np.testing.assert_allclose(averaged.vectors, vectors, atol=1e-5)


def test_photos_that_cannot_be_read_have_no_vector(model, photos):
    found = keras_resnet.embed(model, [photos.parent / "loose"])
    assert [name.rpartition("/")[2] for name in found.names] == ["fine.jpg"]
    assert found.vectors.shape == (1, 64)
    ((name, problem),) = found.problems.items()
    assert name.endswith("broken.jpg")
    assert "truncated JPEG" in problem
    with pytest.raises(UserError, match=r"broken\.jpg is a truncated JPEG"):
        explain.heatmaps(model, [photos.parent / "loose" / "broken.jpg"])
    with pytest.raises(UserError, match="no such file"):
        keras_resnet.embed(model, ["nowhere.jpg"])


def test_heat_maps_lie_on_what_the_network_saw(model, photos):
    file = photos.parent / "loose" / "fine.jpg"
    maps = explain.heatmaps(model, [file], CLASSES[1])
    x = keras_resnet.preprocess(model, file)
    same = explain.heatmaps(model, x, 1, prepared=True)
    np.testing.assert_allclose(maps.signed, same.signed, atol=1e-5)
    assert maps.photos.shape == (1, 32, 32, 3)
    picture = explain.overlay(maps.photos[0], maps.values[0, 0])
    np.testing.assert_array_equal(explain.overlay(file, maps.values[0, 0], model=model), picture)
    assert explain.overlay(file, maps.values[0, 0]).shape == (50, 40, 3)


def test_nearest_rows():
    found = explain.Embeddings(("a", "b", "c"), np.eye(3, dtype="float32") * [[1], [5], [2]], {})
    places, cosines = found.nearest(np.array([[0.6, 0.8, 0]]), 2)
    assert places.tolist() == [[1, 0]]
    np.testing.assert_allclose(cosines, [[0.8, 0.6]], atol=1e-6)


@pytest.mark.ci
def test_an_export_gives_the_same_vectors(model_file, model, photos, tmp_path):
    keras_resnet.export.export_saved_model(model, tmp_path / "served")
    files = sorted((photos.parent / "loose").iterdir())
    served = load_embedder(tmp_path / "served")(files)
    own = load_embedder(model_file)(files)
    assert served.names == own.names
    assert served.problems == own.problems
    np.testing.assert_allclose(served.vectors, own.vectors, atol=1e-4, rtol=1e-4)


@pytest.mark.ci
def test_predictions_are_those_of_predict(model, photos, found):
    rows = {
        path: {row["class"]: row["probability"] for row in answer}
        for path, answer in load_predictor_of(model).predict([photos / "test"])
    }
    predictions = found.predictions
    assert sorted(predictions.paths) == sorted(rows)
    for path, values in zip(predictions.paths, predictions.probabilities, strict=True):
        expected = [rows[path][name] for name in CLASSES]
        np.testing.assert_allclose(values, expected, atol=1e-5)
    labels = [CLASSES[label] for label in predictions.labels]
    assert labels == [path.split("/")[-2] for path in predictions.paths]


def load_predictor_of(model):
    return keras_resnet.export.Predictor.of_model(model, top=3)


@pytest.mark.ci
def test_what_the_gallery_shows(found):
    predictions = found.predictions
    wrong = predictions.classes != predictions.labels
    assert len(found.mistakes) == wrong.sum() > 0
    sure = [shot.probabilities[shot.prediction] for shot in found.mistakes]
    assert sure == sorted(sure, reverse=True)
    assert all(shot.label != shot.prediction for shot in found.mistakes)
    assert all(shot.heat_of_label is not None for shot in found.mistakes)
    assert sum(one.examples for one in found.classes) == 12
    rates = [one.correct / one.examples for one in found.classes]
    assert rates == sorted(rates)
    for one in found.classes:
        number = CLASSES.index(one.name)
        of_class = predictions.probabilities[predictions.labels == number, number]
        shown = [float(shot.probabilities[number]) for shot in one.best]
        assert shown == sorted(of_class.tolist(), reverse=True)[:2]
        assert [float(s.probabilities[number]) for s in one.worst] == sorted(of_class.tolist())[:2]
        paths = [shot.path for shot in (*one.best, *one.worst, *one.doubtful)]
        assert len(paths) == len(set(paths))


@pytest.mark.ci
def test_neighbors_are_the_same_picture_in_training(found):
    """The test images are the first of the training images: each is its own neighbor."""
    for shot in found.mistakes:
        first = shot.neighbors[0]
        assert first.path == shot.path.replace("/test/", "/train/")
        assert first.similarity == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(first.photo, shot.photo)
        assert first.label == CLASSES[shot.label]


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.ci
def test_the_command_writes_the_gallery(model_file, photos, tmp_path, capsys):
    arguments = [f"--model={model_file}", f"--data={photos}", f"--output={tmp_path / 'out'}"]
    assert main(["explain", *arguments, "--per_class=1", "--training_split=train"]) == 0
    said = capsys.readouterr().out
    assert "12 images" in said
    assert "images right" in said
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        values = [float(row[f"p_{name}"]) for name in CLASSES]
        assert sum(values) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == CLASSES[int(np.argmax(values))]
        assert row["label"] in row["path"]
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    assert all(image["alt"] for image in page.images)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    assert not {"script", "link", "b", "i"} & set(page.tags)  # names are text
    assert "://" not in text
    for name in CLASSES:
        assert name in page.words
    assert any("/train/" in image["alt"] for image in page.images)
    for sheet in ("mistakes.png", "classes.png"):
        assert (tmp_path / "out" / sheet).stat().st_size > 1000


@pytest.mark.ci
def test_photos_without_labels(model_file, photos, tmp_path, capsys):
    loose = photos.parent / "loose"
    arguments = [f"--model={model_file}", f"--output={tmp_path}", str(loose)]
    assert main(["explain", *arguments]) == 1
    said = capsys.readouterr()
    assert "1 of 2 files could not be read" in said.err
    with open(tmp_path / "predictions.csv", newline="") as file:
        fine, broken = csv.DictReader(file)
    assert fine["label"] == ""
    assert fine["prediction"] in CLASSES
    assert "truncated JPEG" in broken["error"]
    assert "surest mistakes" not in (tmp_path / "index.html").read_text()
    assert not (tmp_path / "mistakes.png").exists()


@pytest.mark.ci
def test_the_command_embed(model_file, photos, tmp_path, capsys):
    loose = photos.parent / "loose"
    assert main(["embed", f"--model={model_file}", f"--output={tmp_path}/v.npz", str(photos)]) == 0
    assert "27 vectors of 64 numbers" in capsys.readouterr().out
    with np.load(tmp_path / "v.npz") as file:
        assert file["vectors"].shape == (27, 64)
        assert [str(path) for path in file["paths"]] == sorted(file["paths"])
    assert main(["embed", f"--model={model_file}", f"--output={tmp_path}/v.csv", str(loose)]) == 1
    assert "1 of 2 files could not be read" in capsys.readouterr().err
    with open(tmp_path / "v.csv", newline="") as file:
        fine, broken = csv.DictReader(file)
    vector = np.array([float(fine[f"feature_{i}"]) for i in range(64)], "float32")
    expected = load_embedder(model_file)([loose / "fine.jpg"]).vectors[0]
    np.testing.assert_array_equal(vector, expected)  # nine digits hold a float32
    assert "truncated JPEG" in broken["error"]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["explain", "--output=x"], 2, "takes --workdir=DIR or --model=PATH"),
        (["explain", "--model=m.keras"], 2, "--output=FOLDER is missing"),
        (["explain", "--model=m.keras", "--output={tmp}"], 2, "--data=FOLDER with labelled"),
        (["explain", "--model=m.keras", "--output={tmp}", "--data=d", "p"], 2, "not both"),
        (["explain", "--workdir=w", "--output={tmp}", "--split=test"], 2, "goes with --data"),
        (["explain", "--model=m.keras", "--output={tmp}", "nowhere.jpg"], 1, "no such file"),
        (["explain", "--workdir={tmp}/none", "--output={tmp}"], 1, "no such folder"),
        (["embed", "--model=m.keras", "p"], 2, "ends in .npz or .csv"),
        (["embed", "--output=v.npz", "p"], 2, "takes --model=PATH or --workdir=DIR"),
        (["embed", "--model=m.keras", "--output=v.npz"], 2, "name one image file"),
        (["embed", "--model=m.keras", "--output={tmp}/no/v.npz", "p"], 1, "there is no folder"),
    ],
)
def test_slips_on_the_command_line(command, code, message, tmp_path, capsys):
    assert main([part.format(tmp=tmp_path) for part in command]) == code
    assert message in capsys.readouterr().err


def test_an_export_has_no_layers_to_look_into(photos, tmp_path, capsys):
    (tmp_path / "model.tflite").write_bytes(b"no network is read")
    arguments = [f"--model={tmp_path}/model.tflite", f"--output={tmp_path}/out", str(photos)]
    assert main(["explain", *arguments]) == 1
    assert "holds no Keras model" in capsys.readouterr().err
    with pytest.raises(UserError, match="gives probabilities and no vectors"):
        load_embedder(tmp_path / "model.tflite")


def test_names_from_elsewhere_are_escaped_in_tables():
    """As in those of predict: no formula, no control character, nothing that is no UTF-8."""
    names = ("=1+1", "a\x1b[31m\n", "b\udcff")
    escaped = ["'=1+1", r"a\x1b[31m\n", r"b\xff"]
    tables = []
    for table in (
        Embeddings(names[:2], np.zeros((2, 1), "float32"), {names[2]: "gone"}),
        Predictions("", names, names[:2], np.array([0, 1]), np.eye(2, 3), {names[2]: "gone"}),
    ):
        text = io.StringIO(newline="")
        table.write_csv(text)
        text.getvalue().encode()  # which surrogates would refuse
        tables.append(list(csv.reader(io.StringIO(text.getvalue(), newline=""))))
    assert [row[0] for row in tables[0][1:]] == escaped
    assert [row[0] for row in tables[1][1:]] == escaped
    assert [row[1] for row in tables[1][1:]] == [*escaped[:2], ""]
