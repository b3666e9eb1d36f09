"""keras-resnet manifest: JobSets for GKE against the public schemas of JobSet and Kubernetes."""

import configparser
import copy
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from keras_resnet.commands import main
from keras_resnet.commands.manifest.jobset import (
    ERRORS,
    Training,
    jobset,
    slice_of,
    to_yaml,
)
from keras_resnet.errors import HostLost, UsageError, UserError
from keras_resnet.preflight.topologies import parse_topology
from keras_resnet.training.interruption import exit_code

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "gke"
TRAIN = ["train", "--config=resnet50_imagenet_tpu", "--config.data.path=gs://my-bucket/tfds"]
IMAGE = "us-central1-docker.pkg.dev/my-project/my-repository/keras-resnet:1"


def printed(capsys, *options, command=TRAIN):
    """Returns what the command prints, and the object that this is."""
    flags = ["--name=resnet", f"--image={IMAGE}", "--bucket=gs://my-bucket"]
    assert main(["manifest", *flags, *options, "--", *command]) == 0
    text = capsys.readouterr().out
    return text, yaml.safe_load(text)


def job_of(manifest):
    """The Job that the JobSet makes."""
    template = manifest["spec"]["replicatedJobs"][0]["template"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, **template}


def validate(manifest):
    """Checks a JobSet: what is its own by JobSet's types, the Job by the schema of Kubernetes.

    Both refuse fields that they do not know.
    """
    models = pytest.importorskip(
        "kubeflow_trainer_api.models", reason="pip install -e '.[schemas]'"
    )
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[schemas]'")
    read = models.JobsetV1alpha2JobSet.from_dict(manifest)
    assert json.loads(read.to_json()) == manifest  # which leaves out what it does not know
    for version in ("1.31", "1.34"):  # since when pod failure policies are stable; TPU7x's
        kubernetes.validate(job_of(manifest), version, strict=True)


