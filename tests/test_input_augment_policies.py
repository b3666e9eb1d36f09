"""Which operation, how strong, how often: policies, color jitter and random erasing."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import smooth_image
from PIL import Image, ImageEnhance

from keras_resnet.input_pipeline import DataError
from keras_resnet.input_pipeline.augment import (
    check_augment,
    color,
    erasing,
    operations,
    pixels,
    policies,
    settings,
)

SHAPE = (40, 52)
PHOTO = np.asarray(smooth_image(24, 30))


def choose(policy, rows):
    numbers = tf.constant(rows, tf.float32)
    chosen, arguments = policies.parse_policy(policy).choose(numbers, SHAPE)
    return np.array(operations.NAMES)[chosen.numpy()], arguments.numpy()


def timm_argument(name, m, sign, increasing):
    """timm's LEVEL_TO_ARG for the operations of RandAugment; `sign` is what it draws."""
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return max(0.1, 1 + sign * m / 10 * 0.9) if increasing else m / 10 * 1.8 + 0.1
    return {
        "Rotate": sign * m / 10 * 30,
        "Posterize": 4 - int(m / 10 * 4) if increasing else int(m / 10 * 4),
        "Solarize": 256 - int(m / 10 * 256) if increasing else int(m / 10 * 256),
        "SolarizeAdd": int(m / 10 * 110),
        "ShearX": sign * m / 10 * 0.3,
        "ShearY": sign * m / 10 * 0.3,
        "TranslateX": sign * m / 10 * 0.45 * SHAPE[1],
        "TranslateY": sign * m / 10 * 0.45 * SHAPE[0],
    }.get(name, 0)


@pytest.mark.parametrize("increasing", [False, True])
@pytest.mark.parametrize("magnitude", range(11))
def test_rand_augment_arguments_equal_timm(magnitude, increasing):
    rows = [[(op + 0.5) / 15, 0, sign, 0.5] for op in range(15) for sign in (0.1, 0.9)]
    policy = f"rand-m{magnitude}-mstd0-n1-p1-inc{int(increasing)}"
    names, arguments = choose(policy, rows)
    assert len(set(names[:, 0])) == 15
    for name, argument, row in zip(names[:, 0], arguments[:, 0], rows, strict=True):
        sign = -1 if row[2] < 0.5 else 1
        expected = timm_argument(name, magnitude, sign, increasing)
        assert argument == pytest.approx(expected, abs=1e-5), name


def test_rand_augment_draws_as_stated():
    """Uniform over 15 operations, half of them applied, magnitude normal and cut to 0..10."""
    rows = np.random.default_rng(0).random((40_000, 8), np.float32)
    names, arguments = choose("rand-m9-mstd0.5", rows)
    counts = {name: (names == name).mean() for name in operations.NAMES}
    assert counts.pop("Identity") == pytest.approx(0.5, abs=0.01)
    # Standard deviation 0.0006.
    np.testing.assert_allclose(list(counts.values()), np.full(15, 1 / 30), atol=0.003)
    turns = arguments[names == "Rotate"]
    assert (turns < 0).mean() == pytest.approx(0.5, abs=0.05)
    magnitudes = np.abs(turns) / 3
    drawn = np.clip(np.random.default_rng(1).normal(9, 0.5, 100_000), 0, 10)
    assert magnitudes.max() == pytest.approx(10, abs=1e-5)
    assert magnitudes.mean() == pytest.approx(drawn.mean(), abs=0.04)
    assert magnitudes.std() == pytest.approx(drawn.std(), abs=0.03)


