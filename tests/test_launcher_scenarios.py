"""What a launch does from every state and after every mishap; each machine is a folder.

What run_tpu.sh itself adds to that, signals among it, is in test_run_tpu.py.
"""

import pytest
from fake_cloud import EXISTS, NO_CAPACITY, NO_NETWORK, NO_QUOTA, NO_SSH, FolderCloud
from launches import OPTIONS, TRAIN, launch, make_checkout, wait_for

from keras_resnet.launcher import commands

COSTS = "run_tpu.sh: net in us-west4-a may still run, and costs money"
RUN = ["create", "scp", "delete"]
AGAIN = [*RUN, *RUN]


@pytest.fixture
def cloud(tmp_path):
    cloud = FolderCloud(tmp_path / "the cloud")
    cloud.folder.mkdir()
    cloud.install()
    yield cloud
    cloud.stop_all()


@pytest.fixture
def checkout(tmp_path):
    return make_checkout(tmp_path / "checkout")


def trainings(cloud) -> int:
    return cloud.log.read_text().count("[train]") if cloud.log.exists() else 0


# What happens between a launch and its end: what is there before, what the cloud does, what the
# launcher then does, and what it says. Each ends with training finished and the TPU deleted.
SCENARIOS = {
    "the VM reboots while training": (
        lambda c: c.rule("run_tpu.sh follow", event="reboot", code=255, error=NO_SSH),
        RUN, 2, "training is gone: the VM was started again; restart 1 of 20",
    ),
    "the VM is repaired while training": (
        lambda c: c.rule("run_tpu.sh follow", event="repair", code=255, error=NO_SSH),
        RUN, 2, "training is gone: the VM was started again; restart 1 of 20",
    ),
    "preempted while training": (
        lambda c: c.rule("run_tpu.sh follow", event="preempt", code=255, error=NO_SSH),
        AGAIN, 2, "net is PREEMPTED; it is deleted and created again; restart 1 of 20",
    ),
    "vanished while training": (
        lambda c: c.rule("run_tpu.sh follow", event="vanish", code=255, error=NO_SSH),
        [*RUN[:2], *RUN], 2, "net is gone; restart 1 of 20",
    ),
    "stopped while training": (
        lambda c: c.rule("run_tpu.sh follow", event="stop", code=255, error=NO_SSH),
        ["create", "scp", "start", "delete"], 2, "net is STOPPED; restart 1 of 20",
    ),
    "preempted while installing": (
        lambda c: c.rule("tpu_vm.sh deploy", event="preempt", code=255, error=NO_SSH),
        AGAIN, 1, "restart 1 of 20",
    ),
    "no capacity 25 times": (
        lambda c: c.rule("tpu-vm create", times=25, error=NO_CAPACITY),
        [*["create"] * 26, *RUN[1:]], 1, "no free TPU in us-west4-a; trying on",
    ),
    "another launcher creates it in between": (
        lambda c: c.rule("tpu-vm create", error=EXISTS.format(group="tpu-vm", name="net")),
        ["create", *RUN], 1, "ALREADY_EXISTS",
    ),
    "scp fails": (
        lambda c: c.rule("tpu-vm scp", times=2, error=NO_SSH),
        ["create", "scp", "scp", "scp", "delete"], 1, "port 22: Connection refused",
    ),
    "the connection breaks while installing": (
        lambda c: c.rule("tpu_vm.sh deploy", code=255, error="Connection reset by peer"),
        ["create", "scp", "scp", "delete"], 1, "Connection reset by peer",
    ),
    "the network is away for a while": (
        lambda c: [
            c.rule("run_tpu.sh follow", code=255, error=NO_NETWORK),
            c.rule("describe", times=7, error=NO_NETWORK, skip=4),
        ],
        RUN, 1, "Google Cloud does not answer; waiting. ERROR: gcloud crashed (TransportError)",
    ),
    "ssh does not answer at once": (
        lambda c: c.rule("keras-resnet-vm", times=3, code=1, error=NO_SSH),
        RUN, 1, "net does not answer by ssh; waiting. ssh: connect to host 34.1.2.3 port 22",
    ),
    "left over: PREEMPTED": (
        lambda c: c.add_node("PREEMPTED"), ["delete", *RUN], 1, "net is PREEMPTED",
    ),
    "left over: TERMINATED": (
        lambda c: c.add_node("TERMINATED"), ["delete", *RUN], 1, "net is TERMINATED",
    ),
    "left over: CREATING": (
        lambda c: c.add_node("CREATING", "CREATING", "READY"), RUN[1:], 1, "net is CREATING",
    ),
    "left over: STOPPED": (
        lambda c: c.add_node("STOPPED"), ["start", *RUN[1:]], 1, "net is STOPPED",
    ),
    "left over: DELETING": (
        lambda c: c.add_node("DELETING", "DELETING"), RUN, 1, "net is DELETING",
    ),
    "left over: a waiting request": (
        lambda c: c.add_request("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
        RUN[1:], 1, "the queued request is WAITING_FOR_RESOURCES",
    ),
    "left over: a failed request": (
        lambda c: c.add_request("FAILED", reason="INVALID_ARGUMENT"), ["delete", *RUN], 1,
        "the queued request is FAILED and has no TPU; it is deleted and made again",
    ),
    "left over: a suspended request": (
        lambda c: c.add_request("SUSPENDING", "SUSPENDED"), ["delete", *RUN], 1,
        "the queued request is SUSPENDED and has no TPU; it is deleted and made again",
    ),
}  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_command_gets_to_the_end(cloud, checkout, name):
    tell, verbs, count, said = SCENARIOS[name]
    if name.endswith("while training"):
        cloud.hold()  # the first one, until it is killed
    with cloud.change():
        tell(cloud)
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 0, text
    assert cloud.verbs() == verbs
    assert trainings(cloud) == count
    assert said in text
    assert text.count("is created\n") <= 2  # not with each try
    assert (cloud.state["node"], cloud.state["request"]) == (None, None)
    assert COSTS not in text


def test_a_queued_request_is_waited_for_and_deleted_with_its_tpu(cloud, checkout):
    options = ["--queued", "--capacity-timeout=2d", "--self-delete=45"]
    code, text = launch(cloud, checkout, *OPTIONS, *options, *TRAIN)
    assert code == 0, text
    create, *_, delete = (call for call in cloud.calls() if {"create", "delete"} & {*call})
    assert create[3:] == [
        *("queued-resources", "create", "net", "--zone=us-west4-a", "--node-id=net"),
        *("--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite"),
        *("--valid-until-duration=172800s", "--scopes=cloud-platform"),
        "--metadata=keras-resnet-self-delete=queuedResources/45",
        f"--metadata-from-file=startup-script={checkout}/keras_resnet/launcher/watchdog.sh",
    ]
    assert delete[3:] == [
        *("queued-resources", "delete", "net", "--zone=us-west4-a", "--force", "--quiet")
    ]
    assert "run_tpu.sh: net, v5litepod-8, is asked for\n" in text
    assert "the queued request is WAITING_FOR_RESOURCES" in text
    assert cloud.state["request"] is None


def test_a_queued_tpu_that_is_preempted_is_asked_for_again(cloud, checkout):
    cloud.hold()
    with cloud.change():
        cloud.rule("run_tpu.sh follow", event="preempt", code=255, error=NO_SSH)
    code, text = launch(cloud, checkout, *OPTIONS, "--queued", "--spot", *TRAIN)
    assert code == 0, text
    assert cloud.verbs() == AGAIN
    assert "restart 1 of 20" in text
    assert "restart 2" not in text
    assert trainings(cloud) == 2


@pytest.mark.parametrize(
    ("reason", "code", "said"),
    [
        ("There is no more capacity in the zone", 0, "the queued request failed, and is made"),
        ("Quota limit 'TPUV5s' has been exceeded", 1, "the queued request failed: "),
    ],
)
def test_a_queued_request_that_fails(cloud, checkout, reason, code, said):
    """Lack of capacity is asked again; what asking again does not mend is said."""
    with cloud.change():
        cloud.rule("queued-resources describe", event="fail", after=True, skip=1)
        cloud.state["failure"] = reason
    done, text = launch(cloud, checkout, *OPTIONS, "--queued", *TRAIN)
    assert done == code, text
    assert said in text
    assert reason in text
    assert COSTS not in text
    assert cloud.state["request"] is None


def test_restarts_count_losses_and_nothing_else(cloud, checkout):
    with cloud.change():
        cloud.rule("tpu-vm create", times=9, error=NO_CAPACITY)
        for _ in range(3):
            cloud.rule("tpu_vm.sh deploy", event="preempt", code=255, error=NO_SSH)
    code, text = launch(cloud, checkout, *OPTIONS, "--restarts=2", *TRAIN)
    assert code == 1
    assert "restart 2 of 2" in text
    assert "net is PREEMPTED; it is deleted and created again, and --restarts=2 are used" in text
    assert cloud.verbs().count("create") == 9 + 3
    assert cloud.state["node"] is None
    assert COSTS not in text


def test_a_changed_checkout_is_copied_before_it_trains(cloud, checkout):
    """Training ended with an error, the code was mended, the TPU is still READY."""
    (cloud.folder / "code").write_text("2")
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 2
    assert "training with 5 arguments" in text
    assert "training ended with exit code 2; its log is above" in text
    assert COSTS in text
    assert cloud.verbs() == ["create", "scp"]
    (cloud.folder / "code").unlink()
    (checkout / "mended.py").write_text("print('mended')")
    (cloud.disk() / "keras_resnet/stale.py").touch()
    code, text = launch(cloud, checkout, *OPTIONS, "--keep", *TRAIN)
    assert code == 0, text
    assert "training had ended with an error; it is started again" in text
    assert cloud.verbs() == ["create", "scp", "scp"]
    assert (cloud.disk() / "keras_resnet/mended.py").exists()
    assert not (cloud.disk() / "keras_resnet/stale.py").exists()
    assert COSTS in text
    # Unchanged, the same command finds it done: no third copy, no third training.
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 0, text
    assert cloud.verbs() == ["create", "scp", "scp", "delete"]
    assert trainings(cloud) == 2
    assert "training with 5 arguments" in text


def leave_training_behind(cloud, checkout):
    """A launcher loses its connection and then its login; training goes on until it is followed."""
    cloud.hold()
    with cloud.change():
        cloud.rule("run_tpu.sh follow", code=255, error=NO_SSH)
        cloud.rule("describe", times=2, error="ERROR: Reauthentication required", skip=6)
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 1
    assert "gcloud refuses:\nERROR: Reauthentication required" in text
    assert COSTS in text
    wait_for((cloud.folder / "training").exists)
    with cloud.change():
        cloud.rule("run_tpu.sh follow", event="release", after=True)


def test_what_another_launcher_deletes_at_the_end_is_not_rented_again(cloud, checkout):
    """Two follow one training; it ends, and the other one is the faster."""
    with cloud.change():
        cloud.rule("queued-resources describe", event="vanish", after=True, skip=3)
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 0, text
    assert "training ended with exit code 0" in text
    assert cloud.verbs() == RUN[:2]
    assert trainings(cloud) == 1


def test_what_another_launcher_installs_meanwhile_is_not_started(cloud, checkout):
    """Between one's installation and its start: the wrong code does not train in its name."""
    other = make_checkout(cloud.folder.parent / "other")
    (other / "changed.py").touch()
    ssh, installed = cloud.ssh, []

    def and_the_other_installs(workers, command):
        if " start " in command and not installed:
            installed.append(True)
            (cloud.disk() / "keras_resnet/.installed").write_text("0123 tensorflow\n")
        return ssh(workers, command)

    cloud.ssh = and_the_other_installs
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 0, text
    assert "another launcher has installed another checkout meanwhile" in text
    assert cloud.verbs() == ["create", "scp", "scp", "delete"]
    assert trainings(cloud) == 1


@pytest.mark.parametrize("replace", [False, True])
def test_training_with_an_older_checkout_goes_on_unless_replaced(cloud, checkout, replace):
    leave_training_behind(cloud, checkout)
    (checkout / "changed.py").touch()
    options = ["--replace"] if replace else []
    code, text = launch(cloud, checkout, *OPTIONS, *options, *TRAIN)
    assert code == 0, text
    assert trainings(cloud) == 1 + replace
    assert ("saved" in cloud.log.read_text()) == replace
    assert ("--replace ends it" in text) == replace
    assert ("training runs with another checkout than this one, and goes on" in text) != replace
    assert cloud.verbs() == ["create", "scp", *["scp"] * replace, "delete"]


def test_another_training_that_runs_there_is_not_touched(cloud, checkout):
    leave_training_behind(cloud, checkout)
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN, "--config.seed=1")
    assert code == 1
    assert "another training runs on net: follow it with the command that began it" in text
    assert COSTS in text
    assert trainings(cloud) == 1
    assert launch(cloud, checkout, *OPTIONS, *TRAIN)[0] == 0


