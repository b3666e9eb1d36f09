"""The names of a run's state, and what fits into it."""

import os
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_resnet
from keras_resnet.training import checkpoint_file, optimizers, state
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.progress import Progress


def network():
    return keras_resnet.create_model(
        "ResNet18",
        classes=3,
        input_shape=(32, 32, 3),
        depths=(1, 1),
        widths=(8, 8),
        drop_path_rate=0.2,
        dropout_rate=0.1,
    )


def named(model, optimizer):
    optimizer.build(model.trainable_variables)
    pairs = zip(state.average_names(model), state.averaged_variables(model), strict=True)
    return state.named_variables(model, optimizer, dict(pairs))


def test_names_do_not_count_what_else_was_made():
    first = named(network(), optimizers.LAMB(0.1))
    second = named(network(), optimizers.LAMB(0.1))
    assert [*first] == [*second]
    expected = {
        "model/stem_conv/kernel",
        "model/stem_norm/moving_mean",
        "seeds/dropout/0",
        "seeds/stage2_block1_drop_path/0",
        "optimizer/iteration",
        "optimizer/learning_rate",
        "optimizer/stem_conv_kernel_momentum",
        "optimizer/stem_conv_kernel_velocity",
        "average/stem_conv/kernel",
        "average/stem_norm/moving_mean",
    }
    assert first.keys() >= expected
    assert len({id(variable) for variable in first.values()}) == len(first) - len(
        [name for name in first if name.startswith("average/")]  # here the weights themselves
    )
    model = network()
    assert len(model.variables) == len(state.named_variables(model))


def test_loss_scaling_stands_beside_the_optimizer():
    model = network()
    plain = named(model, optimizers.SGD(0.1, momentum=0.9))
    scaled = named(model, keras.optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9)))
    added = [name for name in scaled if name not in plain]
    assert added == [f"optimizer/loss_scale/{name}" for name in (
        "iteration", "learning_rate", "step_counter", "dynamic_scale"
    )]  # fmt: skip
    assert plain.keys() <= scaled.keys()


def test_two_of_one_name_are_told_apart():
    inner = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="x")]) for _ in "ab"]
    inputs = keras.Input((2,))
    model = keras.Model(inputs, inner[1](inner[0](inputs)))
    names = [name for name in state.named_variables(model) if "kernel" in name]
    assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [
        (np.array(7, "int64"), "int32", np.array(7, "int32")),
        (np.array([2**31, 5], "int64"), "uint32", np.array([2**31, 5], "uint32")),
        (np.array([2**32 - 1, 0], "uint32"), "int64", np.array([2**32 - 1, 0], "int64")),
        (np.array([0.1], "float16"), "float16", np.array([0.1], "float16")),
        (np.zeros((0,), "int64"), "int32", np.zeros((0,), "int32")),
    ],
)
def test_whole_numbers_are_cast_where_they_fit(value, dtype, found):
    fitted = state.fitting("x", np.zeros(value.shape, dtype), value)
    assert fitted.dtype == found.dtype
    np.testing.assert_array_equal(fitted, found)


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (np.array(2**31, "int64"), "int32", "2147483648 .* does not fit"),
        (np.array(-1, "int64"), "uint32", "-1 .* does not fit"),
        (np.array(0.5, "float32"), "int32", "x is int32, the state float32"),
        (np.array(0.5, "float32"), "float16", "x is float16, the state float32"),
        (np.array(0.5, "float32"), ml_dtypes.bfloat16, "x is bfloat16, the state float32"),
        (np.array([1], "int32"), "int32", r"x has the shape \(\), the state \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(value, dtype, reason):
    with pytest.raises(ValueError, match=reason):
        state.fitting("x", np.zeros((), dtype), value)


def test_loading_changes_all_or_nothing():
    model = network()
    variables = state.named_variables(model)
    before = state.arrays_of(variables)
    other = {name: array + 1 for name, array in before.items()}
    last = [*other][-1]
    for wrong, reason in (
        ({**other, last: np.zeros(77)}, f"{last} has the shape"),
        ({name: other[name] for name in other if name != last}, f"{last} is not in the state"),
        ({**other, "model/more": np.zeros(1)}, "model/more is in the state, and not here"),
    ):
        with pytest.raises(ValueError, match=reason):
            state.load(variables, wrong)
        for name, array in state.arrays_of(variables).items():
            np.testing.assert_array_equal(array, before[name])
    state.load(variables, other)
    for name, array in state.arrays_of(variables).items():
        np.testing.assert_array_equal(array, other[name])


def test_variables_of_bfloat16():
    variable = keras.Variable(np.array([1.5, -2.0]), dtype="bfloat16")
    (array,) = state.arrays_of({"x": variable}).values()
    assert array.dtype == ml_dtypes.bfloat16
    state.load({"x": variable}, {"x": array * array})
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable).astype("float32"), [2.25, 4])


def save_again(source, target, step):
    """Restores the newest checkpoint in `source` if there is one, and saves its state."""
    model = network()
    optimizer = keras.optimizers.LossScaleOptimizer(optimizers.LAMB(0.1))
    variables = named(model, optimizer)

    def checkpoints(folder):
        return Checkpoints(
            folder,
            lambda: state.arrays_of(variables),
            lambda arrays: state.load(variables, arrays),
            engine=keras.backend.backend(),
        )

    progress = checkpoints(source).restore_newest() or Progress(best_top1=0.5)
    assert not step or progress.best_top1 == 0.5
    progress.step = step
    checkpoints(target).save(progress)


def test_a_checkpoint_goes_to_another_backend_and_back(tmp_path):
    pytest.importorskip("jax")
    keras.utils.set_random_seed(3)
    save_again(tmp_path / "none", tmp_path, 0)
    program = (
        "import pathlib, sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from test_state import save_again\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "save_again(folder, folder, 1)\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
    )
    save_again(tmp_path, tmp_path, 2)
    texts, found = zip(
        *(checkpoint_file.read(tmp_path / f"ckpt-{step}.safetensors") for step in range(3)),
        strict=True,
    )
    assert [text["engine"] for text in texts] == ["tensorflow", "jax", "tensorflow"]
    assert found[0]["optimizer/iteration"].dtype == "int64"
    assert found[1]["optimizer/iteration"].dtype == "int32"
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for name, array in found[0].items():
        np.testing.assert_array_equal(found[1][name], array)
        assert found[2][name].tobytes() == array.tobytes()