def test_auto_augment_follows_the_tables():
    # Cubuk et al. 2019, table 9: sub-policy 0 and table 7: sub-policy 10, arguments as torchvision.
    rows = [[0.01, 0.39, 0.59, 0.9, 0.1], [0.01, 0.41, 0.61, 0.9, 0.1]]
    names, arguments = choose("auto-imagenet", rows)
    assert names.tolist() == [["Posterize", "Rotate"], ["Identity", "Identity"]]
    np.testing.assert_allclose(arguments[0], [4, -30])
    names, arguments = choose("auto-cifar10", [[10.5 / 25, 0.69, 0.49, 0.1, 0.9]])
    assert names.tolist() == [["Color", "TranslateX"]]
    np.testing.assert_allclose(arguments[0], [0.3, int(150 / 331 * 52 * 8 / 9)], rtol=1e-6)
    # Over all sub-policies: the means of the probabilities in the paper's table 9.
    rows = np.random.default_rng(0).random((40_000, 5), np.float32)
    names, _ = choose("auto-imagenet", rows)
    assert (names[:, 0] != "Identity").mean() == pytest.approx(13.8 / 25, abs=0.01)
    assert (names[:, 1] != "Identity").mean() == pytest.approx(17.2 / 25, abs=0.01)


def test_trivial_augment_is_uniform_over_operations_and_strengths():
    rows = np.random.default_rng(0).random((60_000, 3), np.float32)
    names, arguments = choose("trivial", rows)
    assert names.shape == (60_000, 1)
    found, counts = np.unique(names, return_counts=True)
    assert len(found) == 14
    np.testing.assert_allclose(counts / 60_000, np.full(14, 1 / 14), atol=0.005)
    ranges = {
        "ShearX": (-0.99, 0.99), "TranslateY": (-32, 32), "Rotate": (-135, 135),
        "Brightness": (0.01, 1.99), "Posterize": (2, 8), "Solarize": (0, 255),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values = arguments[names == name]
        assert values.min() == pytest.approx(low, abs=1e-4)
        assert values.max() == pytest.approx(high, abs=1e-4)
    bits, counts = np.unique(arguments[names == "Posterize"], return_counts=True)
    # 31 steps over 8 … 2 bits, rounded to even.
    expected = np.unique(8 - np.round(np.arange(31) / 5), return_counts=True)[1] / 31
    np.testing.assert_array_equal(bits, np.arange(2, 9))
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=0.03)


def pil_jitter(image, order, factors):
    """torchvision's ColorJitter on PIL images, without hue."""
    image = Image.fromarray(image)
    for place in order:
        kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[place]
        image = kind(image).enhance(factors[place])
    return np.asarray(image)


def test_color_jitter_equals_torchvisions_on_pil():
    strengths = (0.4, 1.5, 0.2, 0.0)
    jitter = tf.function(lambda numbers: color.color_jitter(PHOTO, numbers, strengths))
    orders = list(itertools.permutations(range(3)))
    for turn, order in enumerate(orders):
        numbers = np.random.default_rng(turn).random(5, np.float32)
        numbers[4] = (turn + 0.5) / 6
        low = np.maximum(0, 1 - np.array(strengths))
        factors = (low + (1 + np.array(strengths) - low) * numbers[:4]).tolist()
        difference = np.abs(
            jitter(tf.constant(numbers)).numpy().astype(int) - pil_jitter(PHOTO, order, factors)
        )
        # Factors are float32 here and float64 there: a value may fall to the integer below.
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.3])
def test_hue_turns_the_color_wheel(turn):
    result = pixels.hue(tf.constant(PHOTO), tf.constant(turn, tf.float32)).numpy().astype(int)
    expected = np.empty(PHOTO.shape)
    for row, column in np.ndindex(PHOTO.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(PHOTO[row, column] / 255))
        expected[row, column] = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    assert np.abs(result - 255 * expected).max() < 0.51


def test_color_jitter_hue_alone_and_gray_images():
    gray = np.repeat(PHOTO[..., :1], 3, axis=2)
    numbers = tf.constant([0.5, 0.5, 0.9, 0.8, 0.0])
    jittered = color.color_jitter(tf.constant(gray), numbers, (0, 0, 0.9, 0.5))
    np.testing.assert_array_equal(jittered, gray)  # neither saturation nor hue touches gray


