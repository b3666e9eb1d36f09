"""The table of the launcher: what is there → the next step."""

import itertools
from pathlib import Path

import pytest
from launches import OPTIONS, TRAIN

from keras_resnet.launcher.commands import Commands
from keras_resnet.launcher.decide import NODE, REQUEST, decide
from keras_resnet.launcher.gcloud import Result
from keras_resnet.launcher.observe import NONE, UNREACHABLE, Seen, Worker, look, read_workers
from keras_resnet.launcher.options import parse
from keras_resnet.launcher.steps import Memory

PLAN = parse([*OPTIONS, *TRAIN])
SPOT = parse([*OPTIONS, "--spot", *TRAIN])
REPLACE = parse([*OPTIONS, "--replace", *TRAIN])
KEEP = parse([*OPTIONS, "--keep", *TRAIN])
POD = parse([*OPTIONS[:2], "--type=v6e-16", OPTIONS[3], *TRAIN])


def worker(train="none", exit=None, number=0, plan=PLAN, **options) -> Worker:
    """A worker with everything installed."""
    known = {"code": plan.code, "engine": plan.engine, "job": "-" if train == "none" else plan.job}
    return Worker(number, train=train, exit=exit, **{**known, **options})


def pod(*workers: tuple) -> tuple[Worker, ...]:
    return tuple(worker(*of_one, number=number, plan=POD) for number, of_one in enumerate(workers))


def ready(*workers: Worker) -> Seen:
    return Seen("READY", workers=workers)