def test_a_tpu_of_another_type_is_not_touched(cloud, checkout):
    with cloud.change():
        cloud.add_node("READY", type="v4-8")
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 1
    assert "there is a TPU net already, a v4-8; take another --name, or delete it" in text
    assert cloud.verbs() == []


@pytest.mark.parametrize(
    ("tell", "said", "costs"),
    [
        (lambda c: c.rule("tpu-vm create", times=99, error=NO_QUOTA), "quota for v5litepod-8", 0),
        (
            lambda c: c.rule("tpu-vm create", error="ERROR: PERMISSION_DENIED: Cloud TPU API has "
                             "not been used in project 1 before or it is disabled"),
            "gcloud may not do that; its message is above", 0,
        ),
        (
            lambda c: c.rule("describe", times=99, error="ERROR: PERMISSION_DENIED: Permission "
                             "'tpu.nodes.get' denied on 'projects/p/locations/us-west4-a'"),
            "gcloud refuses:\nERROR: PERMISSION_DENIED", 1,
        ),
        # The TPU that was created for it does not train: it is deleted.
        (lambda c: c.rule("tpu-vm scp", times=99, error="disk full"), "disk full", 0),
        (lambda c: c.rule("tpu_vm.sh deploy", times=99, error="pip: no"), "pip: no", 0),
        (lambda c: c.rule("run_tpu.sh start", times=99, error="no start"), "no start", 0),
        (lambda c: c.rule("keras-resnet-vm", times=99, error=NO_SSH), "is port 22 open", 0),
        # One that was there before is not.
        (
            lambda c: [c.add_node(), c.rule("tpu-vm scp", times=99, error="disk full")],
            "could not be copied or installed", 1,
        ),
    ],
)  # fmt: skip
def test_what_waiting_does_not_mend_ends_the_launch(cloud, checkout, tell, said, costs):
    with cloud.change():
        tell(cloud)
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 1
    assert said in text
    assert (COSTS in text) == bool(costs)
    if costs:
        assert "gcloud compute tpus tpu-vm delete net --zone=us-west4-a --quiet" in text
        assert "delete" not in cloud.verbs()
    else:
        assert cloud.state["node"] is None


