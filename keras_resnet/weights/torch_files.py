"""PyTorch's files: nothing in them is run, and what is no tensor is not looked at."""

import io
import re
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.bounds import Budget, RefusedError, bounded_process, one_line, opened_zip
from keras_resnet.weights.checkpoint import PLAIN, WeightsError, note
from keras_resnet.weights.pickle_costs import hashed_values

# Where training scripts keep a state dict, the first of them that has tensors: averaged weights
# before the others, as timm has it.
STATES = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "state_dict", "model_state_dict"),
    *("model_state", "model", "net", "network", "module", "params", "weights"),
)
# Of torch.optim.swa_utils.AveragedModel: 0 means that nothing was averaged yet.
_AVERAGED = "n_averaged"
# In files from before PyTorch 1.6: a magic number, a version, the system, the content, its keys.
_OLD_PICKLES = 5
_HASHED_PER_BYTE = 10
_MAPPINGS = 500  # in one another; checkpoints have two or three
# What training scripts put beside the tensors. None of it is made: `_Inert` stands in its place.
_INERT_NAMES = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float16", "Float32", "Float64", "Bool")),
    *(f"numpy.dtypes.{u}Int{bits}DType" for u in ("", "U") for bits in (8, 16, 32, 64)),
    *(
        f"pathlib{module}.{pure}{kind}Path"
        for module in ("", "._local")
        for pure in ("", "Pure")
        for kind in ("Posix", "Windows")
    ),
    "pathlib.Path",
    "datetime.datetime",
    "datetime.timedelta",
)


class _Inert:
    """Takes whatever a pickle hands over and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read_state(torch: types.ModuleType, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict, alone or in a training script's checkpoint.

    Raises:
        WeightsError: if the file is broken, holds what could run code, or no tensors.
    """
    stand_ins = [(_Inert, name) for name in _INERT_NAMES]
    budget = Budget(path)
    _check_pickles(path)
    try:
        # A pickle of nothing but tensors can still ask for any number of copies of what it holds.
        with torch.serialization.safe_globals(stand_ins), bounded_process(budget):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, ...
        raise WeightsError(_failure(path, error)) from error
    unused: list[str] = []
    found = list(_states(content, "", unused))
    if not found:
        raise WeightsError(
            f"{path} holds no state dict: no mapping of names to tensors, alone or under "
            f"{', '.join(map(repr, STATES))}."
        )
    where, state = found[0]
    others = [repr(name) for name, _ in found[1:]]
    others += [f"{name!r} (which has averaged nothing yet)" for name in unused]
    if others:
        number = 1 + len(others)
        note(f"{path}: of {number} state dicts {where!r} was taken, not {', '.join(others)}.")
    return {name: _to_numpy(torch, name, tensor, budget) for name, tensor in state.items()}


def _check_pickles(path: Path) -> None:
    """Raises WeightsError for a file that would take PyTorch more time or memory than its size."""
    try:
        if zipfile.is_zipfile(path):
            with opened_zip(Budget(path)) as archive:
                names = [name for name in archive.namelist() if name.endswith(".pkl")]
                hashed = sum(hashed_values(io.BytesIO(archive.read(name))) for name in names)
        else:
            hashed = 0
            with path.open("rb") as file:
                for _ in range(_OLD_PICKLES):
                    hashed += hashed_values(file)
                    if not file.peek(1):
                        break
    except RefusedError:
        raise
    except Exception as error:  # no pickle, of which PyTorch has its own to say
        raise WeightsError(_failure(path, error)) from error
    if hashed > _HASHED_PER_BYTE * path.stat().st_size + 1_000_000:
        raise WeightsError(
            f"{path} was refused: its tuples hold each other so often that reading them would take "
            f"{hashed:.1g} steps."
        )


def _states(
    content: Any, where: str, unused: list[str], seen: set[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state dict with the keys that lead to it, the one to take first.

    The keys of averages of nothing go to `unused`. Each mapping counts once: one that holds itself,
    or another twice, would have no end.
    """
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or id(content) in seen or len(seen) >= _MAPPINGS:
        return
    seen.add(id(content))
    inner = [
        found
        for key in STATES
        for found in _states(content.get(key), f"{where}.{key}".removeprefix("."), unused, seen)
    ]
    yield from inner
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and hasattr(value, "detach")
    }
    averaged = tensors.get(_AVERAGED)
    never_averaged = averaged is not None and averaged.numel() == 1 and not int(averaged)
    if tensors and not inner:
        if never_averaged:
            unused.append(where)
        else:
            yield where, tensors


def _failure(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return (
            f"{path} was refused: it holds more than tensors ({wanted[1]}), and unpickling that "
            "could run any code. If you trust where it comes from, load it in PyTorch and save "
            "its state dict alone."
        )
    if "TorchScript" in str(error):
        return (
            f"{path} was refused: it is a TorchScript program. Load it with torch.jit.load in "
            "PyTorch and save its state dict alone: torch.save(model.state_dict(), FILE)."
        )
    return f"{path} is truncated or no PyTorch file of tensors ({one_line(error)})."


def _to_numpy(torch: types.ModuleType, name: str, tensor: Any, budget: Budget) -> np.ndarray:
    tensor = tensor.detach()
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.dtype not in _plain_kinds(torch):
        what = str(tensor.dtype if plain else f"{tensor.layout} on {tensor.device}")
        raise WeightsError(f"{budget.path}: {name!r} holds {what.replace('torch.', '')}; {PLAIN}")
    # A view of one number may say that it has billions.
    budget.take(tensor.numel() * max(tensor.element_size(), 4), repr(name))
    if tensor.dtype in (torch.bfloat16, torch.float16):  # numpy lacks the first
        tensor = tensor.float()
    return tensor.numpy()


def _plain_kinds(torch: types.ModuleType) -> set[Any]:
    integers = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    return {torch.bfloat16, torch.float16, torch.float32, torch.float64} | integers
