"""Metadata of TFLite files: read with flatbuffers and zipfile alone, and by MediaPipe itself."""

import zipfile

import flatbuffers.table
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, keras_answers, tiny_classifier
from flatbuffers import number_types

from keras_resnet.export import export_file, sample_images


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tiny_classifier()
    model.class_names = [*CLASSES[:-1], "sea\nhorse"]
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    samples = sample_images.drawn(model.preprocessing, 4)
    export_file(model, path, format="tflite", samples=samples)
    return model, path


class Table:
    """A table of a flatbuffer; its fields by their numbers in the schema."""

    def __init__(self, data, place):
        self._table = flatbuffers.table.Table(data, place)

    @classmethod
    def root(cls, data):
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _place(self, field):
        return self._table.Offset(4 + 2 * field) + self._table.Pos

    def table(self, field):
        return Table(self._table.Bytes, self._table.Indirect(self._place(field)))

    def tables(self, field):
        offset = self._table.Offset(4 + 2 * field)
        start = self._table.Vector(offset)
        places = [start + 4 * i for i in range(self._table.VectorLen(offset))]
        return [Table(self._table.Bytes, self._table.Indirect(place)) for place in places]

    def text(self, field):
        return self._table.String(self._place(field)).decode()

    def number(self, field, kind=number_types.Uint32Flags):
        return self._table.Get(kind, self._place(field))

    def numbers(self, field, kind):
        return list(self._table.GetVectorAsNumpy(kind, self._table.Offset(4 + 2 * field)))


def metadata_of(path):
    """The ModelMetadata that a model's entry TFLITE_METADATA leads to (schema.fbs)."""
    model = Table.root(path.read_bytes())
    (entry,) = [entry for entry in model.tables(6) if entry.text(0) == "TFLITE_METADATA"]
    buffer = model.tables(4)[entry.number(1)]
    data = bytes(buffer.numbers(0, number_types.Uint8Flags))
    assert data[4:8] == b"M001"
    return Table.root(data)


def test_metadata_say_what_image_classifiers_need(exported):
    model, path = exported
    said = metadata_of(path)
    assert said.text(0) == model.name
    assert said.text(7) == "1.0.0"
    (graph,) = said.tables(3)
    (image,) = graph.tables(2)
    byte, floats = number_types.Int8Flags, number_types.Float32Flags
    assert image.table(3).number(0, byte) == 2  # ImageProperties
    pixels = image.table(3).table(1)
    assert pixels.number(0, byte) == 1  # RGB
    assert (pixels.table(1).number(0), pixels.table(1).number(1)) == (32, 32)
    (unit,) = image.tables(4)
    assert unit.number(0, byte) == 1  # NormalizationOptions
    assert unit.table(1).numbers(0, floats) == [0.0]
    assert unit.table(1).numbers(1, floats) == [1.0]
    assert image.table(5).numbers(0, floats) == [255.0]
    outputs = graph.tables(3)
    assert [output.text(0) for output in outputs] == ["probabilities", "logits"]
    for output in outputs:
        (labels,) = output.tables(6)
        assert (labels.text(0), labels.number(2, byte)) == ("labels.txt", 2)  # of an axis


def test_labels_lie_behind_the_model_and_probabilities_come_first(exported):
    model, path = exported
    with zipfile.ZipFile(path) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        lines = archive.read("labels.txt").decode().splitlines()
    assert lines == [*CLASSES[:-1], "sea\\nhorse"]
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    images = sample_images.smooth_images(1, 32, seed=2)
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], images.astype("float32"))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, keras_answers(model, images), atol=1e-5)


def test_mediapipe_classifies_with_it(exported):
    mediapipe = pytest.importorskip("mediapipe")
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    model, path = exported
    pixels = sample_images.smooth_images(1, 32, seed=2)
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data_=pixels[0].copy())
    with vision.ImageClassifier.create_from_model_path(str(path)) as classifier:
        answer = classifier.classify(image).classifications[0]
    expected = keras_answers(model, pixels)[0]
    assert answer.head_name == "probabilities"
    for category in answer.categories:
        assert category.score == pytest.approx(expected[category.index], abs=1e-4)
    best = CLASSES[expected.argmax()]
    assert answer.categories[0].category_name == best
