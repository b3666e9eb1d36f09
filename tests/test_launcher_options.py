"""What the launcher refuses before anything is rented, and what it makes of the rest."""

import shlex
from pathlib import Path

import pytest
from launches import OPTIONS, TRAIN

from keras_resnet.launcher import images
from keras_resnet.launcher.commands import Commands
from keras_resnet.launcher.main import main
from keras_resnet.launcher.options import parse, seconds


def of_type(name: str, *more: str) -> list[str]:
    return [*OPTIONS[:2], f"--type={name}", OPTIONS[3], *more, *TRAIN]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name=My Net", *OPTIONS[1:], *TRAIN], "--name=My Net: up to 40 lower case letters"),
        ([OPTIONS[0], *OPTIONS[2:], *TRAIN], "--zone=: a zone such as us-west4-a"),
        (["--zone=us-west4", *OPTIONS[2:], OPTIONS[0], *TRAIN], "--zone=us-west4: a zone"),
        (of_type("tpu7x-8"), 'docs/tpu.md has the manifest, in "TPU7x by GKE"'),
        (of_type("v7x-16"), "gcloud compute tpus, which this launcher calls, has no TPU7x"),
        (of_type("v5e-16"), "--type=v5e-16: Cloud TPU calls it v5litepod-16"),
        (of_type("v4-12"), "a multiple of 8: v4-8, v4-32"),
        (of_type("v6e-5"), "slices of v6e have 1, 4, 8, 16, 32, 64, 128, 256 chips"),
        (of_type("v9-8"), "a type such as v5litepod-8"),
        (of_type("v4"), "a type such as v5litepod-8"),
        # Pods of TensorFlow: the images end at 2.18.0.
        (of_type("v4-32", "--engine=tensorflow"), "end at 2.18.0"),
        (of_type("v6e-16", "--engine=tensorflow", "--dry-run"), "take --engine=jax"),
        (
            of_type("v6e-16", "--engine=tensorflow", "--version=v2-alpha-tpuv6e", "--dry-run"),
            "and --version=v2-alpha-tpuv6e has none that fits",
        ),
        (
            of_type("v4-32", "--engine=tensorflow", "--version=tpu-vm-tf-2.18.0-pod-pjrt"),
            "the extra tpu is TensorFlow 2.19 or 2.20, which does not talk to it",
        ),
        # Buckets.
        ([*OPTIONS, "--bucket=my-bucket", *TRAIN], "gs://BUCKET or gs://BUCKET/FOLDER"),
        ([*OPTIONS, "--bucket=gs://B", *TRAIN], "3 to 63 characters: lower case letters, digits"),
        ([*OPTIONS, "--bucket=gs://ab", *TRAIN], "the TPU's own disk is gone with the TPU"),
        ([*OPTIONS[:3], *TRAIN], "--bucket=gs://BUCKET"),
        ([*OPTIONS, *TRAIN, "--workdir=runs/x"], "--workdir=runs/x would be deleted with the TPU"),
        ([*OPTIONS, *TRAIN, "--workdir", "runs/x"], "would be deleted with the TPU"),
        ([*OPTIONS, *TRAIN, "--workdir=gs://B"], "--workdir=gs://B: gs://BUCKET or gs://BUCKET/F"),
        ([*OPTIONS, *TRAIN, "--workdir=gs://"], "--workdir=gs://: gs://BUCKET or gs://BUCKET/F"),
        ([*OPTIONS, *TRAIN, "--config.data.path=gs://B/x"], "--config.data.path=gs://B/x: gs://BU"),
        # Engines.
        ([*OPTIONS, "--engine=torch", *TRAIN], "--engine=torch: tensorflow or jax"),
        ([*OPTIONS, *TRAIN, "--config.engine=torch"], "--config.engine=torch: tensorflow or jax"),
        (
            [*OPTIONS, "--engine=jax", *TRAIN, "--config.engine=tensorflow"],
            "--engine=jax installs what --config.engine=tensorflow cannot train with",
        ),
        # The rest.
        ([*OPTIONS, "--sport", *TRAIN], "unknown option --sport; did you mean --spot?"),
        ([*OPTIONS, "--spot=yes", *TRAIN], "unknown option --spot=yes"),
        ([*OPTIONS, "--project", *TRAIN], "--project; it needs a value, --project=VALUE"),
        ([*OPTIONS, "--spot", "--reserved", *TRAIN], "a reservation has no spot TPUs"),
        ([*OPTIONS, "--capacity-timeout=1w", *TRAIN], "a time such as 90m, 24h or 2d"),
        ([*OPTIONS, "--restarts=many", *TRAIN], "--restarts=many: a number"),
        ([*OPTIONS, "--self-delete=5", *TRAIN], "--self-delete=5: minutes, 10 or more"),
        ([*OPTIONS, "--self-delete", "--scopes=storage-rw", *TRAIN], "the scope cloud-platform"),
        (
            [*OPTIONS, "--self-delete", "--metadata=startup-script=x", *TRAIN],
            "the VM deletes itself by a startup script",
        ),
        ([*OPTIONS], "after -- comes the command"),
        ([*OPTIONS, "--", "evaluate"], "after -- comes the command"),
    ],
)
def test_what_cannot_work_is_refused(capsys, words, said):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("run_tpu.sh: launch: ")
    assert said in error