# (what is seen, the plan, what the launch has gone through, the step, whether it is a loss)
ROWS = [
    # No TPU.
    (Seen(), PLAN, {}, "create", False),
    (Seen(), PLAN, {"was_ready": True}, "create", True),
    (Seen(), PLAN, {"waited": 86401}, "fail", False),
    (Seen(), PLAN, {"was_ready": True, "restarts": 20}, "fail", True),
    # It had trained to its end: what another launcher deletes then is not rented again.
    (Seen(), PLAN, {"was_ready": True, "finished": True}, "ended", False),
    (Seen("PREEMPTED"), SPOT, {"was_ready": True, "finished": True}, "ended", False),
    (Seen(UNREACHABLE), PLAN, {"was_ready": True, "finished": True}, "wait", False),
    (ready(worker("running")), PLAN, {"finished": True}, "follow", False),
    # Nobody answers: nothing is deleted, nothing is created.
    (Seen(UNREACHABLE), PLAN, {}, "wait", False),
    (Seen(NONE, UNREACHABLE), PLAN, {"was_ready": True}, "wait", False),
    (Seen(UNREACHABLE), PLAN, {"waited": 86401}, "fail", False),
    (Seen(UNREACHABLE, refused="PERMISSION_DENIED"), PLAN, {}, "fail", False),
    # Nodes.
    *((Seen(state), PLAN, {}, "wait", False) for state, do in NODE.items() if do == "wait"),
    *((Seen(state), PLAN, {}, "delete", False) for state, do in NODE.items() if do == "delete"),
    (Seen("PREEMPTED"), SPOT, {"was_ready": True}, "delete", True),
    (Seen("PREEMPTED"), SPOT, {"deletes": 5}, "fail", False),
    (Seen("STOPPED"), PLAN, {}, "start-tpu", False),
    (Seen("STOPPED"), PLAN, {"was_ready": True}, "start-tpu", True),
    (Seen("STOPPED"), PLAN, {"cannot_start": True}, "delete", False),
    (Seen("STOPPED"), SPOT, {}, "delete", False),
    (Seen("STOPPED"), POD, {}, "delete", False),
    (Seen("STOPPED", "ACTIVE"), PLAN, {}, "delete", False),
    (Seen("REPAIRING"), PLAN, {"waited": 86401}, "fail", False),
    (Seen("A_NEW_STATE"), PLAN, {}, "wait", False),
    (Seen("READY", type="v4-8"), PLAN, {}, "fail", False),
    (Seen("PREEMPTED", type="v4-8"), PLAN, {}, "fail", False),
    # Queued requests.
    *(
        (Seen(NONE, state), PLAN, {}, do, False)
        for state, do in REQUEST.items()
        if state != NONE
    ),
    (Seen("PREEMPTED", "SUSPENDING"), SPOT, {"was_ready": True}, "wait", False),
    (Seen(NONE, "SUSPENDED"), SPOT, {"was_ready": True}, "delete", True),
    (Seen(NONE, "FAILED", "no more capacity"), PLAN, {"asked": True}, "delete", False),
    (Seen(NONE, "FAILED", "Quota limit exceeded"), PLAN, {"asked": True}, "fail", False),
    (Seen(NONE, "FAILED", "INVALID_ARGUMENT"), PLAN, {"asked": True}, "fail", False),
    (Seen(NONE, "FAILED", "INVALID_ARGUMENT"), PLAN, {}, "delete", False),
    (Seen("CREATING", "PROVISIONING"), PLAN, {}, "wait", False),
    # A READY TPU whose workers do not answer.
    (ready(), PLAN, {"silent": 3}, "wait", False),
    (ready(), PLAN, {"silent": 20}, "fail", False),
    (ready(), PLAN, {"silent": 20, "answered": True}, "wait", False),
    # Installing.
    (ready(Worker(0)), PLAN, {}, "deploy", False),
    (ready(worker(code="old")), PLAN, {}, "deploy", False),
    (ready(worker(engine="jax")), PLAN, {}, "deploy", False),
    (ready(worker(code="old")), PLAN, {"deploys": 5}, "fail", False),
    (ready(worker("ended", 2, code="old")), PLAN, {}, "deploy", False),
    # Training.
    (ready(worker()), PLAN, {}, "start", False),
    (ready(worker()), PLAN, {"ran": True}, "start", True),
    (ready(worker()), PLAN, {"starts": 5}, "fail", False),
    (ready(worker("running")), PLAN, {}, "follow", False),
    (ready(worker("running", code="old")), PLAN, {}, "follow", False),
    (ready(worker("running", code="old")), REPLACE, {}, "stop", False),
    (ready(worker("running", code="old")), REPLACE, {"replaced": True}, "follow", False),
    (ready(worker("running", job="other")), PLAN, {}, "fail", False),
    (ready(worker("running", job="other")), REPLACE, {}, "stop", False),
    (ready(worker("running", job="other")), REPLACE, {"stops": 5}, "fail", False),
    (ready(worker("lost", rebooted=True)), PLAN, {}, "start", True),
    (ready(worker("lost")), PLAN, {"restarts": 20}, "fail", True),
    (ready(worker("lost", code="old")), PLAN, {}, "deploy", True),
    (ready(worker("ended", 0)), PLAN, {}, "ended", False),
    (ready(worker("ended", 0, code="old")), PLAN, {}, "ended", False),
    (ready(worker("ended", 0, job="other")), PLAN, {}, "start", False),
    (ready(worker("ended", 2)), PLAN, {"started": True, "ran": True}, "ended", False),
    (ready(worker("ended", 2)), PLAN, {}, "start", False),  # the user calls again: he means it
    (ready(worker("ended", 143)), PLAN, {"started": True, "ran": True}, "start", True),
    # Several hosts.
    (ready(*pod(["running"], ["running"])), POD, {}, "follow", False),
    (ready(*pod(["running"], ["ended", 0])), POD, {"ragged": 99}, "follow", False),
    (ready(*pod(["running"], ["lost"])), POD, {"ragged": 3}, "wait", False),
    (ready(*pod(["running"], ["lost"])), POD, {"ragged": 10}, "stop", True),
    (ready(*pod(["running"], ["ended", 3])), POD, {"ragged": 10}, "stop", False),
    (ready(*pod(["ended", 0], ["ended", 0])), POD, {}, "ended", False),
    (ready(*pod(["ended", 1], ["lost"])), POD, {"started": True}, "start", True),
    (ready(*pod(["ended", 1], ["ended", 143])), POD, {"started": True}, "start", True),
    (ready(*pod(["ended", 0], ["ended", 3])), POD, {"started": True}, "ended", False),
    # 75: another host is lost; the one that failed by itself decides.
    (ready(*pod(["ended", 75], ["ended", 75])), POD, {"started": True}, "start", True),
    (ready(*pod(["running"], ["ended", 75])), POD, {"ragged": 10}, "stop", True),
    (ready(*pod(["ended", 75], ["ended", 3])), POD, {"started": True}, "ended", False),
    (ready(*pod(["none"], ["none"])), POD, {}, "start", False),
    # Of TensorFlow's workers the first one trains.
    (ready(worker("running"), worker(number=1)), PLAN, {}, "follow", False),
    # After training.
    (ready(worker("ended", 0)), PLAN, {"ended": 0}, "delete", False),
    (Seen("DELETING"), PLAN, {"ended": 0}, "wait", False),
    (Seen(UNREACHABLE), PLAN, {"ended": 0}, "wait", False),
    (Seen(UNREACHABLE, refused="reauth"), PLAN, {"ended": 0}, "fail", False),
    (Seen(), PLAN, {"ended": 0}, "done", False),
    (Seen("READY"), PLAN, {"ended": 0, "deletes": 5}, "fail", False),
    (Seen("READY"), PLAN, {"ended": 2}, "done", False),
    (Seen("READY"), KEEP, {"ended": 0}, "done", False),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "plan", "memory", "do", "loss"), ROWS)