def test_keep_keeps_what_does_not_train(cloud, checkout):
    with cloud.change():
        cloud.rule("tpu_vm.sh deploy", times=99, error="pip: no")
    code, text = launch(cloud, checkout, *OPTIONS, "--keep", *TRAIN)
    assert code == 1
    assert COSTS in text
    assert cloud.verbs() == ["create", *["scp"] * 5]


def test_a_pod_trains_with_jax_on_every_worker(cloud, checkout):
    options = [*OPTIONS[:2], "--type=v6e-16", OPTIONS[3]]
    code, text = launch(cloud, checkout, *options, *TRAIN)
    assert code == 0, text
    create = next(call for call in cloud.calls() if "create" in call)
    assert create[-2:] == ["--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e"]
    workers = [
        next(word for word in call if word.startswith("--worker="))
        for call in cloud.calls()
        if {"scp", "ssh"} & {*call}
    ]
    # status, scp, deploy, status, start; its log; whatever it takes until both are through
    assert workers[:6] == ["--worker=all"] * 5 + ["--worker=0"]
    assert cloud.verbs() == RUN
    lines = cloud.log.read_text().splitlines()
    command = "[-m][keras_resnet_cli][train][--config=resnet50][--config.engine=jax]"
    assert lines.count(command + "[--workdir=gs://my-bucket/net]") == 2
    assert "JAX_PLATFORMS=tpu,cpu" in lines
    assert not any(line.startswith(("TPU_NAME", "TF_PLUGGABLE", "PJRT")) for line in lines)
    assert "[jax-tpu]" in (cloud.folder / "pip.log").read_text()