@pytest.mark.parametrize(
    ("words", "engine", "version", "added"),
    [
        (of_type("v2-8"), "tensorflow", "tpu-ubuntu2204-base", []),
        (of_type("v4-8"), "tensorflow", "tpu-ubuntu2204-base", []),
        (of_type("v5litepod-1"), "tensorflow", "v2-alpha-tpuv5-lite", []),
        (of_type("v5p-8"), "tensorflow", "v2-alpha-tpuv5", []),
        (of_type("v6e-8"), "jax", "v2-alpha-tpuv6e", ["--config.engine=jax"]),
        (of_type("v6e-1", "--engine=tensorflow"), "tensorflow", "v2-alpha-tpuv6e", []),
        # Several hosts.
        (of_type("v3-32"), "jax", "tpu-ubuntu2204-base", ["--config.engine=jax"]),
        (of_type("v5p-16"), "jax", "v2-alpha-tpuv5", ["--config.engine=jax"]),
        (of_type("v5litepod-16"), "jax", "v2-alpha-tpuv5-lite", ["--config.engine=jax"]),
        (
            of_type("v4-32", "--engine=tensorflow", "--version=tpu-vm-tf-2.20.0-pod-pjrt"),
            *("tensorflow", "tpu-vm-tf-2.20.0-pod-pjrt", []),
        ),
        # The training command says it.
        ([*of_type("v4-8"), "--config.engine=jax"], "jax", "tpu-ubuntu2204-base", []),
        ([*of_type("v4-8"), "--config.engine", "jax"], "jax", "tpu-ubuntu2204-base", []),
        (
            [*of_type("v6e-8"), "--config.engine=auto"],
            *("jax", "v2-alpha-tpuv6e", ["--config.engine=jax"]),
        ),
    ],
)
def test_engine_and_image_follow_from_the_type(words, engine, version, added):
    plan = parse(words)
    assert (plan.engine, plan.version) == (engine, version)
    given = words[words.index("--") + 1 :]
    assert list(plan.arguments) == [*given, *added, "--workdir=gs://my-bucket/net"]
    assert plan.several == (int(plan.type.partition("-")[2]) > 8)


PASSED_ON = [
    *("--service-account=trainer@p.iam.gserviceaccount.com", "--scopes=cloud-platform"),
    *("--network=mine", "--subnetwork=here", "--labels=team=vision,run=a", "--metadata=a=b,c=d"),
]


@pytest.mark.parametrize("queued", [False, True])
def test_options_of_gcloud_are_passed_on_to_where_they_belong(queued):
    more = ["--queued"] if queued else []
    plan = parse([*OPTIONS, *PASSED_ON, "--reserved", "--internal-ips", *more, *TRAIN])
    commands = Commands(plan, Path("/checkout"))
    assert {*PASSED_ON, "--reserved", "--internal-ips"} <= {*commands.create()}
    for command in (commands.copy("a.tgz"), commands.status(), commands.follow()):
        assert "--internal-ip" in command
        assert not {*PASSED_ON, "--internal-ips", "--reserved"} & {*command}
    # Through Google's proxy, which `gcloud compute tpus tpu-vm ssh` has in alpha only.
    plan = parse([*OPTIONS, "--internal-ips", "--tunnel-through-iap", *more, *TRAIN])
    commands = Commands(plan, Path("/checkout"))
    assert "--tunnel-through-iap" not in commands.create()
    assert "alpha" not in commands.create()
    for command in (commands.copy("a.tgz"), commands.start(), commands.stop()):
        assert command[1] == "alpha"
        assert "--tunnel-through-iap" in command
        assert "--internal-ip" not in command


def test_a_comma_in_the_path_of_the_checkout_is_part_of_it():
    plan = parse([*OPTIONS, "--self-delete", *TRAIN])
    script = "keras_resnet/launcher/watchdog.sh"
    for path, said in (("/a b", "startup-script=/a b/"), ("/a, b", "^:^startup-script=/a, b/")):
        assert f"--metadata-from-file={said}{script}" in Commands(plan, Path(path)).create()


def test_times_and_jobs():
    assert [seconds(text) for text in ("30s", "90m", "24h", "2d")] == [30, 5400, 86400, 172800]
    plan = parse([*OPTIONS, "--capacity-timeout=90m", "--self-delete", *TRAIN])
    assert (plan.capacity_timeout, plan.self_delete, plan.restarts) == (5400, 30, 20)
    assert plan.job == parse([*OPTIONS, "--keep", *TRAIN]).job
    assert plan.job != parse([*OPTIONS, *TRAIN, "--config.seed=1"]).job


def rows(start: str) -> list[list[str]]:
    """Returns the cells of the rows of docs/tpu.md that begin so."""
    text = (Path(__file__).parent.parent / "docs/tpu.md").read_text()
    found = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_the_docs_have_the_table_of_types():
    for name, family in images.FAMILIES.items():
        (row,) = rows(f"`{name}-")
        assert row[1:] == [f"`{family.image}`", f"`{family.engine}`"]


def test_the_docs_say_what_was_compiled():
    chips = {"v2": "v2, v3", "v3": "v2, v3", "v5litepod": "v5e"}
    for name, family in images.FAMILIES.items():
        (row,) = (row for row in rows(f"{chips.get(name, name)} |") if "run_tpu.sh" in row[-1])
        for cell, engine in ((row[1], "tensorflow"), (row[2], "jax")):
            assert (" compiled" in cell and "not compiled" not in cell) == (
                engine in family.compiled
            ), (name, engine)


def test_quotes_and_new_lines_reach_training_as_they_are():
    argument = '--config.note=it\'s "so"\nand $(so) `on` \\ é'
    plan = parse([*OPTIONS, *TRAIN, argument, ""])
    (command,) = (word for word in Commands(plan, Path()).start() if word.startswith("--command="))
    words = shlex.split(command.partition("=")[2])
    assert words[-3:] == [argument, "", "--workdir=gs://my-bucket/net"]
    assert words[words.index("start") :][1:3] == ["train", "--config=resnet50"]