def test_row(seen, plan, memory, do, loss):
    step = decide(seen, plan, Memory(**memory))
    if do == "fail" and loss:  # the loss that is one too many
        assert "are used up" in step.why
        loss = False
    assert (step.do, step.loss) == (do, loss)
    assert step.why or do in ("create", "deploy", "start", "follow", "ended", "done")


def test_the_code_and_the_worker_that_failed_are_said():
    step = decide(ready(*pod(["ended", 0], ["ended", 3])), POD, Memory(started=True))
    assert (step.do, step.code, step.worker) == ("ended", 3, 1)
    step = decide(ready(*pod(["ended", 3], ["running"])), POD, Memory(ragged=10))
    assert (step.do, step.code, step.worker) == ("stop", 3, 0)


def test_a_gcloud_that_is_too_old_is_told_from_a_refusal():
    for said, old in (("Invalid choice: 'queued-resources'.", True), ("PERMISSION_DENIED", False)):
        why = decide(Seen(UNREACHABLE, refused=said), PLAN, Memory()).why
        assert why.startswith(f"gcloud refuses:\n{said}")
        assert ("gcloud components update" in why) == old


def test_the_line_of_ssh_that_says_most_is_said():
    error = (
        "Permission denied (publickey).\nERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] "
        "exited with return code [255]."
    )
    step = decide(Seen("READY", error=error), PLAN, Memory())
    assert step.why.endswith("waiting. Permission denied (publickey).")
    generic = error.splitlines()[1]
    assert generic in decide(Seen("READY", error=generic), PLAN, Memory()).why


@pytest.mark.parametrize("before", ["", "WARNING: update me {now}\n", "Activated [a]\n\n"])
def test_what_is_printed_before_the_answer_does_not_hide_it(before):
    answer = '{\n  "name": "net",\n  "state": "CREATING"\n}\n'
    commands = Commands(PLAN, Path())
    seen = look(lambda argv, timeout: Result(0, before + answer, ""), commands)
    assert seen.tpu == "CREATING"
    seen = look(lambda argv, timeout: Result(137, "", ""), commands)
    assert (seen.tpu, seen.error) == (UNREACHABLE, "gcloud ended with exit code 137 and no word")
    assert look(lambda argv, timeout: Result(0, "[]", ""), commands).tpu == UNREACHABLE
    seen = look(lambda argv, timeout: Result(0, before, "a warning"), commands)
    assert seen.tpu == UNREACHABLE
    assert f"gcloud's answer is no JSON: {before!r} a warning" in seen.error


def every_seen():
    """Every node's state with every request's and a few machines."""
    machines = [(), (Worker(0),), (worker("running"),), (worker("lost"),), (worker("ended", 0),)]
    for tpu, request in itertools.product([*NODE, NONE, UNREACHABLE], [*REQUEST, UNREACHABLE]):
        for workers in machines if tpu == "READY" else [()]:
            yield Seen(tpu, request, workers=workers)