def test_on_a_pod_the_worker_that_fails_decides(cloud, checkout):
    (cloud.folder / "code.1").write_text("3")
    code, text = launch(cloud, checkout, *OPTIONS[:2], "--type=v6e-16", OPTIONS[3], *TRAIN)
    assert code == 3
    follows = [call for call in cloud.calls() if "follow" in call[-6]]
    assert ["--worker=0" in call for call in follows] == [True, False]
    assert "training ended with exit code 3; its log is above" in text
    assert COSTS in text


def test_on_a_pod_those_that_hang_are_ended(cloud, checkout, monkeypatch):
    """One worker has failed, the other waits for it: both end, and the first one's log is shown."""
    monkeypatch.setattr(commands, "POD_SECONDS", 1)
    cloud.hold(worker=0)
    (cloud.folder / "code.1").write_text("3")
    code, text = launch(cloud, checkout, *OPTIONS[:2], "--type=v6e-16", OPTIONS[3], *TRAIN)
    assert code == 3
    assert "training has ended on worker 1 and runs on the others" in text
    assert "training failed on worker 1" in text
    assert "training ended with exit code 3; its log is above" in text
    assert "saved" in cloud.log.read_text()


def test_on_a_pod_of_tensorflow_the_first_worker_drives_the_others(cloud, checkout):
    """Google publishes no image for it today: 2.18.0 is the last."""
    pod = [*OPTIONS[:2], "--type=v4-32", OPTIONS[3], "--engine=tensorflow"]
    image = "--version=tpu-vm-tf-2.19.1-pod-pjrt"
    code, text = launch(cloud, checkout, *pod, image, *TRAIN)
    assert code == 0, text
    arguments, *variables = cloud.log.read_text().splitlines()
    assert arguments == (
        "[-m][keras_resnet_cli][train][--config=resnet50][--workdir=gs://my-bucket/net]"
    )
    assert {"TPU_NAME=net", "TPU_LOAD_LIBRARY=0"} <= set(variables)
    assert not any(line.startswith(("TF_PLUGGABLE", "PJRT", "NEXT_PLUGG")) for line in variables)


@pytest.mark.ci
def test_interrupted_training_is_no_failure(cloud, checkout):
    """A machine that is taken away sends SIGTERM first: training saves and ends with 143."""
    (cloud.folder / "code.0").write_text("143")
    code, text = launch(cloud, checkout, *OPTIONS, *TRAIN)
    assert code == 0, text
    assert "training is gone; restart 1 of 20" in text
    assert trainings(cloud) == 2


def test_a_tpu_that_cannot_be_deleted_is_named(cloud, checkout):
    with cloud.change():
        cloud.rule("tpu-vm delete", times=99, error="ERROR: INTERNAL: try again")
    code, text = launch(cloud, checkout, *OPTIONS, "--self-delete", *TRAIN)
    assert code == 1
    assert "net could not be deleted" in text
    assert COSTS in text
    assert "It deletes itself 30 minutes after training has ended" in text
    assert cloud.verbs() == ["create", "scp", *["delete"] * 5]
