"""What every contestant of `export.py` answers, and a SavedModel in TensorFlow's C++ loader as one.

    python export_worker.py FOLDER SIGNATURE BATCH [FILE.jpg]

A line on standard input is a task. `calls N` runs N requests, one after the other, and is answered
with the seconds that they took, by the clock and of the processor. `clients C N` lets C clients at
once send N requests in all, each the next one when the last is answered, and is answered with the
milliseconds of every request.
"""

import sys
import threading
import time
from collections.abc import Callable


def answer(make_call: Callable[[], Callable[[], object]]) -> None:
    """Answers tasks until there are no more.

    Args:
        make_call: gives what sends one request, for one client.
    """
    first = make_call()
    for line in sys.stdin:
        kind, *numbers = line.split()
        if kind == "calls":
            print(*run_calls(first, int(numbers[0])), flush=True)
        else:
            clients, requests = map(int, numbers)
            print(*run_clients(make_call, clients, requests), flush=True)


def run_calls(call: Callable[[], object], count: int) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        call()
    return time.perf_counter() - clock, time.process_time() - processor


def run_clients(
    make_call: Callable[[], Callable[[], object]], clients: int, requests: int
) -> list[float]:
    """Milliseconds of each request."""
    calls = [make_call() for _ in range(clients)]
    for call in calls:
        call()
    times: list[float] = []
    left = iter(range(requests))

    def client(call: Callable[[], object]) -> None:
        for _ in left:  # `next` of a range is one step of the interpreter
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))

    threads = [threading.Thread(target=client, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def main() -> None:
    import keras_resnet_cli

    keras_resnet_cli.defer_loading()
    import numpy as np

    from keras_resnet.export.c_api import Session

    folder, signature, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    session = Session(folder)
    ((name, info),) = session.signatures[signature]["inputs"].items()
    if info["dtype"] == "string":
        with open(sys.argv[4], "rb") as file:
            content = file.read()
        values = np.empty(batch, object)
        values[:] = [content] * batch
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3))
        values = pixels.astype(info["dtype"])
    answer(lambda: lambda: session.run(signature, {name: values}))


if __name__ == "__main__":
    main()
