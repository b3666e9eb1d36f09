"""A bucket in memory: TensorFlow's file system ram://, which etils.epath is told to take for one.

It lives in one process, so runs in it cannot be processes of their own.
"""

from contextlib import contextmanager

import pytest
from etils.epath import backend, gpath, register

from keras_resnet.training.lock import Lease


@contextmanager
def buckets_in_memory():
    """While entered, ram:// paths are to epath what gs:// paths are."""
    open_file = backend.tf_backend.open

    def open_anew(path, mode):
        # ram:// writes behind what a file holds; a bucket, as a disk, replaces it.
        if mode.startswith("w") and backend.tf_backend.exists(path):
            backend.tf_backend.remove(path)
        return open_file(path, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpath, "_URI_PREFIXES", (*gpath._URI_PREFIXES, "ram://"))
        patch.setattr(gpath, "_URI_SCHEMES", gpath._URI_SCHEMES | {"ram"})
        patch.setitem(gpath._URI_MAP_ROOT, "ram://", "/ram/")
        patch.setitem(gpath._PREFIX_TO_BACKEND, "ram", backend.tf_backend)
        patch.setitem(register._URI_PREFIXES_TO_CLS, "ram://", gpath.PosixGPath)
        patch.setattr(backend.tf_backend, "open", open_anew)
        # No write takes as long as one to a bucket may.
        patch.setattr(Lease, "SETTLED", 0.01)
        yield
