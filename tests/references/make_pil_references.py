"""Writes pil_bicubic.npz: images with hard edges, and what PIL's bicubic filter makes of them.

    python tests/references/make_pil_references.py

Black and white stripes, blocks and noise: the first of PIL's two passes leaves the range of 8 bits
at nearly every pixel, and what it clips there is missing in the second one. Made with Pillow
13.0.0. Up to Pillow 12 the pass order of "tall" was another one, and so its result is.
"""

from pathlib import Path

import numpy as np
from PIL import Image

# Name -> (height, width) of the image and of the resized one.
CASES = {
    "photo": ((75, 100), (64, 85)),
    "half": ((80, 60), (40, 30)),
    "enlarged": ((20, 31), (32, 49)),
    "squeezed": ((40, 100), (32, 32)),
    "tall": ((120, 40), (96, 32)),
}
TARGET = Path(__file__).with_name("pil_bicubic.npz")


def hard_edges(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    blocks = rng.integers(0, 2, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
    image = 255 * blocks[:height, :width]
    image[:, : width // 3] = 255 * rng.integers(0, 2, (height, width // 3, 3))
    image[::2, -width // 4 :] = 0
    return image.astype(np.uint8)


def main() -> None:
    arrays = {}
    for name, (shape, resized) in CASES.items():
        image = hard_edges(*shape)
        arrays[f"{name}_image"] = image
        arrays[f"{name}_resized"] = np.asarray(
            Image.fromarray(image).resize(resized[::-1], Image.Resampling.BICUBIC)
        )
    np.savez_compressed(TARGET, **arrays)


if __name__ == "__main__":
    main()
