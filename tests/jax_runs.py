"""The runs of training_runs.py on the JAX engine, as a program.

python jax_runs.py equal STATE.npz '{"optimizer": …}' 1 2 4     one line of JSON for each number
                                                                of devices
python jax_runs.py state STATE.npz '{"optimizer": …}' STEPS     leaves the state after STEPS
python jax_runs.py configs                                      two steps of each bundled config
"""

import json
import os
import sys

import numpy as np
from training_runs import STEPS, first_state, run, tiny_config


def read_state(path):
    with np.load(path) as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


def write_state(path, state):
    np.savez(path, **{name.replace("/", "|"): value for name, value in state.items()})


def mesh_of(count):
    import jax
    from jax.sharding import Mesh

    from keras_resnet.training.jax.mesh import AXIS

    return Mesh(np.array(jax.devices()[:count]), (AXIS,))


def equal(path, groups, first, *counts):
    import jax

    jax.config.update("jax_num_cpu_devices", max(map(int, counts)))
    config, state = tiny_config(**json.loads(groups)), read_state(path)
    for count in counts:
        found = run(config, mesh_of(int(count)), state, int(first), STEPS)
        print("result " + json.dumps(found), flush=True)


def worker(path, groups, coordinator, count, index):
    distributed = {"coordinator": coordinator, "num_processes": int(count)}
    distributed["process_id"] = int(index)
    config = tiny_config(**json.loads(groups), distributed=distributed, connect_timeout=60.0)
    print("result " + json.dumps(run(config, None, read_state(path))), flush=True)


def state(path, groups, steps):
    config = tiny_config(**json.loads(groups))
    write_state(path, first_state(config, mesh_of(1), int(steps)))


def configs():
    from training_configs import two_steps_of_each_config

    for name, losses in two_steps_of_each_config():
        print("result " + json.dumps([name, losses]), flush=True)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    {"equal": equal, "worker": worker, "state": state, "configs": configs}[sys.argv[1]](
        *sys.argv[2:]
    )
