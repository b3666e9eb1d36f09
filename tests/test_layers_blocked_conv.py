"""The convolution of blocks of pixels against JAX's with a stride."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("a form for JAX", allow_module_level=True)

import jax
import jax.numpy as jnp

from keras_resnet.layers.jax_blocked_conv import blocked_conv

CASES = {  # sizes, kernel, stride, padding, channels
    "stem": ((32, 32), (7, 7), 2, 3, 3),
    "odd sizes": ((31, 28), (7, 7), 2, 3, 3),
    "pixels that no window reaches": ((13, 14), (3, 3), 4, 0, 1),
    "axes of their own": ((15, 12), (5, 2), (3, 1), (2, 0), 4),
    "kernel below the stride": ((11, 9), (1, 2), 3, 1, 2),
    "stride 1": ((6, 5), (3, 3), 1, 1, 3),
    "signal": ((50,), (9,), 4, 4, 2),
    "volume": ((7, 8, 9), (3, 4, 5), (2, 1, 3), (1, 0, 2), 1),
    "window larger than the image": ((3, 4), (5, 5), 2, 0, 3),
}


def _plain_conv(inputs, kernel, stride, padding):
    rank = kernel.ndim - 2
    axes = "DHW"[-rank:]
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        np.broadcast_to(stride, rank).tolist(),
        [(border, border) for border in np.broadcast_to(padding, rank).tolist()],
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def _arrays(sizes, kernel, channels, filters=5, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = (2, *sizes, channels), (*kernel, channels, filters)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


@pytest.mark.parametrize("channel_multiple", [1, 8])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_convolution_and_so_are_its_gradients(case, channel_multiple):
    sizes, kernel, stride, padding, channels = CASES[case]
    inputs, kernel = _arrays(sizes, kernel, channels)
    expected, plain = jax.vjp(lambda x, w: _plain_conv(x, w, stride, padding), inputs, kernel)
    outputs, blocked = jax.vjp(
        lambda x, w: blocked_conv(x, w, stride, padding, channel_multiple), inputs, kernel
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    upstream = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape), "float32")
    for ours, theirs in zip(blocked(upstream), plain(upstream), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-5)  # sums of up to 512 terms


@pytest.mark.parametrize(("channel_multiple", "channels"), [(1, 12), (8, 16)])
def test_the_stem_of_imagenet_has_the_shapes_of_the_source(channel_multiple, channels):
    inputs, kernel = (
        jax.ShapeDtypeStruct(shape, "bfloat16") for shape in ((8, 224, 224, 3), (7, 7, 3, 64))
    )
    run = jax.make_jaxpr(lambda x, w: blocked_conv(x, w, 2, 3, channel_multiple))
    (conv,) = (
        equation
        for equation in run(inputs, kernel).eqns
        if equation.primitive.name == "conv_general_dilated"
    )
    shapes = [variable.aval.shape for variable in (*conv.invars, *conv.outvars)]
    assert shapes == [(8, 115, 115, channels), (4, 4, channels, 64), (8, 112, 112, 64)]
    assert conv.outvars[0].aval.dtype == "bfloat16"
    assert set(conv.params["window_strides"]) == {1}


def test_it_says_what_does_not_fit():
    inputs, kernel = _arrays((8, 8), (3, 3), 3)
    with pytest.raises(ValueError, match=r"\(3, 3, 3, 5\) does not fit .* \(2, 8, 8, 2\)"):
        blocked_conv(inputs[..., :2], kernel, 2, 1)
    with pytest.raises(ValueError, match="does not fit"):
        blocked_conv(inputs[0], kernel, 2, 1)
    with pytest.raises(ValueError, match=r"`stride` .* \(2, 2, 2\)"):
        blocked_conv(inputs, kernel, (2, 2, 2), 1)