@pytest.mark.parametrize(
    ("topology", "hosts", "chips", "accelerator", "machine"),
    [
        # "Plan TPUs in GKE" and "TPU7x (Ironwood)" in Google's documentation.
        ("tpu7x:1x1x1", 1, 1, "tpu7x", "tpu7x-standard-1t"),
        ("tpu7x:2x2x1", 1, 4, "tpu7x", "tpu7x-standard-4t"),
        ("tpu7x:2x2x2", 2, 4, "tpu7x", "tpu7x-standard-4t"),
        ("tpu7x:4x4x4", 16, 4, "tpu7x", "tpu7x-standard-4t"),
        ("v6e:1x1", 1, 1, "tpu-v6e-slice", "ct6e-standard-1t"),
        ("v6e:2x4", 1, 8, "tpu-v6e-slice", "ct6e-standard-8t"),
        ("v6e:16x16", 64, 4, "tpu-v6e-slice", "ct6e-standard-4t"),
        ("v5e:2x2", 1, 4, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
        ("v5e:4x4", 4, 4, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
        ("v5p:2x2x4", 4, 4, "tpu-v5p-slice", "ct5p-hightpu-4t"),
        ("v4:4x4x8", 32, 4, "tpu-v4-podslice", "ct4p-hightpu-4t"),
    ],
)
def test_each_slice_is_a_valid_jobset(topology, hosts, chips, accelerator, machine, capsys):
    text, manifest = printed(capsys, f"--topology={topology}")
    validate(manifest)
    assert f"{hosts} × {machine}" in text.splitlines()[0]
    assert "not run on real chips" in text.splitlines()[1]
    job = job_of(manifest)["spec"]
    assert (job["parallelism"], job["completions"]) == (hosts, hosts)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology.partition(":")[2],
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": chips}}
    assert ("annotations" in manifest["metadata"]) == (hosts > 1)


def test_the_command_is_the_whole_training_and_its_compiler_flags(capsys):
    _, manifest = printed(capsys, "--topology=tpu7x:2x2x1")
    (container,) = job_of(manifest)["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [
        *TRAIN,
        "--config.engine=jax",
        "--config.strategy=tpu",
        "--workdir=gs://my-bucket/resnet",
    ]
    flags = [{"name": "LIBTPU_INIT_ARGS", "value": "--xla_tpu_scoped_vmem_limit_kib=65536"}]
    assert container["env"] == flags


def test_spot_restarts_and_account(capsys):
    options = ("--spot", "--restarts=7", "--service_account=trainer")
    _, manifest = printed(capsys, "--topology=v6e:4x4", *options)
    validate(manifest)
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 7
    pod = job_of(manifest)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert {taint["key"] for taint in pod["tolerations"]} == {
        "google.com/tpu",
        "cloud.google.com/gke-spot",
    }


def test_what_no_restart_helps_ends_the_jobset(capsys):
    """Errors and usage; not a signal, a kill, or a lost host, after which training resumes."""
    _, manifest = printed(capsys, "--topology=v6e:4x4")
    (rule,) = job_of(manifest)["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [UserError.code, UsageError.code] == list(ERRORS)
    assert not {HostLost.code, exit_code(15), exit_code(9), 139} & set(ERRORS)
    assert job_of(manifest)["spec"]["backoffLimit"] == 0
    (policy,) = manifest["spec"]["failurePolicy"]["rules"]
    assert (policy["action"], policy["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", policy["name"])  # of JobSet


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ((), "specs"),
        (("spec",), "replicas"),
        (("spec", "failurePolicy"), "restarts"),
        (("spec", "network"), "subDomain"),
        (("spec", "replicatedJobs", 0), "parallelism"),
        (("spec", "replicatedJobs", 0, "template", "spec"), "completion"),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec"), "serviceaccount"),
    ],
)
def test_the_schemas_refuse_what_they_do_not_know(path, field):
    training = Training("r", "i", ["train"], {})
    manifest = jobset(training, slice_of(parse_topology("tpu7x:2x2x2")))
    validate(manifest)
    wrong = copy.deepcopy(manifest)
    place = wrong
    for step in path:
        place = place[step]
    place[field] = "x"
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[schemas]'")
    with pytest.raises((AssertionError, kubernetes.ValidationError), match=f"{field}|assert"):
        validate(wrong)


@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        (["--topology=v3:2x2"], TRAIN, "v3 with run_tpu.sh"),
        (["--topology=v5e:3x5"], TRAIN, "there are 1x1, 2x2, 2x4, 4x4"),
        (["--topology=tpu7x:4x2x2"], TRAIN, "multiples of 4 in ascending order"),
        (["--topology=v5p:1x1x1"], TRAIN, "there are 2x2x1, 2x2x2"),
        (["--topology=tpu7x:8x4x4"], TRAIN, "multiples of 4 in ascending order"),
        (["--topology=tpu7x:2x2x1", "--name=Resnet"], TRAIN, "--name=Resnet: up to 40 lower case"),
        (["--topology=tpu7x:2x2x1", "--image=a b"], TRAIN, "--image=a b: the address"),
        (["--topology=tpu7x:2x2x1", "--bucket=bucket"], TRAIN, "gs://BUCKET or gs://BUCKET/FOLD"),
        (["--topology=tpu7x:2x2x1", "--bucket=gs://B"], TRAIN, "has 3 to 63 characters: lower"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--workdir=gs://B"], "--workdir=gs://B: gs://BUCKET"),
        (
            ["--topology=tpu7x:2x2x1"],
            [*TRAIN, "--config.data.path=gs://B/x"],
            "data.path=gs://B/x: gs://BUCKET or gs://BUCKET/FOLDER. The name of a bucket has 3",
        ),
        (["--topology=tpu7x:2x2x1"], ["evaluate"], "after -- comes the command, `train`"),
        (["--topology=tpu7x:2x2x1"], [], "after -- comes the command, `train`"),
        (["--topology=tpu7x:2x2x1"], ["train"], "--config is missing"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--config.epoch=3"], "config.epoch"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "x"], "unexpected argument 'x'"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--workdir=runs/x"], "would be gone with its pod"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--config.engine=tensorflow"], "it is jax"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--config.strategy=cpu"], "it is tpu"),
        (["--topology=tpu7x:2x2x1"], [*TRAIN, "--config.data.path=/data"], "give one in gs://"),
        (["--topology=tpu7x:2x2x4"], [*TRAIN, "--config.batch_size=1000"], "take 992"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_paid(options, command, said, capsys):
    flags = ["--name=resnet", f"--image={IMAGE}", "--bucket=gs://my-bucket", *options]
    assert main(["manifest", *flags, "--", *command]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_a_bucket_there_is_no_work_directory(capsys):
    flags = ["--name=r", "--image=i", "--topology=tpu7x:2x2x1"]
    assert main(["manifest", *flags, "--", *TRAIN]) == 2
    assert "--bucket=gs://BUCKET is missing" in capsys.readouterr().err
    assert main(["manifest", *flags, "--", *TRAIN, "--workdir=gs://my-bucket/x"]) == 0
    assert main(["manifest", *flags[1:], "--", *TRAIN]) == 2
    assert "--name is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["no", "y", "1e3", "0x1f", "1:30", "~", "null", "2x2", "- a", "a: b", "#", "é\u2028", ""],
)
def test_every_text_stays_one(text):
    """PyYAML reads YAML 1.1, where 1:30 is a number; in kubectl's 1e3 and y are none, too."""
    written = to_yaml({"args": ["train", text, "x" * 300]})
    assert yaml.safe_load(written) == {"args": ["train", text, "x" * 300]}
    assert written.splitlines()[:2] == ["args:", "- train"]
    assert written.splitlines()[2].startswith('- "' if text != "null" else "- 'null'")


def test_the_example_is_what_the_command_prints(capsys):
    lines = (FOLDER / "example.yaml").read_text().splitlines(keepends=True)
    command = "".join(line.removeprefix("#").rstrip(" \\\n") for line in lines[:3])
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == "".join(lines[3:])
    validate(yaml.safe_load("".join(lines)))


def test_the_container_installs_what_the_package_offers():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    (extra,) = re.findall(r"pip install --no-cache-dir '\.\[([-a-z]+)\]'", dockerfile)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "jax[tpu]" in setup["options.extras_require"][extra]
    assert f"[{extra}]" in (ROOT / "README.md").read_text()
    (minor,) = re.findall(r"^FROM python:3\.(\d+)", dockerfile, re.MULTILINE)
    assert 11 <= int(minor) <= 13  # python_requires
    (entry,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', dockerfile, re.MULTILINE)
    assert f"{entry} = keras_resnet_cli:main" in setup["options.entry_points"]["console_scripts"]
    ignored = set((FOLDER / "Dockerfile.dockerignore").read_text().split())
    needed = {"keras_resnet", "input_pipeline", "configs", "setup.cfg", "README.md", "LICENSE"}
    assert not ignored & (needed | {"pyproject.toml", "keras_resnet_cli.py"})
