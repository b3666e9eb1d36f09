"""What the command line asks for, checked before anything is rented."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, fields

from . import images
from .additions import Refused, additions, choose_engine, for_self_delete, value_of

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BUCKET = (
    r"gs://[a-z0-9][-a-z0-9_.]{1,220}[a-z0-9](/.*)?",
    "gs://BUCKET or gs://BUCKET/FOLDER. The name of a bucket has 3 to 63 characters: lower case "
    "letters, digits, -, _ and ., a letter or digit at both ends. Checkpoints have to be in one, "
    "because the TPU's own disk is gone with the TPU",
)
DATA_PATH = BUCKET[1].partition(". Check")[0]  # data may be elsewhere than checkpoints
NAME = (r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", "up to 40 lower case letters, digits, -: resnet-1")
# Each option that has a value: what it must look like, and the same in words.
VALUES = {
    "name": NAME,
    "zone": (r"[a-z]+-[a-z]+[0-9]+-[a-z]", "a zone such as us-west4-a"),
    "type": (r".*", ""),  # images.find_type
    "version": (r"[-a-z0-9_.]*", "a runtime version such as v2-alpha-tpuv5-lite"),
    "engine": (r"(tensorflow|jax)?", "tensorflow or jax"),
    "project": (r"([a-z][-a-z0-9:.]+)?", "the id of a project"),
    "bucket": (f"({BUCKET[0]})?", BUCKET[1]),
    "restarts": (r"[0-9]{1,4}", "a number"),
    "capacity-timeout": (r"[1-9][0-9]*[smhd]", "a time such as 90m, 24h or 2d"),
    "self-delete": (r"([1-9][0-9]{1,3})?", "minutes, 10 or more"),
    "service-account": (r"([^@\s]+@[^@\s]+)?", "NAME@PROJECT.iam.gserviceaccount.com"),
    "scopes": (r"[^\s]*", "names or addresses with commas between them"),
    "network": (r"[^\s]*", "the name of a network"),
    "subnetwork": (r"[^\s]*", "the name of a subnetwork"),
    "labels": (r"([a-z][^=,\s]*=[^=,\s]*(,[a-z][^=,\s]*=[^=,\s]*)*)?", "KEY=VALUE,KEY=VALUE"),
    "metadata": (r"([^=,]+=.*)?", "KEY=VALUE,KEY=VALUE"),
}
FLAGS = (
    *("spot", "queued", "keep", "replace", "dry-run", "reserved"),
    *("internal-ips", "tunnel-through-iap"),
)
DEFAULTS = {"restarts": "20", "capacity-timeout": "24h"}
SELF_DELETE = "30"  # minutes, of --self-delete without a number


@dataclass(frozen=True)
class Plan:
    """What a launch is to do; times are seconds, `code` is the hash of the checkout."""

    name: str
    zone: str
    type: str
    version: str
    engine: str
    several: bool  # hosts
    arguments: tuple[str, ...]
    project: str = ""
    spot: bool = False
    queued: bool = False
    keep: bool = False
    replace: bool = False
    dry_run: bool = False
    reserved: bool = False
    internal_ips: bool = False
    tunnel_through_iap: bool = False
    restarts: int = 20
    capacity_timeout: int = 86400
    self_delete: int = 0  # minutes; 0: never
    service_account: str = ""
    scopes: str = ""
    network: str = ""
    subnetwork: str = ""
    labels: str = ""
    metadata: str = ""
    code: str = ""

    @property
    def job(self) -> str:
        """What tells one training command from another."""
        return hashlib.sha256("\0".join(self.arguments).encode()).hexdigest()[:12]


def parse(words: list[str]) -> Plan:
    """Returns the plan of `--option=value ... -- train ...`.

    Raises:
        Refused: an option is unknown, or a value cannot work.
    """
    given, arguments = _split(words)
    for key, (pattern, example) in VALUES.items():
        given.setdefault(key, DEFAULTS.get(key, ""))
        if not re.fullmatch(pattern, given[key]):
            raise Refused(f"--{key}={given[key]}: {example}")
    if not arguments or arguments[0] != "train":
        raise Refused("after -- comes the command, such as -- train --config=NAME")
    if given["spot"] and given["reserved"]:
        raise Refused("--spot --reserved: a reservation has no spot TPUs; leave one of them out")
    family, size, problem = images.find_type(given["type"])
    if family is None:
        raise Refused(f"--type={given['type']}: {problem}")
    engine = choose_engine(given["engine"], arguments)
    engine, version, problem = images.choose(family, size, engine, given["version"])
    if problem:
        raise Refused(f"--type={given['type']}: {problem}")
    added = additions(given, arguments, engine)
    workdir = value_of([*arguments, *added], "--workdir")
    if not re.fullmatch(BUCKET[0], workdir):
        raise Refused(f"--workdir={workdir}: {BUCKET[1]}")
    data = value_of(arguments, "--config.data.path")
    if data.startswith("gs:") and not re.fullmatch(BUCKET[0], data):
        raise Refused(f"--config.data.path={data}: {DATA_PATH}")
    arguments += added
    plan = {key.replace("-", "_"): value for key, value in given.items()}
    plan.update(
        engine=engine,
        version=version,
        several=size > images.ONE_HOST,
        restarts=int(given["restarts"]),
        capacity_timeout=seconds(given["capacity-timeout"]),
        self_delete=int(given["self-delete"] or 0),
        arguments=tuple(arguments),
        **for_self_delete(given),
    )
    return Plan(**{field.name: plan[field.name] for field in fields(Plan) if field.name in plan})


def seconds(text: str) -> int:
    """Returns the seconds of a time such as "90m"."""
    return int(text[:-1]) * UNITS[text[-1]]


def _split(words: list[str]) -> tuple[dict, list[str]]:
    given: dict = dict.fromkeys(FLAGS, False)
    for index, word in enumerate(words):
        if word == "--":
            return given, words[index + 1 :]
        key, equals, value = word[2:].partition("=")
        if word.startswith("--") and key in VALUES and (equals or key == "self-delete"):
            given[key] = value if equals else SELF_DELETE
        elif word.startswith("--") and key in FLAGS and not equals:
            given[key] = True
        else:
            raise Refused(f"unknown option {word}; {_nearest(key)}see the head of run_tpu.sh")
    return given, []


def _nearest(key: str) -> str:
    if key in VALUES:
        return f"it needs a value, --{key}=VALUE; "
    near = difflib.get_close_matches(key, [*VALUES, *FLAGS], 1)
    return f"did you mean --{near[0]}? " if near else ""
