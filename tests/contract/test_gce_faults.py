"""Google's bad days, against the double alone; the table is in docs/reliability.md."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gce_cluster
import pytest
import yaml
from cloud_cluster import MACHINES, Said, changes, free_port, then
from doubles.gce import Gce
from gce_cluster import (
    COLLECTIONS,
    HEAD,
    REGION,
    TYPE,
    A,
    B,
    Computer,
    Forks,
    Waiting,
    kills,
    looks,
)

from clusterkit.cluster.providers.gce.client import Client
from clusterkit.errors import Busy, ClusterError, UsageError

ROLE = Path(__file__).parents[2] / "docs" / "gce-role.yaml"
#: The permissions that the documented role gives.
ALLOWED = set(yaml.safe_load(ROLE.read_text())["includedPermissions"])
STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"


@pytest.fixture(scope="module", autouse=True)
def _no_hosts() -> Iterator[None]:
    from clusterkit.cluster.lifecycle import _Remote

    with pytest.MonkeyPatch.context() as patch:  # for its end: what is set here is put back
        patch.setattr(_Remote, "_look", _Remote._look)
        patch.setattr(Client, "_client", Client._client)
        gce_cluster.without_hosts()
        yield


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def forks(port: int) -> Iterator[Forks]:
    with Gce(port=port) as double:
        environment = double.environment
    with Forks(environment) as made:
        yield made


@pytest.fixture
def gce(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int) -> Iterator[Gce]:
    """The double. No call is allowed that is not in the documented role."""
    with Gce(port=port) as double:
        double.allowed = ALLOWED
        double.boot_time = double.stop_time = double.end_time = double.image_time = 0.0
        double.operation_time = 0.0
        for name in ("CLOUDSDK_CORE_PROJECT", "CLOUDSDK_COMPUTE_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        yield double
        denied = [one.action for one in double.calls if one.outcome == "forbidden"]
        planned = sum(one.hits for one in double.faults if one.what in ("denied", "unpaid"))
        assert len(denied) == planned, f"not in docs/gce-role.yaml: {denied}"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting().install(monkeypatch)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory, port: int, _no_hosts: None) -> Path:
    """A data folder's prices, of the one server: they are not what most tests are about."""
    folder = tmp_path_factory.mktemp("prices")
    with Gce(port=port) as double, pytest.MonkeyPatch.context() as patch:
        for name, value in double.environment.items():
            patch.setenv(name, value)
        computer = Computer(folder)
        computer.home.prepared()
        computer.plan()
    return computer.home.root / "prices"


@pytest.fixture
def lab(gce: Gce, tmp_path: Path, prices: Path) -> Computer:
    return Computer(tmp_path / "mine").with_prices(prices)


# -- looking ---------------------------------------------------------------------------------------


def alive(gce: Gce) -> list[str]:
    """The ids of machines that run, or will."""
    over = ("STOPPING", "TERMINATED")
    return sorted(one["id"] for one in gce.things("instances") if one["status"] not in over)


def ever(gce: Gce) -> list[str]:
    """The ids of all machines that were ever made, Google's own trials too."""
    return sorted(
        one["targetId"]
        for one in gce.things("operations")
        if one["operationType"] == "insert"
        and "/instances/" in one["targetLink"]
        and "targetId" in one
    )


def nothing(gce: Gce) -> None:
    """Nothing is there, labelled or not."""
    assert gce.left() == []
    for collection in COLLECTIONS:
        assert gce.things(collection) == [], collection


def ids(gce: Gce) -> set[str]:
    """The clusters whose labels anything that is there carries."""
    found = set()
    for collection in COLLECTIONS:
        for one in gce.things(collection):
            labels = one.get("labels") or json.loads(one["description"])
            found.add(labels["clusterkit-id"])
    return found


def launches(gce: Gce) -> list[tuple[str, str]]:
    """What was asked for: the type and its zone, or the region, of each bulkInsert."""
    return [
        (
            one.body["instanceProperties"]["machineType"],
            str(one.params.get("zone") or one.params["region"]),
        )
        for one in gce.calls
        if one.action.endswith("bulkInsert") and one.params
    ]


def whole(gce: Gce, lab: Computer) -> None:
    """The cluster is there, once, and nothing else."""
    found = {one.name: one.state for one in lab.provider().machines()}
    assert found == dict.fromkeys(MACHINES, "running")
    assert len(alive(gce)) == len(gce.things("instances")) == len(MACHINES)
    assert ids(gce) == {lab.id}
    assert not list(lab.folder.glob("launches/*"))
    assert len(gce.things("disks")) == len(MACHINES)
    assert len(gce.things("firewalls")) == 3
    assert len(gce.things("resourcePolicies")) == 1


# -- killed ----------------------------------------------------------------------------------------


