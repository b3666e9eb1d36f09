"""A process that decodes images, and the memory and time it takes, read from outside.

with Watched("evaluation") as process:
    print(process.decode(data))     # Outcome(said="(224, 224, 3)", grown_mib=12, seconds=0.03)
"""

import argparse
import contextlib
import dataclasses
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = ("evaluation", "plain", "crop", "train", "graph")
SIZE = 224


@dataclasses.dataclass
class Outcome:
    """What became of one file.

    Attributes:
        said: the shape of the image, or the words of the refusal.
        grown_mib: the highest resident memory less that of the process after its warm-up.
        seconds: processor time of all threads.
    """

    said: str
    grown_mib: int
    seconds: float

    @property
    def is_refused(self) -> bool:
        """Whether there is no image."""
        return not self.said.startswith("(")


class Watched:
    """Decodes in a process of its own, which starts anew where an image ends it.

    Args:
        way: one of WAYS, or the folder of a SavedModel.
        limit_mib: memory above that of the warm process at which the process is killed.
        timeout: seconds for a file after which the process is killed.
    """

    def __init__(self, way: str, limit_mib: int = 8000, timeout: float = 120.0, options=()):
        self._command = [sys.executable, __file__, way, *options]
        self._limit, self._timeout = limit_mib, timeout

    def __enter__(self) -> "Watched":
        self._start()
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        if not self._process.stdout.readline():
            self._errors.seek(0)
            raise RuntimeError(self._errors.read().decode()[-3000:])
        self.base_mib = self._memory("VmRSS")

    def limit_of_all(self, limit_mib: int) -> None:
        """Kills the process from now on when all of its memory is above the limit."""
        self._limit = limit_mib - self.base_mib

    def decode(self, *files: bytes) -> Outcome:
        """What becomes of the files, together in one request where the way is a graph."""
        before = self._processor_seconds()
        self._write(b"5", "clear_refs")  # forgets the highest resident memory so far
        parts = [struct.pack("<I", len(files)), *(struct.pack("<I", len(f)) + f for f in files)]
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()
        highest, waited = 0, 0.0
        while not select.select([self._process.stdout], [], [], 0.02)[0]:
            waited += 0.02
            highest = max(highest, self._memory("VmHWM"))
            if highest - self.base_mib > self._limit or waited > self._timeout:
                what = "too much memory" if waited <= self._timeout else "too slow"
                seconds = self._processor_seconds() - before
                self.__exit__()
                self._start()
                return Outcome(f"killed: {what}", highest - self.base_mib, seconds)
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._start()
            return Outcome(f"crashed: {code}", highest - self.base_mib, 0.0)
        highest = max(highest, self._memory("VmHWM"))
        seconds = self._processor_seconds() - before
        return Outcome(json.loads(answer), max(0, highest - self.base_mib), seconds)

    def _write(self, text: bytes, name: str) -> None:
        Path(f"/proc/{self._process.pid}/{name}").write_bytes(text)

    def _memory(self, field: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        lines = [line for line in status.splitlines() if line.startswith(field)]
        return int(lines[0].split()[1]) // 1024 if lines else 0

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _decoder(way: str, options: argparse.Namespace):
    """Encoded files -> shape of what comes out."""
    import numpy as np
    import tensorflow as tf

    if way not in WAYS:
        loaded = tf.saved_model.load(way)
        answer = loaded.signatures["serving_default"]
        return lambda files: answer(image_bytes=tf.constant(files))["classes"].shape
    from input_helpers import PREPROCESSING

    from keras_resnet.input_pipeline import evaluation_image
    from keras_resnet.input_pipeline.augment import crop, pipeline

    numbers = tf.constant(np.random.default_rng(0).random(22, np.float32))
    values = {**PREPROCESSING, "image_size": SIZE, "crop_ratio": 0.875}
    values["interpolation"] = options.interpolation
    if way == "plain":
        values["resize"] = "plain"
    if options.exif:
        values["exif"] = options.exif
    function = {
        "crop": lambda file: crop.random_resized_crop(file, numbers, SIZE),
        "train": lambda file: pipeline.training_image(file, {}, {}, SIZE),
    }.get(way, lambda file: evaluation_image(file, values))
    if way == "graph":
        from keras_resnet.export.signatures import decode_batch
        from keras_resnet.preprocessing import Preprocessing

        preprocessing = Preprocessing.from_dict(values)
        many = tf.function(lambda files: decode_batch(files, preprocessing))

        def decode(files):
            pixels, valid = many(tf.constant(files))
            return pixels.shape if valid.numpy().all() else f"refused {valid.numpy().tolist()}"

        return decode
    one = tf.function(function, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda files: [one(tf.constant(file)).shape for file in files][-1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way")
    parser.add_argument("--interpolation", default="bilinear")
    parser.add_argument("--exif", default="")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from input_helpers import encode, smooth_image

    from keras_resnet.input_pipeline.corrupt_images import describe

    decode = _decoder(options.way, options)
    photo = smooth_image(375, 500)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP") * 2:
        with contextlib.suppress(tf.errors.OpError):  # WebP, which most exports do not read
            decode([encode(photo, kind)])

    def read(count: int) -> bytes:
        data = sys.stdin.buffer.read(count)
        if len(data) < count:
            sys.exit()
        return data

    said = "ready"
    while True:
        print(json.dumps(said), file=answers, flush=True)
        count = struct.unpack("<I", read(4))[0]
        files = [read(struct.unpack("<I", read(4))[0]) for _ in range(count)]
        try:
            shape = decode(files)
            said = shape if isinstance(shape, str) else str(tuple(shape))
        except tf.errors.OpError as error:
            said = describe(files[-1], error) if len(files) == 1 else error.message
            said = f"{type(error).__name__}: {said}"


if __name__ == "__main__":
    main()
