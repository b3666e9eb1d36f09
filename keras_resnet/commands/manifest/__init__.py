"""usage: keras-resnet manifest --name=NAME --topology=tpu7x:2x2x1 --image=IMAGE
                                 [--bucket=gs://BUCKET] [--spot] [--service_account=NAME]
                                 [--restarts=20] -- train --config=NAME [--config.key=value ...]

Prints a Kubernetes JobSet, as YAML, that trains on a slice of TPUs of Google Kubernetes Engine, for
`kubectl apply -f -`: the way to rent TPU7x, and another one to v4, v5e, v5p and v6e. What comes
after -- is checked as `train` would check it. It trains with engine=jax on all hosts of the slice;
after a preemption it begins again from the last checkpoint. docs/tpu.md, "TPU7x by GKE", has the
cluster and the image. It has not run on real chips."""

import re

from absl import flags as absl_flags
from ml_collections import ConfigDict

from keras_resnet.commands import train
from keras_resnet.commands.manifest.jobset import Slice, Training, jobset, slice_of, to_yaml
from keras_resnet.commands.options import define_strings
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError
from keras_resnet.launcher.options import BUCKET, DATA_PATH, NAME
from keras_resnet.preflight.topologies import Topology, parse_topology

SUMMARY = "Print a Kubernetes manifest that trains on TPUs of GKE, such as TPU7x."
_EXAMPLE = (
    "keras-resnet manifest --name=resnet --topology=tpu7x:2x2x1 --image=IMAGE "
    "--bucket=gs://BUCKET -- train --config=resnet50_imagenet_tpu"
)
# Flag -> (pattern of its value, what that is). Names: pods are called NAME-train-0-0-xxxxx.
_PATTERNS = {
    "name": NAME,
    "image": (
        r"[a-z0-9][\w.:/@-]*",
        "the address of an image: REGION-docker.pkg.dev/PROJECT/REPOSITORY/keras-resnet:1",
    ),
    "bucket": BUCKET,
    "service_account": (r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", "the name of a Kubernetes account"),
}
_REQUIRED = ("name", "topology", "image")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines where and as what it runs; the command comes after --."""
    define_strings(
        flags,
        name="Name of the JobSet: lower case letters, digits and -.",
        topology="The TPU slice: its generation and its sides in chips, as in tpu7x:2x2x4.",
        image="Address of the container's image, built from deploy/gke/Dockerfile.",
        bucket="Without --workdir in the command: the work directory is BUCKET/NAME.",
        service_account="Kubernetes service account that may use the bucket.",
    )
    absl_flags.DEFINE_boolean("spot", False, "Run on spot VMs.", flag_values=flags)
    absl_flags.DEFINE_integer(
        "restarts",
        20,
        "How often the job may begin again, after a preemption or a repair.",
        lower_bound=0,
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Checks and prints; returns 0."""
    for name in _REQUIRED:
        if not flags[name].value:
            raise UsageError(f"--{name} is missing; for example: {_EXAMPLE}")
    for name, (pattern, meaning) in _PATTERNS.items():
        value = flags[name].value
        if value is not None and not re.fullmatch(pattern, value):
            raise UsageError(f"--{name}={value}: {meaning}")
    topology = parse_topology(flags.topology)
    where = slice_of(topology)
    command, config = _command(flags, arguments, topology)
    options = config.libtpu_init_args
    training = Training(
        name=flags.name,
        image=flags.image,
        arguments=command,
        variables={"LIBTPU_INIT_ARGS": options} if options else {},
        restarts=flags.restarts,
        spot=flags.spot,
        service_account=flags.service_account or "",
    )
    print(_head(topology, where) + to_yaml(jobset(training, where)), end="")
    return 0


def _head(topology: Topology, where: Slice) -> str:
    return (
        f"# Trains on {topology.name}: {where.hosts} × {where.machine}, "
        f'{where.chips} chips each. docs/tpu.md, "TPU7x by GKE".\n'
        "# Valid by the public schemas of JobSet and Kubernetes; not run on real chips.\n"
    )


def _command(
    flags: absl_flags.FlagValues, arguments: list[str], topology: Topology
) -> tuple[list[str], ConfigDict]:
    """Returns the arguments of keras-resnet in the container, and the config that they come to."""
    if arguments[:1] != ["train"]:
        raise UsageError(f"after -- comes the command, `train`; for example: {_EXAMPLE}")
    given = absl_flags.FlagValues()
    train.define_flags(given)
    try:
        rest = given(["keras-resnet train", *arguments[1:]])[1:]
    except absl_flags.Error as error:
        raise UsageError(f"train: {error}") from error
    if rest or not given.config:
        raise UsageError(
            f"train: unexpected argument {rest[0]!r}" if rest else "train: --config is missing"
        )
    command = list(arguments)
    for key, value in (("engine", "jax"), ("strategy", "tpu")):
        chosen = overrides.given(given).get(key, "auto")
        if chosen not in ("auto", value):
            raise UsageError(f"--config.{key}={chosen}: on a slice of GKE it is {value}")
        command.append(f"--config.{key}={value}")
    config = overrides.resolve(given)
    command.extend(_workdir(flags, given))
    _check_config(config, topology)
    return command, config


def _workdir(flags: absl_flags.FlagValues, given: absl_flags.FlagValues) -> list[str]:
    """Returns --workdir of the bucket, unless the command has one that outlives its pods."""
    if given.workdir:
        if not given.workdir.startswith("gs://"):
            raise UsageError(
                f"--workdir={given.workdir} would be gone with its pod; give gs://BUCKET/FOLDER"
            )
        if not re.fullmatch(BUCKET[0], given.workdir):
            raise UsageError(f"--workdir={given.workdir}: {BUCKET[1]}")
        return []
    if not flags.bucket:
        raise UsageError("--bucket=gs://BUCKET is missing, or --workdir=gs://… in the command")
    return [f"--workdir={flags.bucket.rstrip('/')}/{flags.name}"]


def _check_config(config: ConfigDict, topology: Topology) -> None:
    """Refuses what training would refuse when the slice is paid for."""
    path = config.data.path
    if path and config.data.source != "synthetic" and not path.startswith("gs://"):
        raise UsageError(f"--config.data.path={path}: a pod has no such folder; give one in gs://")
    if path.startswith("gs:") and not re.fullmatch(BUCKET[0], path):
        raise UsageError(f"--config.data.path={path}: {DATA_PATH}")
    topology.images_per_replica(config.batch_size, config.accumulate_steps)
