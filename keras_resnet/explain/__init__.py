"""What a network looks at: heat maps, embeddings, and the images on which it is right and wrong.

    maps = keras_resnet.explain.heatmaps(model, ["cat.jpg"])
    picture = keras_resnet.explain.overlay(maps.photos[0], maps.values[0, 0])
    found = keras_resnet.explain.gallery_of_run("runs/mine")

Heat maps and embeddings run on every backend of Keras; reading photos needs TensorFlow.
"""

from keras_resnet.explain.embedding import Embeddings, embed
from keras_resnet.explain.gallery import Gallery, gallery
from keras_resnet.explain.heatmaps import HeatMaps, heatmaps
from keras_resnet.explain.label_set_gallery import LabelSetGallery
from keras_resnet.explain.label_set_predictions import LabelSetPredictions
from keras_resnet.explain.of_run import gallery_of_run
from keras_resnet.explain.overlays import overlay
from keras_resnet.explain.predictions import Predictions, predict_photos, predict_source

__all__ = [
    "Embeddings",
    "Gallery",
    "HeatMaps",
    "LabelSetGallery",
    "LabelSetPredictions",
    "Predictions",
    "embed",
    "gallery",
    "gallery_of_run",
    "heatmaps",
    "overlay",
    "predict_photos",
    "predict_source",
]
