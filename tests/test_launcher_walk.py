"""A random walk of 200 mishaps through a launch, with a cloud and a clock that are models.

Whoever launched calls the same command again when the launcher ends without having finished, as
systemd would. At every end of a launcher either nothing is left of the TPU, or its last lines name
what costs money and the command that deletes it, or (where it was killed and could say nothing) the
VM deletes itself. The walk ends with training finished and nothing left.
"""

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_cloud import NO_CAPACITY, NO_NETWORK, NO_SSH, Cloud
from launches import OPTIONS, TRAIN

from keras_resnet.launcher import gcloud
from keras_resnet.launcher.loop import Launcher, Stopped
from keras_resnet.launcher.options import parse

EVENTS, MINUTE, CHECKPOINT = 200, 60, 600


class Killed(BaseException):
    """The launcher ends here: by SIGKILL, or by a signal that it can answer."""


class ModelCloud(Cloud):
    """A cloud with a clock, whose machines are models of tpu_vm.sh, and to which things happen."""

    def __init__(self, seed: int, plan):
        super().__init__()
        self.random, self.plan = random.Random(seed), plan
        self.clock, self.next, self.happened = 0.0, 600.0, []
        self.until = dict.fromkeys(("network", "ssh", "capacity", "scp"), 0.0)  # outages
        self.kill_launcher = ""
        self.workers: list[dict] = []
        self.progress, self.goal = 0.0, float("inf")
        self.looked, self.unowned, self.idle = 0.0, 0.0, 0.0

    # Time.

    def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            step = min(seconds, MINUTE)
            seconds -= step
            self.clock += step
            self._train(step)
            self._watch(step)
            if self.clock >= self.next:
                self._happen()

    def trains(self) -> bool:
        return bool(self.workers) and all(one["train"] == "running" for one in self.workers)

    def _train(self, seconds: float) -> None:
        if not self.trains():
            ready = self.state["node"] and self.state["node"]["states"][0] == "READY"
            self.idle += seconds if ready else 0
            return
        self.progress += seconds
        if self.progress >= self.goal:
            for one in self.workers:
                one.update(train="ended", exit=0)

    def _watch(self, seconds: float) -> None:
        """The watchdog of --self-delete."""
        self.unowned = 0 if self.trains() or not self.reachable() else self.unowned + seconds
        alone = min(self.unowned, self.clock - self.looked)
        if self.plan.self_delete and alone > self.plan.self_delete * MINUTE:
            self.delete_by_itself()

    def _happen(self) -> None:
        self.next = self.clock + self.random.expovariate(1 / (10 * MINUTE))
        name = self.random.choice(
            [*("reboot", "repair", "preempt", "preempt", "stop", "vanish", "lose one", "crash"),
             *("terminate", "network", "ssh", "capacity", "capacity", "scp"),
             *("kill -9", "kill -15")]
        )  # fmt: skip
        self.happened.append(name)
        if len(self.happened) >= EVENTS:  # from here on it may come to its end
            self.next, self.goal = float("inf"), min(self.goal, self.progress + 3600)
        if name in self.until:
            self.until[name] = self.clock + self.random.uniform(60, 3600)
        elif name.startswith("kill"):
            self.kill_launcher = name
        elif name in ("lose one", "crash", "terminate"):
            ends = {"lose one": ("lost", None), "crash": ("ended", 1), "terminate": ("ended", 143)}
            running = [one for one in self.workers if one["train"] == "running"]
            if running:
                train, code = ends[name]
                self.random.choice(running).update(train=train, exit=code)
                self.progress -= self.progress % CHECKPOINT
        else:
            self.event(name)

    # gcloud.

    def run(self, argv, timeout=None, stream=False) -> gcloud.Result:
        self.pass_time(5)
        if self.kill_launcher:
            raise Killed
        if self.clock < self.until["network"]:
            return gcloud.Result(1, "", NO_NETWORK)
        if {"ssh", "scp"} & {*argv} and self.clock < self.until["ssh"]:
            return gcloud.Result(255, "", NO_SSH)
        if "create" in argv and "tpu-vm" in argv and self.clock < self.until["capacity"]:
            self.pass_time(120)
            return gcloud.Result(1, "", NO_CAPACITY)
        return gcloud.Result(*self.call(argv))

    def boot(self):
        blank = {"code": "none", "engine": "none", "train": "none", "exit": None, "job": "-"}
        self.workers = [dict(blank) for _ in range(self.state["node"]["hosts"])]

    def kill(self):
        for one in self.workers:
            if one["train"] == "running":
                one["train"] = "lost"
                self.progress -= self.progress % CHECKPOINT

    def wipe(self):
        self.workers = []

    def copy(self, source, target, workers):
        self.pass_time(20)
        broken = self.clock < self.until["scp"] or not self.reachable()
        return (1, "", NO_SSH) if broken else (0, "", "")

    def ssh(self, workers, command):
        before = self.state["boot"], id(self.workers)
        for verb in ("deploy", "start", "follow", "stop"):
            if f"tpu_vm.sh {verb}" in command or f"run_tpu.sh {verb}" in command:
                result = getattr(self, verb)([self.workers[number] for number in workers])
                same = (self.state["boot"], id(self.workers)) == before
                return result if same and self.reachable() else (255, "", NO_SSH)
        self.looked = self.clock
        return 0, "".join(map(self.line, range(len(self.workers)))), ""

    def line(self, number: int) -> str:
        one = self.workers[number]
        code = "-" if one["exit"] is None else one["exit"]
        return (
            f"keras-resnet-vm worker={number} code={one['code']} engine={one['engine']} "
            f"train={one['train']} exit={code} job={one['job']} reboot=no\n"
        )

    def deploy(self, workers):
        assert not any(one["train"] == "running" for one in workers)
        boot = self.state["boot"]
        self.pass_time(300)
        if self.state["boot"] == boot:
            for one in workers:
                one.update(code=self.plan.code, engine=self.plan.engine, train="none", exit=None)
        return 0, "", ""

    def start(self, workers):
        for one in workers:
            assert (one["code"], one["engine"]) == (self.plan.code, self.plan.engine)
            if one["train"] != "running":
                one.update(train="running", exit=None, job=self.plan.job)
        return 0, "", ""

    def follow(self, workers):
        boot, workers_there = self.state["boot"], self.workers
        end = self.clock + 600 if len(self.workers) > 1 else float("inf")
        while workers[0]["train"] == "running" and not self.kill_launcher and self.clock < end:
            self.pass_time(MINUTE)
            away = max(self.until["network"], self.until["ssh"]) > self.clock
            if away or self.state["boot"] != boot or self.workers is not workers_there:
                return 255, "", NO_SSH
        return int(workers[0]["exit"] != 0), "", ""

    def stop(self, workers):
        self.pass_time(30)
        for one in workers:
            one.update(train="none", exit=None)
        return 0, "", ""