def test_a_start_that_was_killed_anywhere_goes_on_or_ends(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    killed: list[str] = []
    tried = 0
    killing = kills(gce, forks, lab)
    for point in killing.points("start", killed):
        tried += 1
        was, id_ = ever(gce), lab.id
        back = killing.keep("point")
        lab.start()
        assert lab.id == id_ or not id_, point
        assert set(was) <= set(alive(gce)), point
        assert len(ever(gce)) == len(MACHINES), point  # no second machine
        whole(gce, lab)
        back()
        lab.stop()  # instead of going on
        nothing(gce)
    assert changes(killed) == {
        "firewalls.insert", "resourcePolicies.insert", "instances.bulkInsert",
    }  # fmt: skip
    assert tried >= 7
    print(f"start: killed at {len(killed)} points, {tried} different")


def test_a_start_that_is_killed_again_and_again_goes_on(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    at = 1
    while kills(gce, forks, lab).at("start", at, "after") is not None:
        at += 1
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES)


def test_a_pause_that_was_killed_anywhere_goes_on(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    lab.start()
    (head,) = [one["id"] for one in gce.things("instances") if one["name"] == "lab-head"]
    killed: list[str] = []
    tried = 0
    for point in kills(gce, forks, lab).points("pause", killed):
        tried += 1
        lab.pause()
        states = {one["id"]: one["status"] for one in gce.things("instances")}
        assert states == {head: "TERMINATED"}, point
        assert len(gce.things("disks")) == 1, point
        lab.start()
        assert head in alive(gce), point
        whole(gce, lab)
    assert changes(killed) == {"instances.stop", "instances.delete"}
    print(f"pause: killed at {len(killed)} points, {tried} different")


def test_a_stop_that_was_killed_anywhere_goes_on(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    lab.start()
    killed: list[str] = []
    tried = 0
    for point in kills(gce, forks, lab).points("stop", killed):
        tried += 1
        lab.stop()
        nothing(gce)
        assert not lab.id, point
    assert changes(killed) == {
        "instances.delete", "resourcePolicies.delete", "firewalls.delete",
    }  # fmt: skip
    print(f"stop: killed at {len(killed)} points, {tried} different")


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_start_that_was_killed_while_its_machines_come_up(
    gce: Gce, forks: Forks, lab: Computer, command: str
) -> None:
    """Their operation goes on without it."""
    gce.boot_time = 0.7
    hold = gce.hold(2, "after", lambda action: action == "instances.bulkInsert")
    process = forks.run(lab, "start")
    assert hold.reached.wait(30)
    process.kill()
    hold.release(drop=True)
    was = alive(gce)
    assert len(was) == len(MACHINES)
    getattr(lab, command)()
    if command == "start":
        assert alive(gce) == was
        whole(gce, lab)
        return
    nothing(gce)


# -- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("", "No credentials for Google were found|could not be used"),
        ("not a key", "credentials could not be used"),
    ],
)
def test_credentials_that_are_missing_or_damaged(
    gce: Gce, lab: Computer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, words: str
) -> None:
    """No call is made without them."""
    monkeypatch.delenv("CLUSTERKIT_GCE_ENDPOINT")
    key = tmp_path / "key.json"
    if file:
        key.write_text(file)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    with pytest.raises(ClusterError, match=f"(?s)({words}).*gcloud auth application-default login"):
        lab.start()
    assert not lab.id
    assert gce.count() == 0
    nothing(gce)


#: What Google says, and what clusterkit says to do about it.
_NOT_LET_IN = [
    ("expired", r"invalid authentication credentials.*or have expired.*gcloud auth"),
    ("disabled", r"has not been used in project.*gcloud services enable compute.googleapis.com"),
    ("unpaid", r"requires billing to be enabled.*billing/linkedaccount\?project=test-project"),
    ("denied", r"Required 'compute\.[A-Za-z.]+' permission.*lack the permission compute\.[A-Za-z]"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "words"), _NOT_LET_IN)
def test_a_project_that_lets_nobody_in(
    gce: Gce, lab: Computer, waiting: Waiting, what: str, words: str
) -> None:
    gce.fault("*", what, times=None)
    with pytest.raises(ClusterError, match=f"(?s){words}"):
        lab.start()
    assert waiting.seconds == 0.0  # nothing is asked again
    assert not lab.id
    nothing(gce)


def test_a_project_that_there_is_not(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.write(project="tset-project")
    with pytest.raises(ClusterError, match=r"projects/tset-project.*gcloud projects list"):
        lab.start()
    assert not lab.id
    nothing(gce)


@pytest.mark.parametrize(("what", "words"), _NOT_LET_IN)
@pytest.mark.parametrize(
    "action",
    ["firewalls.insert", "resourcePolicies.insert", "instances.bulkInsert", "zoneOperations.get"],
)
def test_a_project_that_lets_nobody_in_in_the_middle_of_a_start(
    gce: Gce, lab: Computer, waiting: Waiting, action: str, what: str, words: str
) -> None:
    """From `action` on every call is refused, the clean-up too, until all is well again."""
    then(gce.fault(action, what), lambda: gce.fault("*", what, times=None))
    with pytest.raises(ClusterError, match=f"(?s){words}"):
        lab.start()
    was, id_ = alive(gce), lab.id
    _well_again(gce)
    lab.start()
    assert lab.id == id_
    assert set(was) <= set(alive(gce))
    assert len(ever(gce)) == len(MACHINES)
    whole(gce, lab)
    lab.stop()
    nothing(gce)


def _well_again(gce: Gce) -> None:
    """Its bad days are over; they stay for the count of refusals."""
    for one in gce.faults:
        one.times = one.hits


@pytest.mark.parametrize(("what", "words"), _NOT_LET_IN)
@pytest.mark.parametrize("command", ["pause", "stop"])
def test_a_project_that_lets_nobody_in_in_the_middle_of_the_end(
    gce: Gce, lab: Computer, waiting: Waiting, command: str, what: str, words: str
) -> None:
    lab.start()
    then(gce.fault("instances.delete", what), lambda: gce.fault("*", what, times=None))
    with pytest.raises(ClusterError, match=f"(?s){words}"):
        getattr(lab, command)()
    assert lab.id
    _well_again(gce)
    getattr(lab, command)()
    if command == "pause":
        lab.start()
        whole(gce, lab)
    else:
        nothing(gce)


# -- what there is not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"region": "us-cetnral1", "head": {"types": [HEAD]}, "workers": {"zones": "any"}},
            "us-cetnral1.*us-central1",
        ),
        ({"head": {"types": ["e2-medum"]}}, "e2-medum.*e2-medium"),
        ({"workers": {"types": [TYPE, "c2-standrad-4"]}}, f"c2-standrad-4.*{TYPE}"),
        (
            {"workers": {"types": ["n1-standard-8+nvidia-tesla-t5:1"], "placement": False}},
            "nvidia-tesla-t5.*tesla-t4",
        ),
        (
            {"workers": {"types": ["n1-standard-8+nvidia-tesla-t4:8"], "placement": False}},
            "a machine has 4 of nvidia-tesla-t4 at most",
        ),
        ({"image": "family/ubuntu-2404"}, "ubuntu-2404"),
        (
            {
                "head": {"types": ["e2-medum"]},
                "image": "family/nope",
                "network": "nowhere",
                "workers": {"zones": [f"{REGION}-z"]},
            },
            "e2-medum.*workers.cpu.zones.*image: .*nope.*network: .*nowhere",
        ),
        ({"head": {"types": [HEAD], "zones": [f"{REGION}-z"]}}, f"{REGION}-z.*{A}"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_made(
    gce: Gce, lab: Computer, waiting: Waiting, more: dict[str, Any], words: str
) -> None:
    lab.write(**more)
    with pytest.raises((UsageError, ClusterError), match=f"(?s){words}"):
        lab.start()
    assert not lab.id
    assert not [one.action for one in gce.calls if not looks(one.action)]
    nothing(gce)


@pytest.mark.parametrize("key", ["network", "subnetwork"])
def test_a_network_that_there_is_not(gce: Gce, lab: Computer, waiting: Waiting, key: str) -> None:
    lab.write(**{key: "nowhere"})
    with pytest.raises(UsageError, match=f"{key}s/nowhere' was not found.*list --project"):
        lab.start()
    assert not [one.action for one in gce.calls if not looks(one.action)]
    nothing(gce)


def test_a_zone_without_the_type_is_no_candidate(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    gce.lacks |= {(TYPE, A)}
    lab.start()
    assert launches(gce).count((TYPE, B)) == 1
    assert (TYPE, A) not in launches(gce)
    whole(gce, lab)


def test_no_zone_with_the_type_is_refused_before_anything_is_made(gce: Gce, lab: Computer) -> None:
    gce.lacks |= {(TYPE, A), (TYPE, B)}
    with pytest.raises(UsageError, match=rf"workers\.cpu.*{TYPE} is offered in {REGION}-c"):
        lab.start()
    nothing(gce)


# -- somebody else's -------------------------------------------------------------------------------


def test_a_name_that_another_cluster_has(
    gce: Gce, lab: Computer, tmp_path: Path, waiting: Waiting
) -> None:
    lab.start()
    theirs = alive(gce)
    other = Computer(tmp_path / "other")
    before = gce.count()
    with pytest.raises(ClusterError, match=f"'lab' is taken.*id {lab.id}.*adopt lab"):
        other.start()
    assert [one.action for one in gce.calls[before:] if not looks(one.action)] == []
    assert alive(gce) == theirs
    assert ids(gce) == {lab.id}
    other.stop()  # ends nothing of theirs
    assert alive(gce) == theirs


def test_a_name_that_a_cluster_of_another_region_has(
    gce: Gce, lab: Computer, tmp_path: Path, waiting: Waiting
) -> None:
    """Rules are the whole project's: a name is there once in all regions."""
    lab.start()
    theirs = alive(gce)
    zone = "europe-west1-b"
    other = Computer(
        tmp_path / "other", region="europe-west1", head={"types": [HEAD]},
        workers={"zones": [zone]},
    )  # fmt: skip
    with pytest.raises(ClusterError, match=rf"'lab' is taken in the project .*id {lab.id}"):
        other.start()
    assert alive(gce) == theirs
    assert ids(gce) == {lab.id}
    other.stop()
    whole(gce, lab)


def test_a_rule_of_its_name_that_is_no_clusters(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    with gce.lock:
        rule = {"name": "clusterkit-lab-inside", "allowed": [{"IPProtocol": "tcp"}]}
        gce.world.add("firewalls", "global", {**rule, "description": "by hand"})
    with pytest.raises(ClusterError, match=r"clusterkit-lab-inside is there already.*another name"):
        lab.start()
    assert [one["description"] for one in gce.things("firewalls")] == ["by hand"]
    assert alive(gce) == []


@pytest.mark.parametrize("effect", ["before", "after"])
def test_two_computers_that_start_one_name_at_once(
    gce: Gce,
    forks: Forks,
    lab: Computer,
    tmp_path: Path,
    prices: Path,
    waiting: Waiting,
    effect: Any,
) -> None:
    """The other computer is held at the moment of its claim, while this one starts."""
    other = Computer(tmp_path / "other").with_prices(prices)
    hold = gce.hold(1, effect, lambda action: action == "firewalls.insert")
    process = forks.run(other, "start")
    assert hold.reached.wait(30)
    first = effect == "before"  # whose claim it is
    if first:
        lab.start()
    else:
        with pytest.raises(ClusterError, match=f"'lab' is taken.*id {other.id}"):
            lab.start()
    hold.release()
    assert process.wait() == (1 if first else 0), process.words
    winner, loser = (lab, other) if first else (other, lab)
    if first:
        assert f"id {lab.id}" in process.words
    whole(gce, winner)
    assert len(ever(gce)) == len(MACHINES)
    loser.stop()
    whole(gce, winner)
    winner.stop()
    nothing(gce)


def test_two_starts_on_one_computer(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    hold = gce.hold(1, "before", lambda action: action == "resourcePolicies.insert")
    process = forks.run(lab, "start")
    assert hold.reached.wait(30)
    with pytest.raises(Busy, match=str(process.pid)):
        lab.start()
    with pytest.raises(Busy, match=str(process.pid)):
        lab.stop()
    hold.release()
    assert process.wait() == 0, process.words
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES)


def test_another_project_is_another_account(
    gce: Gce, lab: Computer, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would be found there, and the end would be proved of the wrong project."""
    lab.start()
    gce.project = "other-project"  # which alone can be asked now
    lab.write(project="other-project")
    with pytest.raises(ClusterError, match=r"is in the account test-project.*for other-project"):
        lab.start()
    for command in (lab.pause, lab.stop):
        with pytest.raises(ClusterError, match=r"'projects/test-project' was not found"):
            command()
    assert lab.id
    assert len(alive(gce)) == len(MACHINES)
    gce.project = "test-project"
    lab.write(project=None)
    # gcloud's may be another by now: the cluster's own is asked.
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "other-project")
    whole(gce, lab)
    lab.stop()
    nothing(gce)


# -- Google is slow, or silent ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["throttle", "busy"])
def test_throttling_for_a_minute(gce: Gce, lab: Computer, waiting: Waiting, what: str) -> None:
    fault = gce.fault("*", what, times=None)
    waiting.at(60.0, gce.faults.clear)
    said = lab.start()
    assert waiting.seconds >= 60
    assert fault.hits <= 12  # more and more slowly
    assert len([line for line in said if "Google asks to slow down" in line]) == 1
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES)
    gce.fault("*", what, times=None)
    waiting.at(waiting.seconds + 60, gce.faults.clear)
    said = lab.stop()
    assert len([line for line in said if "Google asks to slow down" in line]) == 1
    nothing(gce)


def test_throttling_without_an_end(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    before = waiting.seconds
    gce.fault("firewalls.delete", "throttle", times=None)
    with pytest.raises(ClusterError, match=r"RATE_LIMIT_EXCEEDED.*goes on"):
        lab.stop()
    assert 170 <= waiting.seconds - before <= 400
    gce.faults.clear()
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("what", ["internal", "unavailable", "cut", "lost", "throttle", "busy"])
def test_launches_are_not_multiplied_by_being_asked_for_again(
    gce: Gce, lab: Computer, waiting: Waiting, what: str
) -> None:
    fault = gce.fault("*.bulkInsert", what, times=3)
    lab.start()
    asked = [one for one in gce.calls if one.action.endswith("bulkInsert")]
    assert fault.hits == 3
    assert len(asked) == 2 + 3
    tokens = {one.params["requestId"] for one in asked if one.params}
    assert len(tokens) == 2  # one for each group
    assert len(ever(gce)) == len(MACHINES)
    whole(gce, lab)


def test_a_launch_whose_answer_is_never_heard(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """It fails after half a minute; what was launched, unheard of, is not left behind."""
    gce.fault("*.bulkInsert", "lost", times=None)
    with pytest.raises(ClusterError, match=r"did not answer instances\.bulk_insert"):
        lab.start()
    assert waiting.seconds >= 30
    assert len(ever(gce)) <= len(MACHINES)
    gce.faults.clear()
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("what", ["internal", "unavailable", "cut", "lost"])
def test_every_call_is_repeated_when_its_end_is_unclear(
    gce: Gce, lab: Computer, waiting: Waiting, what: str
) -> None:
    """Every kind of call of a start and a stop meets it once."""
    met = set()
    for method in _asked_for(gce, lab):
        met.add(method)
        gce.fault(method, what)
    lab.start()
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES)
    lab.stop()
    nothing(gce)
    assert [(one.action, one.hits) for one in gce.faults if one.hits != 1] == []
    assert {"instances.bulkInsert", "firewalls.delete", "instances.delete"} <= met


def _asked_for(gce: Gce, lab: Computer) -> set[str]:
    """The methods of a start and a stop on a good day; nothing is left of it."""
    lab.start()
    lab.stop()
    asked = {one.action for one in gce.calls}
    with gce.lock:
        for scope in list(gce.world.things):
            if scope[0] == "operations":
                del gce.world.things[scope]
    return asked


@pytest.mark.parametrize("lag", [1, 3])
def test_what_was_made_is_shown_late(gce: Gce, lab: Computer, waiting: Waiting, lag: int) -> None:
    gce.lag = lag
    lab.start()
    lab.start()
    assert len(ever(gce)) == len(MACHINES)
    a_minute_later(gce)
    whole(gce, lab)
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("lag", [1, 3])
def test_what_was_made_for_a_start_that_failed_is_removed_though_it_is_not_shown_yet(
    gce: Gce, lab: Computer, waiting: Waiting, lag: int
) -> None:
    gce.lag = lag
    gce.capacity[TYPE, "*", "*"] = 0
    with pytest.raises(ClusterError, match=STOCKOUT):
        lab.start()
    nothing(gce)


def a_minute_later(gce: Gce) -> None:
    """All is shown by then."""
    for kind in gce.world.things.values():
        for one in kind.values():
            one["_hidden"] = 0


def test_a_start_that_was_killed_before_its_launch_was_shown(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    """Its labels do not tell of it yet: what is on disk does."""

    def counts(action: str) -> bool:
        if action == "instances.bulkInsert":
            gce.lag = 12  # longer than a plan looks
        return action == "instances.bulkInsert"

    hold = gce.hold(2, "after", counts)
    process = forks.run(lab, "start")
    assert hold.reached.wait(30)
    process.kill()
    hold.release(drop=True)
    lab.start()
    a_minute_later(gce)
    assert len(ever(gce)) == len(MACHINES)
    whole(gce, lab)


def test_operations_that_are_late(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """Their end is waited for, however often it takes to look."""
    gce.looks = 40
    lab.start()
    whole(gce, lab)
    assert gce.count("*Operations.get") >= 40 * 6
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("action", ["firewalls.insert", "instances.bulkInsert"])
def test_an_operation_that_does_not_end(
    gce: Gce, lab: Computer, waiting: Waiting, action: str
) -> None:
    """An error after ten minutes; the same command goes on."""
    gce.fault(action, "late", seconds=3600.0)
    with pytest.raises(ClusterError, match=r"has not done .* after 600 s.*goes on"):
        lab.start()
    assert waiting.seconds >= 600
    for kind in gce.world.things.values():
        for one in kind.values():
            one.pop("_until", None) and one.update(_until=0.0)
    lab.start()
    whole(gce, lab)
    lab.stop()
    nothing(gce)


# -- no machines -----------------------------------------------------------------------------------


def workers(gce: Gce) -> list[tuple[str, str]]:
    """What was asked for, without the head."""
    return [one for one in launches(gce) if one[0] != HEAD]


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_the_next_candidate_is_asked_at_once_in_the_order_of_the_plan(
    gce: Gce, lab: Computer, waiting: Waiting, market: str
) -> None:
    other = "c2-standard-8"
    lab.write({"types": [TYPE, other], "market": market})
    gce.capacity[TYPE, "*", market] = 0
    gce.capacity[other, A, market] = 1
    said = lab.start()
    ways = [(TYPE, A), (TYPE, B), (other, A), (other, B)]
    assert [(row[2], zone) for row in lab.plans[0].table[2:4] for zone in row[4].split(", ")] == [
        *ways
    ]
    assert workers(gce) == ways
    told = [line for line in said if STOCKOUT in line]
    assert [line.partition(": Z")[0] for line in told] == [
        f"cpu: {type_} {market} in {zone}" for type_, zone in ways[:3]
    ]
    assert waiting.seconds < 20  # operations alone are waited for
    whole(gce, lab)


def test_each_refusal_leads_to_the_next_candidate(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    """Every candidate is refused for another reason, but for the last one."""
    codes = [
        "ZONE_RESOURCE_POOL_EXHAUSTED", STOCKOUT, "RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED",
        "IP_SPACE_EXHAUSTED", "UNSUPPORTED_OPERATION",
    ]  # fmt: skip
    types = [TYPE, "c2-standard-8", "c2-standard-16", "c2-standard-30"]
    lab.start()
    before = len(workers(gce))
    lab.write({"types": types, "placement": False, "count": 3})
    for number, code in enumerate(codes):
        gce.fault("*.bulkInsert", code, after=number)
    said = lab.start()
    ways = [(type_, zone) for type_ in types for zone in (A, B)]
    assert workers(gce)[before:] == ways[: len(codes) + 1]  # each once, in the order of the plan
    told = [line for line in said if line.startswith("cpu: c2") and " spot in " in line]
    for code, (type_, zone), line in zip(codes, ways, told, strict=False):
        assert line.startswith(f"cpu: {type_} spot in {zone}: {code}: "), line
        assert "VM_MIN_COUNT_NOT_REACHED" in line  # which alone would tell nothing
    assert len(alive(gce)) == len(MACHINES) + 1


def test_a_type_that_a_zone_turns_out_not_to_have(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    """The list of types said that it had."""
    lab.start()
    before = len(workers(gce))
    lab.write({"placement": False, "count": 3})
    words = (
        f"Invalid value for field 'resource.instanceProperties.machineType': '{TYPE}'. Machine "
        f"type with name '{TYPE}' does not exist in zone '{A}'."
    )
    gce.fault("instances.bulkInsert", "invalid", words=words)
    assert any(words in line for line in lab.start())
    assert workers(gce)[before:] == [(TYPE, B)]  # the other was refused before it was read
    assert len(alive(gce)) == len(MACHINES) + 1


def test_a_quota_that_is_too_small_is_named_with_its_limit_and_page(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    lab.write({"market": "on-demand"})
    gce.quotas[REGION, "C2_CPUS"] = 5
    with pytest.raises(ClusterError) as caught:
        lab.start()
    said = str(caught.value)
    assert "QUOTA_EXCEEDED: Quota 'C2_CPUS' exceeded" in said  # Google's own words
    assert f"The quota C2-CPUS-per-project-region is 5 in {REGION}, which is too small" in said
    assert "https://console.cloud.google.com/iam-admin/quotas?project=test-project" in said
    assert any("TOO SMALL" in note for note in lab.plans[0].notes)  # before any money
    nothing(gce)


def test_a_quota_of_gpus_of_all_regions(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.write({"types": ["n1-standard-8+nvidia-tesla-t4:1"], "placement": False, "gpus": 1})
    gce.quotas["", "GPUS_ALL_REGIONS"] = 0
    with pytest.raises(ClusterError) as caught:
        lab.start()
    said = str(caught.value)
    assert "is 0 in all regions, which is too small" in said
    assert "A free trial account has no GPUs" in said
    nothing(gce)


def test_too_many_rules_in_the_project(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    gce.quotas["", "FIREWALLS"] = 2
    with pytest.raises(ClusterError, match="quotaExceeded: Quota 'FIREWALLS' exceeded") as caught:
        lab.start()
    assert "iam-admin/quotas" in str(caught.value)
    assert "permission" not in str(caught.value)
    nothing(gce)


@pytest.mark.parametrize("market", ["spot", "on-demand", "spot-then-on-demand"])
def test_where_nothing_can_be_had_nothing_is_left(
    gce: Gce, lab: Computer, waiting: Waiting, market: str
) -> None:
    """The head did start; it is ended, and all that was made for it."""
    lab.write({"market": market})
    gce.capacity[TYPE, "*", "*"] = 1  # one of two that are needed
    with pytest.raises(ClusterError, match="2 of 2 needed, 0 to be had") as caught:
        lab.start()
    lines = str(caught.value).splitlines()
    markets = ["spot", "on-demand"] if market == "spot-then-on-demand" else [market]
    asked = [f"{TYPE} {one} in {zone}" for one in markets for zone in (A, B)]
    told = [line.strip() for line in lines if line.startswith(f"    {TYPE}")]
    assert [line.partition(":")[0] for line in told] == asked  # the order of the plan
    for line in told:
        assert STOCKOUT in line
        assert "VM_MIN_COUNT_NOT_REACHED" in line
    assert len(workers(gce)) == len(asked)
    nothing(gce)
    gce.capacity.clear()
    lab.start()
    whole(gce, lab)


@pytest.mark.parametrize(("least", "free", "had"), [(None, 3, 0), (3, 2, 0), (3, 3, 3), (1, 9, 4)])
def test_all_or_nothing_unless_min_says_otherwise(
    gce: Gce, lab: Computer, waiting: Waiting, least: int | None, free: int, had: int
) -> None:
    lab.write({"count": 4, "min": least, "zones": [A], "placement": False})
    gce.capacity[TYPE, A, "spot"] = free
    if not had:
        with pytest.raises(ClusterError, match="needed"):
            lab.start()
        nothing(gce)
        return
    lab.start()
    some = [one for one in lab.provider().machines() if one.group == "cpu"]
    assert len(some) == had
    assert len(alive(gce)) == len(gce.things("disks")) == had + 1
    gce.capacity.clear()
    lab.start()
    assert len(alive(gce)) == 4 + 1
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("placement", [True, False])
def test_part_of_a_group_here_and_the_rest_there(
    gce: Gce, lab: Computer, waiting: Waiting, placement: bool
) -> None:
    """Machines that belong together are of one zone."""
    lab.write({"count": 4, "min": 2, "placement": placement})
    gce.capacity[TYPE, A, "spot"] = 3
    lab.start()
    zones = Counter(
        one["zone"].rpartition("/")[2]
        for one in gce.things("instances")
        if one["name"] != "lab-head"
    )
    assert zones == ({A: 3} if placement else {A: 3, B: 1})
    names = {one.name for one in lab.provider().machines()}
    assert len(names) == sum(zones.values()) + 1


def test_anywhere_in_the_region_where_the_near_zone_has_none(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    """First near the head; then Google chooses one zone for all of a group."""
    lab.write({"zones": "any"})
    gce.capacity[TYPE, A, "*"] = 1
    gce.capacity[TYPE, B, "*"] = 1
    said = lab.start()
    assert workers(gce) == [(TYPE, A), (TYPE, REGION)]
    assert any(f"cpu: {TYPE} spot in {A}: {STOCKOUT}" in line for line in said)
    (zone,) = {
        one["zone"].rpartition("/")[2]
        for one in gce.things("instances")
        if one["name"] != "lab-head"
    }
    assert zone not in (A, B)
    whole(gce, lab)
    lab.stop()
    nothing(gce)


def test_nowhere_in_the_region(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.write({"zones": "any"})
    gce.capacity[TYPE, "*", "*"] = 1
    with pytest.raises(ClusterError, match="2 of 2 needed, 0 to be had") as caught:
        lab.start()
    told = [one.strip() for one in str(caught.value).splitlines() if one.startswith(f"    {TYPE}")]
    assert [one.partition(":")[0] for one in told] == [
        f"{TYPE} spot in {A}",
        f"{TYPE} spot in {REGION}",
    ]
    for letter in "abcf":  # what Google said of each zone
        assert f"zones/{REGION}-{letter}" in told[1]
    nothing(gce)


@pytest.mark.parametrize("zones", [[A, B], "any"])
def test_an_endpoint_without_bulk_insert(
    gce: Gce, lab: Computer, waiting: Waiting, zones: Any
) -> None:
    """Machine by machine, and all or nothing all the same."""
    gce.fault("*.bulkInsert", "absent", times=None)
    lab.write({"zones": zones})
    gce.capacity[TYPE, A, "*"] = 1
    lab.start()
    assert {
        one["zone"].rpartition("/")[2]
        for one in gce.things("instances")
        if one["name"] != "lab-head"
    } == {B}
    whole(gce, lab)
    lab.start()
    whole(gce, lab)
    lab.stop()
    nothing(gce)
    gce.capacity[TYPE, "*", "*"] = 1
    with pytest.raises(ClusterError, match=f"(?s)2 of 2 needed, 0 to be had.*{STOCKOUT}"):
        lab.start()
    nothing(gce)


def test_a_start_without_bulk_insert_that_is_killed_again_and_again_goes_on(
    gce: Gce, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    gce.fault("*.bulkInsert", "absent", times=None)
    at = 1
    while kills(gce, forks, lab).at("start", at, "after") is not None:
        at += 1
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES)


def test_failures_of_a_cluster_that_works_leave_it_alone(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    lab.start()
    was = alive(gce)
    lab.write({"count": 4})
    gce.capacity[TYPE, "*", "spot"] = 1
    with pytest.raises(ClusterError, match="needed"):
        lab.start()
    assert alive(gce) == was
    lab.write({"count": 2})
    whole(gce, lab)


# -- machines that die -----------------------------------------------------------------------------


def test_a_machine_that_is_taken_while_the_cluster_starts(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    """It counts as a refusal: the next candidate."""
    from doubles.gce import instances

    boot = gce.boot

    def taken(world: Any, one: Any, type_: str, done: Any) -> Any:
        def began() -> None:
            done()
            instances.take_away(world, one)

        fails = one["name"] != "lab-head" and one["_scope"] == f"zones/{A}"
        return boot(world, one, type_, began if fails else done)

    gce.boot = taken  # type: ignore[method-assign]
    said = lab.start()
    assert workers(gce) == [(TYPE, A), (TYPE, B)]
    assert any(f"cpu: {TYPE} spot in {A}: " in line for line in said)
    assert any("preempted" in line for line in said)
    whole(gce, lab)
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("again", [True, False])
def test_a_spot_machine_that_google_takes(
    gce: Gce, lab: Computer, waiting: Waiting, again: bool
) -> None:
    lab.start()
    kept = set(alive(gce))
    gce.take_away("lab-cpu-2")
    kept &= set(alive(gce))
    found = {one.name: one for one in lab.provider().machines()}
    assert found["lab-cpu-2"].state == "dead"
    words = "Instance was preempted."
    assert found["lab-cpu-2"].why == words
    assert lab.provider().symptoms() == f"lab-cpu-2: {words}"
    (gone,) = [one for one in lab.provider().fleet.instances() if not one.alive]
    assert gone.taken
    assert [machine.name for machine in lab.plan().missing] == ["lab-cpu-2"]
    if again:
        lab.start()
        assert kept < set(alive(gce))
        assert len(ever(gce)) == len(MACHINES) + 1
        whole(gce, lab)
    lab.stop()
    nothing(gce)


def test_a_spot_machine_that_is_still_going_away(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """Its name is free only when it has gone."""
    lab.start()
    gce.end_time = 3600.0
    gce.take_away("lab-cpu-2")
    assert [machine.name for machine in lab.plan().missing] == ["lab-cpu-2"]
    waiting.at(waiting.seconds + 20, lambda: _gone(gce, "lab-cpu-2"))
    gce.end_time = 0.0
    lab.start()
    whole(gce, lab)
    assert len(ever(gce)) == len(MACHINES) + 1


def _gone(gce: Gce, name: str) -> None:
    from doubles.gce import instances

    with gce.lock:
        (one,) = [one for one in gce.world.all("instances") if one["name"] == name]
        instances.forget(gce.world, one)


@pytest.mark.parametrize("name", ["lab-cpu-2", "lab-head"])
def test_a_machine_that_switches_itself_off(
    gce: Gce, lab: Computer, waiting: Waiting, name: str
) -> None:
    """Google keeps it, and its disk: `start` switches it on."""
    lab.start()
    was = alive(gce)
    gce.shut_itself_down(name)
    found = {one.name: one.state for one in lab.provider().machines()}
    assert found[name] == "stopped"
    said = lab.start()
    assert f"switched on: {name}" in said
    assert alive(gce) == was
    whole(gce, lab)


def test_a_machine_that_somebody_deleted(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    _gone(gce, "lab-cpu-1")
    assert [machine.name for machine in lab.plan().missing] == ["lab-cpu-1"]
    lab.start()
    whole(gce, lab)


def test_a_machine_that_ends_between_launch_and_set_up(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    """`create` saw it run; when the machines are to be reached it has ended."""
    from clusterkit.cluster.cloud.provider import CloudProvider

    create = CloudProvider.create

    def dies(provider: CloudProvider, *said: Any) -> None:
        create(provider, *said)
        gce.take_away("lab-cpu-1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudProvider, "create", dies)
        with pytest.raises(ClusterError, match="lab-cpu-1 did not start, or ended again") as caught:
            lab.start()
    assert "Instance was preempted." in str(caught.value)
    lab.start()
    whole(gce, lab)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["resourceInUseByAnotherResource", "resourceNotReady"])
@pytest.mark.parametrize("action", ["firewalls.delete", "resourcePolicies.delete"])
def test_what_refuses_deletion_for_a_while(
    gce: Gce, lab: Computer, waiting: Waiting, action: str, reason: str
) -> None:
    lab.start()
    before = waiting.seconds
    fault = gce.refuse(action, times=6, reason=reason)
    said = lab.stop()
    assert fault.hits == 6
    assert any(reason in line for line in said)  # why it takes so long
    assert waiting.seconds - before > 2
    nothing(gce)


def test_a_machine_that_is_not_ready_to_end(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    gce.fault("instances.delete", "resourceNotReady", times=4)
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("action", ["firewalls.delete", "instances.delete"])
def test_what_refuses_deletion_for_ever(
    gce: Gce, lab: Computer, waiting: Waiting, action: str
) -> None:
    lab.start()
    id_ = lab.id
    gce.refuse(action, times=None, reason="resourceNotReady")
    before = waiting.seconds
    with pytest.raises(ClusterError, match="resourceNotReady"):
        lab.stop()
    assert waiting.seconds - before >= (600 if "firewalls" in action else 170)
    assert (alive(gce) == []) == ("firewalls" in action)
    assert lab.id == id_
    gce.faults.clear()
    lab.stop()
    nothing(gce)


def test_a_failed_start_whose_clean_up_fails_too(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    gce.capacity[TYPE, "*", "*"] = 0
    gce.fault("firewalls.delete", "denied", times=None)
    with pytest.raises(ClusterError, match="could not be removed") as caught:
        lab.start()
    assert STOCKOUT in str(caught.value)
    assert "'compute.firewalls.delete' permission" in str(caught.value)
    assert alive(gce) == []
    gce.faults[-1].times = gce.faults[-1].hits
    lab.stop()
    nothing(gce)


@pytest.mark.parametrize("how", ["capacity", "quota"])
def test_no_room_to_switch_on_again(gce: Gce, lab: Computer, waiting: Waiting, how: str) -> None:
    lab.start()
    lab.pause()
    if how == "capacity":
        gce.capacity[HEAD, "*", "on-demand"] = 0
    else:
        gce.quotas[REGION, "CPUS"] = 1
    code = STOCKOUT if how == "capacity" else r"QUOTA_EXCEEDED.*CPUS.* is 1 in us-central1"
    with pytest.raises(ClusterError, match=rf"(?s){code}.*disks are kept"):
        lab.start()
    assert len(gce.things("disks")) == 1
    gce.capacity.clear()
    gce.quotas.clear()
    lab.start()
    whole(gce, lab)


def test_what_somebody_else_took_away(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """Rules and a policy that are gone are made again, and are no error at the end."""
    lab.start()
    with gce.lock:
        for collection in ("firewalls", "resourcePolicies"):
            for one in gce.world.all(collection):
                if one["name"] != "clusterkit-lab-door":
                    gce.world.remove(one)
    gce.take_away("lab-cpu-1")
    lab.start()
    whole(gce, lab)
    with gce.lock:
        for one in gce.world.all("firewalls"):
            gce.world.remove(one)
    assert lab.plan()
    lab.stop()
    nothing(gce)


def test_labels_that_somebody_removed(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """The machine cannot be told from others: not made twice, and not forgotten at the end."""
    lab.start()
    was = alive(gce)
    with gce.lock:
        (one,) = [one for one in gce.world.all("instances") if one["name"] == "lab-cpu-2"]
        del one["labels"]
    with pytest.raises(ClusterError, match=r"lab-cpu-2' already exists.*label"):
        lab.start()
    assert alive(gce) == was
    lab.stop()
    nothing(gce)


# -- what is asked of Google -----------------------------------------------------------------------


def test_calls_do_not_grow_with_machines(
    gce: Gce, tmp_path: Path, prices: Path, waiting: Waiting
) -> None:
    """Those that end machines or switch them on and off do, for Google has one for each."""
    told: dict[int, dict[str, Counter[str]]] = {}
    for count in (2, 32):
        mine = Computer(tmp_path / str(count), workers={"count": count}).with_prices(prices)
        for command in ("plan", "start", "start again", "pause", "start after pause", "stop"):
            before = len(gce.calls)
            getattr(mine, command.partition(" ")[0])()
            made = Counter(one.action for one in gce.calls[before:])
            told.setdefault(count, {})[command] = made
        nothing(gce)
    for command, few in told[2].items():
        many = told[32][command]
        print(f"{command}: {few.total()} calls for 2 workers, {many.total()} for 32")
        for action in few | many:
            if action in ("instances.delete", "zoneOperations.get"):
                continue
            assert few[action] == many[action], (command, action)
    assert (
        told[2]["start"]["instances.bulkInsert"] == told[32]["start"]["instances.bulkInsert"] == 2
    )
    assert told[32]["stop"]["instances.delete"] == 33
    assert told[32]["start"] == told[2]["start"]
    assert told[2]["start again"].total() <= 10


def test_what_is_asked_for_is_labelled_and_closed(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    lab.start()
    labels = {f"clusterkit-{one}" for one in ("cluster", "id", "role", "owner", "created")}
    for one in (*gce.things("instances"), *gce.things("disks")):
        assert labels <= one["labels"].keys(), one["name"]
    for one in (*gce.things("firewalls"), *gce.things("resourcePolicies")):
        assert labels <= json.loads(one["description"]).keys(), one["name"]
    assert not gce.count("*.setLabels")
    for one in gce.things("instances"):
        said = {item["key"]: item["value"] for item in one["metadata"]["items"]}
        assert said["block-project-ssh-keys"] == "TRUE"
        assert said["enable-oslogin"] == "FALSE"
        assert "serviceAccounts" not in one  # no right to anything of the project's
        assert [disk["autoDelete"] for disk in one["disks"]] == [True]
        assert "accessConfigs" not in one["networkInterfaces"][0]
    rules = {one["name"]: one for one in gce.things("firewalls")}
    assert rules["clusterkit-lab-door"]["sourceRanges"] == ["10.9.8.7/32"]
    assert {tag for one in rules.values() for tag in one["targetTags"]} == {f"clusterkit-{lab.id}"}
    shut = rules["clusterkit-lab-closed"]
    assert shut["denied"] == [{"IPProtocol": "all"}]
    assert all(one["priority"] < shut["priority"] for one in rules.values() if one is not shut)
    whole(gce, lab)


def test_the_door_follows_its_user(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    lab.write(own_address="10.9.8.8")
    gce.fault("firewalls.patch", "lost")
    assert "10.9.8.7/32" in lab.provider().open_door()
    (door,) = [one for one in gce.things("firewalls") if one["name"] == "clusterkit-lab-door"]
    assert door["sourceRanges"] == ["10.9.8.8/32"]
    gce.fault("firewalls.patch", "denied", times=None)
    lab.write(own_address="10.9.8.9")
    with pytest.raises(ClusterError, match=r"'compute\.firewalls\.update' permission"):
        lab.provider().open_door()


def test_user_data_hold_no_secret_that_lasts(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    """The first host key alone, which is replaced when a machine is reached first."""
    lab.start()
    identity = lab.provider().identity
    kept = [identity.key.read_text(), identity.munge_key.read_bytes().hex()]
    kept += [
        base64.b64encode(identity.munge_key.read_bytes()).decode(),
        "GOOGLE_",
        "private_key_id",
    ]
    for one in gce.things("instances"):
        (text,) = [item["value"] for item in one["metadata"]["items"] if item["key"] == "user-data"]
        assert text.startswith("#cloud-config\n")
        assert text.count("PRIVATE KEY") == 2  # the beginning and the end of one key
        for secret in kept:
            assert secret not in text
            assert secret.splitlines()[min(2, len(secret.splitlines()) - 1)] not in text


def test_the_whole_world_is_let_in_only_when_it_is_asked_for(
    gce: Gce, lab: Computer, waiting: Waiting
) -> None:
    lab.write(allow=["0.0.0.0/0"])
    lab.start()
    assert any("the whole world, as you asked" in note for note in lab.plans[0].notes)


def test_the_role_is_enough_for_all_that_can_happen(
    gce: Gce, lab: Computer, tmp_path: Path, waiting: Waiting
) -> None:
    """A life under the documented role; that nothing in it is idle, a test of units proves."""
    from clusterkit.cluster.cloud import adopting

    lab.write(saved_image="auto")
    lab.start()
    lab.pause()
    lab.start()
    cloud = lab.provider().cloud
    assert all(one.verdict != "bad" for one in cloud.examine())
    assert REGION in cloud.regions()
    (head,) = [one for one in cloud.instances(lab.id) if one.alive and one.market != "spot"]
    cloud.stop([head])
    cloud.save_image(head, "clusterkit-lab-0123", {**lab.provider().identity.labels("image"),
                                                   "clusterkit-digest": "0123"})  # fmt: skip
    (image,) = cloud.images()
    cloud.remove_image(image)
    lab.start()
    # Taken over by another computer.
    other = Computer(tmp_path / "other")
    adopting.take(other.home, other.name, adopting.look(other.home, other.name))
    adopting.bring_key(other.home, other.name, Said())
    other.start()
    assert other.id == lab.id
    whole(gce, other)
    _litter(gce, lab.id)
    other.stop()
    nothing(gce)
    assert gce.permissions() - {""} <= ALLOWED


def _litter(gce: Gce, id_: str) -> None:
    """Things with a cluster's label that belong to no machine, left by whatever went wrong."""
    from doubles.gce.world import stamp

    with gce.lock:
        labels = {"clusterkit-id": id_, "clusterkit-cluster": "lab"}
        disk = {"name": "left", "sizeGb": "8", "users": [], "status": "READY", "labels": labels}
        gce.world.add("disks", f"zones/{B}", {**disk, "lastDetachTimestamp": stamp()})
        address = {"addressType": "EXTERNAL", "status": "RESERVED", "address": "203.0.113.9"}
        gce.world.add(
            "addresses", f"regions/{REGION}", {**address, "name": "left", "labels": labels}
        )


# -- the commands ----------------------------------------------------------------------------------


def test_the_commands_of_a_whole_life(gce: Gce, lab: Computer, waiting: Waiting) -> None:
    shown = lab.clusterkit("start", "lab", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert TYPE in shown.stdout
    assert not lab.folder.exists()
    nothing(gce)
    lab.start()
    ended = lab.clusterkit("stop", "lab", "--discard", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "firewall rules" in ended.stdout  # the proof
    nothing(gce)


def test_the_commands_say_what_is_wrong_in_a_line(gce: Gce, lab: Computer) -> None:
    gce.fault("*", "disabled", times=None)
    result = lab.clusterkit("start", "lab", "--yes")
    assert result.returncode == 1
    assert "gcloud services enable compute.googleapis.com" in result.stderr
    assert "Traceback" not in result.stderr