def timm_window(height, width, numbers):
    """timm's RandomErasing._erase with the given uniform numbers."""
    for attempt in range(10):
        area = (0.02 + (1 / 3 - 0.02) * numbers[1 + attempt]) * height * width
        aspect = np.exp(np.log(0.3) + (np.log(1 / 0.3) - np.log(0.3)) * numbers[11 + attempt])
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if w < width and h < height:
            top, left = numbers[21] * (height - h + 1), numbers[22] * (width - w + 1)
            return int(top), int(left), h, w
    return None


@pytest.mark.parametrize(("height", "width"), [(24, 30), (8, 60), (1, 1)])
def test_random_erasing_erases_timms_rectangle(height, width):
    image = np.full((height, width, 3), 7, np.uint8)
    erase = tf.function(lambda numbers: erasing.random_erasing(tf.constant(image), numbers, 0.25))
    for trial in range(30):
        numbers = np.random.default_rng(trial).random(25, np.float32)
        numbers[0] = 0.24 if trial % 3 else 0.26
        result = erase(tf.constant(numbers)).numpy()
        window = timm_window(height, width, numbers.astype(float))
        if window is None or trial % 3 == 0:
            np.testing.assert_array_equal(result, image)
            continue
        top, left, h, w = window
        inside = result[top : top + h, left : left + w].astype(int)
        assert h * w == 0 or (inside != 7).mean() > 0.5
        outside = result.copy()
        outside[top : top + h, left : left + w] = 7
        np.testing.assert_array_equal(outside, image)


def test_erased_pixels_are_normalized_noise():
    image = np.zeros((200, 200, 3), np.uint8)
    numbers = np.full(25, 0.5, np.float32)
    numbers[0], numbers[1:11] = 0.0, 0.999
    result = erasing.random_erasing(tf.constant(image), tf.constant(numbers), 1.0).numpy()
    top, left, height, width = timm_window(200, 200, numbers.astype(float))
    noise = result[top : top + height, left : left + width] / 255
    normalized = (noise - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert height * width > 13_000
    # Cutting to 0..255 takes 2 to 4 % off each tail.
    np.testing.assert_allclose(normalized.mean((0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(normalized.std((0, 1)), 0.96, atol=0.04)
    columns = np.corrcoef(normalized[:, ::2].ravel()[:10_000], normalized[:, 1::2].ravel()[:10_000])
    assert abs(columns[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "trivail"}, "Unknown augmentation policy 'trivail'. Did you mean 'trivial'"),
        ({"policy": "rand-m11"}, r"policy 'rand-m11': 'm11' must be in 0\.\.10"),
        ({"policy": "rand-x3"}, "'x3' is none of m, mstd, n, p and inc"),
        ({"policy": "rand-n1.5"}, "'n1.5' is none of .* whole"),
        ({"policy": 3}, "policy is 3; it must be '' or one of rand-m9"),
        ({"color_jitter": (0.4,)}, r"color_jitter is \(0.4,\); it must be \(\) or four numbers"),
        ({"color_jitter": (0, 0, 0, 0.6)}, "hue up to 0.5"),
        ({"random_erasing": 1.5}, r"random_erasing is 1.5; it must be a probability, 0\.\.1"),
        ({"mixup": -1.0}, "mixup is -1.0; it must be the alpha of a beta distribution, 0 or more"),
        ({"repeats": 0}, "repeats is 0; it must be a number of times, 1 or more"),
        ({"cutmixx": 1.0}, "Unknown augmentation 'cutmixx'. Did you mean 'cutmix'"),
    ],
)
def test_values_that_cannot_be_used(options, message):
    with pytest.raises(DataError, match=message):
        check_augment(options)


def test_parsed_policies_and_what_counts_as_off():
    expected = policies.RandAugment(9.0, 0.5, layers=2, probability=0.5, increasing=True)
    assert policies.parse_policy("rand-m9-mstd0.5-inc1") == expected
    off = {name: row.default for name, row in settings.AUGMENTATIONS.items()}
    assert check_augment(off) == {}
    assert check_augment({**off, "color_jitter": (0.0, 0.0, 0.0, 0.0)}) == {}
    assert check_augment({"mixup": 0.2}) == {"mixup": 0.2, "mix_probability": 1.0}
