"""Which rewrites of the training call a device is better off with."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Form:
    """Which rewrites are made, and how.

    Attributes:
        gram: statistics of widening 1×1 convolutions come from the Gram matrix of their inputs.
        pools_first: the stem pools before it normalizes.
        blocks_stem: the stem's convolution takes blocks of pixels as channels.
        joins_relu: normalization and ReLU are one operation, which keeps its input only.
        sums_by_products: sums over pixels are products with ones, for a matrix unit.
        folds_scale: behind the Gram matrix the normalization's scale goes into the kernel, and
            what the convolution reads is kept, not recomputed: one call for oneDNN.
        gram_channels: the Gram matrix only of inputs of so many channels or fewer; None for any.
        kernel_products: gradients of the kernels of 1×1 convolutions are products of matrices.
    """

    gram: bool = False
    pools_first: bool = False
    blocks_stem: bool = False
    joins_relu: bool = False
    sums_by_products: bool = False
    folds_scale: bool = False
    gram_channels: int | None = None
    kernel_products: bool = False


# With oneDNN. 128 channels are the first two stages of ResNet-50: with the third it was as fast, in
# all four slower. A pixel's part of the Gram matrix costs C² multiply-adds and saves bytes in
# proportion to C.
_ON_A_CPU = Form(gram=True, folds_scale=True, gram_channels=128, kernel_products=True)

_ON_A_TPU = Form(gram=True, pools_first=True, sums_by_products=True)

# What `auto` takes, by engine and kind of device, in bfloat16: measured (docs/results.md, "A leaner
# step"). What is not here runs as it is written down.
MEASURED_FASTER = {
    ("jax", "TPU"): _ON_A_TPU,
    ("tensorflow", "TPU"): _ON_A_TPU,
    ("jax", "GPU"): Form(pools_first=True, blocks_stem=True, joins_relu=True),
    ("tensorflow", "AMX"): _ON_A_CPU,
}


def form_of(choice: str, device_kind: str, compute_dtype: str, engine: str) -> Form | None:
    """Returns the form of a step, `None` for the plain one.

    Args:
        choice: "auto", "always" or "never": the config's `fused_step`.
        device_kind: "TPU", "GPU", "CPU", or "AMX" for a CPU with units for bfloat16 matrices.
        compute_dtype: of the network.
        engine: "tensorflow" or "jax".
    """
    if choice == "never" or compute_dtype not in ("float32", "bfloat16"):
        return None
    if choice == "always":
        if engine == "tensorflow" and device_kind in ("CPU", "AMX"):
            return _ON_A_CPU
        on_gpu = engine == "jax" and device_kind == "GPU"
        # TensorFlow multiplies float32 on a GPU in fewer digits than the variance needs.
        gram = engine == "jax" or device_kind != "GPU"
        return Form(gram, True, on_gpu, on_gpu, sums_by_products=device_kind == "TPU")
    return MEASURED_FASTER.get((engine, device_kind)) if compute_dtype == "bfloat16" else None


def describe(form: Form | None) -> str:
    """Returns the form in words: "plain", or the names of its rewrites."""
    if form is None:
        return "plain"
    names = {
        "statistics of 1×1 convolutions from their inputs": form.gram,
        "pool before the stem's normalization": form.pools_first,
        "stem of blocks of pixels": form.blocks_stem,
        "kernel gradients of 1×1 convolutions as products": form.kernel_products,
        "normalization with ReLU": form.joins_relu,
    }
    return "fused: " + ", ".join(name for name, there in names.items() if there)