def test_rules_that_hold_for_every_state():
    for seen, plan in itertools.product(every_seen(), (PLAN, SPOT, POD, KEEP)):
        for memory in (Memory(), Memory(was_ready=True, started=True), Memory(ended=0)):
            step = decide(seen, plan, memory)
            there = (seen.tpu, seen.request) != (NONE, NONE)
            assert not (step.do == "create" and there), "ALREADY_EXISTS"
            running = any(one.train == "running" for one in seen.workers)
            assert not (step.do in ("delete", "deploy", "start") and running and not memory.ended
                        and memory.ended is None), seen  # fmt: skip
            assert step.do != "done" or memory.ended is not None
            if UNREACHABLE in (seen.tpu, seen.request) and not (memory.ended == 0 and plan.keep):
                assert step.do == "wait"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # As they were printed; where a name was, it is another.
        ('There is no more capacity in the zone "europe-west4-a"; you can try in another zone '
         "where Cloud TPU Nodes are offered (see https://cloud.google.com/tpu/docs/regions) "
         "[EID: 0xba393c906974e61]", "capacity"),
        ("Insufficient reserved capacity. Contact customer support to increase your reservation. "
         "[EID: 0x7adf6d58c08b0aa4]", "capacity"),
        ("Insufficient capacity.", "capacity"),
        ('"code": 429, "message": "Quota limit \'TPUV6EPreemptiblePerProjectPerRegionForTPUAPI\' '
         'has been exceeded. Limit: 0 in region us-east5.", "status": "RESOURCE_EXHAUSTED"',
         "quota"),
        ("Quota 'TPUV4sPreemptiblePodPerProjectPerRegionForTPUAPI' exhausted. Limit 20800 in "
         "region us-central2. This may be due to network connectivity issues.", "quota"),
        ("RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Read requests' and limit 'Read "
         "requests per minute' of service 'tpu.googleapis.com'", "network"),
        ("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource "
         "'projects/p/locations/us-west4-a/nodes/net' was not found", "missing"),
        ("ERROR: (gcloud.compute.tpus.tpu-vm.create) ALREADY_EXISTS: Resource "
         "'projects/p/locations/us-west4-a/nodes/net' already exists", "exists"),
        ("PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on "
         "'projects/p/locations/us-west4-a'", "permission"),
        ("Cloud TPU API has not been used in project 1 before or it is disabled.", "permission"),
        ("There was a problem refreshing your current auth tokens: Reauthentication failed.",
         "permission"),
        ("INVALID_ARGUMENT: Cloud TPU received a bad request", "invalid"),
        ("UNAVAILABLE: The service is currently unavailable.", "network"),
        ("gcloud crashed (ConnectionError): ('Connection aborted.', RemoteDisconnected())",
         "network"),
        ("Connection to 10.142.0.57 closed by remote host.\nERROR: "
         "(gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255].",
         "network"),
        ("gcloud timed out after 120 s", "network"),
        # Where the network is away gcloud asks for a login.
        ("There was a problem refreshing your current auth tokens: HTTPSConnectionPool("
         "host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused "
         "by NameResolutionError(\"Failed to resolve 'oauth2.googleapis.com'\"))\nPlease run:\n\n"
         "  $ gcloud auth login\n\nto obtain new credentials.", "network"),
        ("There was a problem refreshing your current auth tokens: Unable to find the server at "
         "oauth2.googleapis.com\nPlease run:\n\n  $ gcloud auth login", "network"),
        # No API says that a TPU is missing.
        ("HTTPError 404: The requested URL was not found on this server.", "other"),
        ("/usr/bin/gcloud: line 192: exec: python3: not found", "other"),
        # A project that nobody named, in older and in newer words.
        ("The required property [project] is not currently set.", "invalid"),
        ("Error parsing [tpu].\nThe [tpu] resource is not properly specified.\nFailed to find "
         "attribute [project].", "invalid"),
        ("Invalid choice: 'queued-resources'.", "invalid"),
        ("You do not currently have this command group installed. Using it requires the "
         "installation of components: [alpha]", "invalid"),
        ("gcloud cannot be started: No such file or directory", "other"),
        ("something else", "other"),
    ],
)  # fmt: skip
def test_what_gcloud_says_is_understood(error, kind):
    assert Result(1, "", error).kind == kind
    assert Result(0, "", error).kind == "ok"


def test_a_pod_answers_when_all_of_its_workers_do():
    line = "keras-resnet-vm worker={} code=ab engine=jax train=ended exit=3 job=cd reboot=no\n"
    text = "SSH: Attempting to connect to worker 0...\n" + line.format(1) + line.format(0)
    assert read_workers(text, 2) == tuple(Worker(n, "ab", "jax", "ended", 3, "cd") for n in (0, 1))
    assert read_workers(text, 3) == ()
    assert read_workers("", 1) == ()