VARIANTS = {
    "one host": ["--spot"],
    "queued": ["--spot", "--queued"],
    "self-delete": ["--spot", "--self-delete=60"],
    "pod": ["--type=v6e-16", "--spot", "--self-delete=60"],
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("variant", VARIANTS)
def test_200_mishaps(variant, seed):
    plan = parse([*OPTIONS, *VARIANTS[variant], "--restarts=9999", *TRAIN])
    plan = replace(plan, code="abc")
    cloud = ModelCloud(seed, plan)
    code, launches = None, 0
    while code != 0:
        launches += 1
        assert launches < 2 * EVENTS
        cloud.kill_launcher = ""
        code, said = one_launch(cloud, plan)
        there = cloud.state["node"] or cloud.state["request"]
        if there and code is not None:
            assert "run_tpu.sh: net in us-west4-a may still run, and costs money" in said
            group = "queued-resources" if cloud.state["request"] else "tpu-vm"
            assert f"gcloud compute tpus {group} delete net --zone=us-west4-a" in said
    assert len(cloud.happened) >= EVENTS
    assert cloud.progress >= cloud.goal
    assert (cloud.state["node"], cloud.state["request"]) == (None, None)
    assert "may still run" not in said
    # A READY TPU that does not train bills: on the average of all mishaps for some minutes.
    assert cloud.idle / EVENTS < 15 * MINUTE
    creates = [call for call in cloud.state["calls"] if "create" in call]
    assert len(creates) < EVENTS * 1.2


def one_launch(cloud: ModelCloud, plan) -> tuple[int | None, str]:
    """Returns the exit code of one launcher, None where it was killed, and what it said."""
    said: list[str] = []
    launcher = Launcher(
        plan, Path(), Path("a.tgz"), run=cloud.run, say=said.append,
        sleep=cloud.pass_time, clock=lambda: cloud.clock, wait=30,
    )  # fmt: skip
    try:
        code = launcher.go()
    except Stopped as stopped:
        code = 1
        said.append(str(stopped))
    except Killed:
        if cloud.kill_launcher == "kill -9":
            return None, ""
        code, cloud.kill_launcher = 130, ""
    try:
        launcher.say_what_costs()
    except Killed:
        return None, ""
    return code, "\n".join(said)


def test_a_tpu_that_its_launcher_left_deletes_itself():
    """The launcher is killed while it installs, and never called again."""
    plan = replace(parse([*OPTIONS, "--self-delete", *TRAIN]), code="abc")
    cloud = ModelCloud(0, plan)
    cloud.next = float("inf")
    cloud.rule("tpu_vm.sh deploy", error=NO_SSH)
    run = cloud.run

    def killed_while_installing(argv, **options):
        if "deploy" in " ".join(argv):
            raise Killed
        return run(argv, **options)

    cloud.run = killed_while_installing
    cloud.kill_launcher = ""
    with pytest.raises(Killed):
        Launcher(plan, Path(), Path("a.tgz"), run=cloud.run, say=print, wait=30).go()
    assert cloud.state["node"] is not None
    cloud.pass_time(29 * MINUTE)
    assert cloud.state["node"] is not None
    cloud.pass_time(5 * MINUTE)
    assert cloud.state["node"] is None


@pytest.mark.parametrize("ends", ["a signal", "the network"])
def test_a_creation_that_nobody_saw_the_end_of_is_named(ends):
    """The launcher ends while gcloud creates: a TPU may come that no look has shown."""
    plan = replace(parse([*OPTIONS, *TRAIN]), code="abc")
    cloud, said = ModelCloud(0, plan), []
    cloud.next = float("inf")

    def run(argv, **options):
        if "create" in argv and ends == "a signal":
            raise Killed
        if "create" in argv:
            cloud.until["network"] = float("inf")
        return cloud.run(argv, **options)

    launcher = Launcher(
        plan, Path(), Path("a.tgz"), run=run, say=said.append, sleep=cloud.pass_time,
        clock=lambda: cloud.clock, wait=30,
    )  # fmt: skip
    if ends == "a signal":
        with pytest.raises(Killed):
            launcher.go()
    else:
        assert launcher.go() == 1
        assert cloud.clock > plan.capacity_timeout
    launcher.say_what_costs()
    assert "net in us-west4-a may still run, and costs money until you delete it" in said[-1]


@pytest.mark.parametrize("queued", [False, True])
def test_what_took_a_day_to_come_is_not_deleted_while_it_starts(queued):
    """The TPU comes in the last minutes of --capacity-timeout, and its ssh some minutes later."""
    words = ["--capacity-timeout=24h", *["--queued"] * queued]
    plan = replace(parse([*OPTIONS, *words, *TRAIN]), code="abc")
    cloud = ModelCloud(0, plan)
    cloud.next, cloud.goal = float("inf"), 3600
    cloud.until["capacity"] = 86400 - 300
    if queued:
        cloud.add_request(*["WAITING_FOR_RESOURCES"] * 2100, "ACTIVE")
    cloud.rule("keras-resnet-vm", times=12, code=255, error=NO_SSH)
    code, said = one_launch(cloud, plan)
    assert code == 0, said
    assert cloud.clock > 86400
    assert "--capacity-timeout is over" not in said


def test_gcloud_that_is_gone_is_no_end():
    """As while its components are updated: the launcher looks again instead of ending by it."""
    result = gcloud.run(["/nowhere/gcloud", "compute"])
    assert (result.code, result.kind) == (127, "other")
    assert result.error == "/nowhere/gcloud cannot be started: No such file or directory"


def test_gcloud_that_hangs_is_given_up_with_all_that_it_started(tmp_path):
    done = tmp_path / "done"
    command = ["bash", "-c", f"(sleep 1; touch '{done}') & echo out; echo error >&2; wait"]
    result = gcloud.run(command, timeout=0.3)
    assert (result.code, result.kind) == (255, "network")
    time.sleep(1.2)
    assert not done.exists()
    assert gcloud.run(["bash", "-c", "echo out; echo error >&2; exit 3"]) == (3, "out\n", "error\n")


def test_waiting_grows_to_ten_minutes_and_ends():
    """Without capacity: 30 s, 1, 2, 4, 8 minutes, then 10; after --capacity-timeout it gives up."""
    plan = replace(parse([*OPTIONS, "--capacity-timeout=2d", *TRAIN]), code="abc")
    cloud = ModelCloud(0, plan)
    cloud.next, cloud.until["capacity"] = float("inf"), float("inf")
    waits: list[float] = []

    def sleep(seconds):
        waits.append(seconds)
        cloud.pass_time(seconds)

    launcher = Launcher(
        plan, Path(), Path("a.tgz"), run=cloud.run, say=print, sleep=sleep,
        clock=lambda: cloud.clock, wait=30,
    )  # fmt: skip
    assert launcher.go() == 1
    assert waits[:7] == [30, 60, 120, 240, 480, 600, 600]
    assert {*waits[7:]} == {600}
    assert 2 * 86400 < cloud.clock < 2 * 86400 + 3600
    assert launcher.memory.restarts == 0
