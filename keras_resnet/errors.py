"""Errors for the person at the keyboard, and the one "did you mean" of the package.

A message is complete and needs no stack trace. Standard library only: every part of the package,
the input pipeline too, may import this.
"""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: files, data, devices, a work directory.

    Attributes:
        code: the exit code of a command that ends with it.
        details: lines at the end of its text that a command prints as they are, such as a table.
    """

    code = 1
    details = ""


class Interrupted(UserError):
    """A signal ended the run, which can go on from where it is; `code` is the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class UsageError(UserError):
    """The command was given something it does not accept."""

    code = 2


class HostLost(UserError):
    """Another process of the run is gone. The same command in every process resumes, so whoever
    started them can tell by the code (EX_TEMPFAIL of BSD's sysexits.h) that it is worth trying."""

    code = 75


# What people type -> what it is called here: keys of a config and arguments of `create_model`.
SYNONYMS: dict[str, tuple[str, ...]] = {
    **{f"resnet{depth}": (f"CifarResNet{depth}",) for depth in (20, 32, 44, 56, 110, 1202)},
    "arch": ("model.name", "name"),
    "architecture": ("model.name", "name"),
    "model": ("model.name", "name"),
    "network": ("model.name", "name"),
    "variant": ("model.name", "name"),
    "pretrained": ("model.weights", "weights"),
    "checkpoint_path": ("model.weights", "weights"),
    "in_chans": ("input_shape",),
    "in_channels": ("input_shape",),
    "channels": ("input_shape",),
    "num_classes": ("classes",),
    "n_classes": ("classes",),
    "nb_classes": ("classes",),
    "class_count": ("classes",),
    "aa_layer": ("model.antialias", "antialias"),
    "anti_alias": ("model.antialias", "antialias"),
    "drop_rate": ("model.dropout_rate", "dropout_rate"),
    "dropout": ("model.dropout_rate", "dropout_rate"),
    "drop_path": ("model.drop_path_rate", "drop_path_rate"),
    "stochastic_depth": ("model.drop_path_rate", "drop_path_rate"),
    "sync_bn": ("model.synchronized_norm",),
    "global_pool": ("pooling",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "global_batch_size": ("batch_size",),
    "grad_accum": ("accumulate_steps",),
    "accumulation_steps": ("accumulate_steps",),
    "gradient_accumulation_steps": ("accumulate_steps",),
    "num_epochs": ("epochs",),
    "max_epochs": ("epochs",),
    "random_seed": ("seed",),
    "gpus": ("devices",),
    "num_gpus": ("devices",),
    "workers": ("devices", "strategy"),
    "num_workers": ("devices", "strategy"),
    "amp": ("precision",),
    "dtype": ("precision",),
    "fp16": ("precision",),
    "mixed_precision": ("precision",),
    "jit_compile": ("xla",),
    "jit": ("xla",),
    "size": ("data.image_size", "input_shape"),
    "img_size": ("data.image_size", "input_shape"),
    "image_size": ("data.image_size", "input_shape"),
    "input_size": ("data.image_size", "input_shape"),
    "resolution": ("data.image_size", "input_shape"),
    "crop_pct": ("data.crop_ratio", "crop_ratio"),
    "dataset": ("data.name",),
    "data_dir": ("data.path",),
    "auto_augment": ("data.augment.policy",),
    "aa": ("data.augment.policy",),
    "reprob": ("data.augment.random_erasing",),
    "random_flip": ("data.augment.flip",),
    "lr": ("optimizer.learning_rate",),
    "base_lr": ("optimizer.learning_rate",),
    "opt": ("optimizer.name",),
    "optimizer": ("optimizer.name",),
    "wd": ("optimizer.weight_decay",),
    "beta1": ("optimizer.beta_1",),
    "beta2": ("optimizer.beta_2",),
    "eps": ("optimizer.epsilon", "epsilon"),
    "clip_grad": ("optimizer.clip_norm",),
    "clip_norm": ("optimizer.clip_norm",),
    "grad_clip": ("optimizer.clip_norm",),
    "sched": ("schedule.name",),
    "scheduler": ("schedule.name",),
    "lr_scheduler": ("schedule.name",),
    "warmup": ("schedule.warmup_epochs",),
    "min_lr": ("schedule.end_learning_rate",),
    "gamma": ("schedule.factor",),
    "milestones": ("schedule.boundaries",),
    "smoothing": ("loss.label_smoothing",),
    "class_weight": ("loss.class_weights",),
    "model_ema": ("ema.decay",),
    "log_interval": ("log_every_steps",),
    "eval_interval": ("evaluate_every_epochs",),
}


def did_you_mean(value: object, known: Iterable, cutoff: float = 0.5) -> str:
    """Returns " Did you mean 'flip'?" for the entries of `known` closest to `value`, or ""."""
    return did_you_mean_one_of(close_names(value, known, cutoff))


def did_you_mean_one_of(names: Iterable[str]) -> str:
    """Returns the same for names that `close_names` has found."""
    meant = " or ".join(map(repr, names))
    return f" Did you mean {meant}?" if meant else ""


def nearest(value: object, known: Iterable) -> str:
    """Returns the same to follow a clause: "; did you mean 'flip'?"."""
    return did_you_mean(value, known).replace(" Did", "; did", 1)


def close_names(value: object, known: Iterable, cutoff: float = 0.5) -> list[str]:
    """Returns up to three entries of `known` that `value` may have meant, the closest first.

    If an entry was typed, another library's word for it, or the last part of a dotted one, it is
    that entry. Else first come those that `value` begins, then those that differ in their numbers
    only: of ResNet49, ResNet50. `cutoff` is the least likeness, 0..1, of `difflib`.
    """
    entries = [str(entry) for entry in known]
    given = str(value).lower()
    last = given.rpartition(".")[2]
    meant = [entry for entry in SYNONYMS.get(last, ()) if entry in entries]
    meant += [entry for entry in entries if "." in entry and entry.rpartition(".")[2] == last]
    if meant:
        return list(dict.fromkeys(meant))[:3]

    def rank(entry: str) -> tuple[bool, bool, int]:
        alike = _letters(entry) == _letters(given)
        distance = abs(_first_number(entry) - _first_number(given)) if alike else 0
        return not entry.startswith(given), not alike, distance

    lowered = {entry.lower(): entry for entry in entries}
    if given in lowered:  # but for its case, or what stands in front of it
        return [lowered[given]]
    close = difflib.get_close_matches(given, lowered, n=max(len(lowered), 1), cutoff=cutoff)
    return [lowered[entry] for entry in sorted(close, key=rank)[:3]]


def _letters(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _first_number(name: str) -> int:
    return int((re.findall(r"\d+", name) or [0])[0])
