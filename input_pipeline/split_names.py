"""What folders and tables call their splits: "Training", "valid", "test_set". Standard library."""

import re

# What a split is for, and what people call it.
ROLES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainset"),
    "validation": ("val", "valid", "validation", "dev", "eval", "evaluation", "validate"),
    "test": ("test", "testing", "tst", "testset", "holdout"),
}
# The names that are read as splits whatever stands beside them.
PLAIN = ("train", "test", "val", "validation")
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
# "train_set", "Test images", "val2017".
_ENDING = re.compile(r"[ _-]?(set|data|images|imgs|split|folder|\d{4})$")


def role_of(name: str) -> str | None:
    """ "train", "validation" or "test" if a folder of this name looks like a split, else None."""
    lowered = name.strip().lower()
    return _ROLE_OF.get(lowered) or _ROLE_OF.get(_ENDING.sub("", lowered))
