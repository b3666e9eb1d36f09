"""The kinds of TPU, as Cloud TPU names them, and what trains on each."""

from __future__ import annotations

import re
from typing import NamedTuple

# Eight chips (or cores of v2 to v5p) are the most that one host has.
ONE_HOST = 8
# The newest TensorFlow of a runtime image for several hosts, and those of the extra `tpu`.
POD_TENSORFLOW, OUR_TENSORFLOW = "2.18.0", ("2.19", "2.20")
CHIPS = (1, 4, 8, 16, 32, 64, 128, 256)  # of v5e and v6e


NO_TPU7X = (
    "gcloud compute tpus, which this launcher calls, has no TPU7x: it is rented through GKE; "
    'docs/tpu.md has the manifest, in "TPU7x by GKE"'
)
NO_SERVER = (
    "several hosts with --engine=tensorflow need a TensorFlow server on each, {given}. Google's "
    f"images (tpu-vm-tf-X.Y.Z-pod-pjrt) end at {POD_TENSORFLOW}, and the extra tpu is TensorFlow "
    f"{' or '.join(OUR_TENSORFLOW)}, which does not talk to it: take --engine=jax"
)


class Family(NamedTuple):
    """A generation of TPUs.

    Attributes:
        sizes: the sizes of a slice; empty for every multiple of eight cores.
        image: the runtime image, which has neither TensorFlow nor JAX: both are installed.
        engine: what trains on one host unless --engine says otherwise.
        compiled: the engines whose ResNet-50 step the TPU compiler took (docs/tpu.md has figures).
            None of them has run on a real chip.
    """

    sizes: tuple[int, ...]
    image: str
    engine: str
    compiled: tuple[str, ...]


FAMILIES = {
    "v2": Family((), "tpu-ubuntu2204-base", "tensorflow", ()),
    "v3": Family((), "tpu-ubuntu2204-base", "tensorflow", ()),
    "v4": Family((), "tpu-ubuntu2204-base", "tensorflow", ("tensorflow", "jax")),
    "v5litepod": Family(CHIPS, "v2-alpha-tpuv5-lite", "tensorflow", ("tensorflow", "jax")),
    "v5p": Family((), "v2-alpha-tpuv5", "tensorflow", ("jax",)),
    # TensorFlow on several chips of v6e is unproven.
    "v6e": Family(CHIPS, "v2-alpha-tpuv6e", "jax", ("tensorflow", "jax")),
}


def find_type(text: str) -> tuple[Family | None, int, str]:
    """Returns the family and the size of a type such as "v5litepod-8", or why there is none."""
    name, _, size = text.partition("-")
    family = FAMILIES.get(name)
    count = int(size) if re.fullmatch("[1-9][0-9]{0,4}", size) else 0
    if re.match("(tpu)?v?7", name):
        problem = NO_TPU7X
    elif name in ("v5e", "v5lite"):
        problem = f"Cloud TPU calls it v5litepod-{count or 8}"
    elif family is None or not count:
        problem = "a type such as v5litepod-8, v5p-8, v6e-8, v4-8"
    elif family.sizes and count not in family.sizes:
        problem = f"slices of {name} have {', '.join(map(str, family.sizes))} chips"
    elif not family.sizes and count % ONE_HOST:
        problem = f"the number is that of cores, a multiple of 8: {name}-8, {name}-32"
    else:
        return family, count, ""
    return None, 0, problem


def choose(family: Family, size: int, engine: str, version: str) -> tuple[str, str, str]:
    """Returns (engine, runtime image, problem).

    Args:
        family, size: what `find_type` found.
        engine, version: as given; empty where nobody has chosen.
    """
    several = size > ONE_HOST
    engine = engine or ("jax" if several else family.engine)
    ours = "|".join(map(re.escape, OUR_TENSORFLOW))
    has_server = re.fullmatch(rf"tpu-vm-tf-({ours})\.\d+-pod(-pjrt)?", version)
    if several and engine == "tensorflow" and not has_server:
        given = f"and --version={version} has none that fits" if version else "from its image"
        return engine, version, NO_SERVER.format(given=given)
    return engine, version or family.image, ""
