"""EC2's bad days, against the double alone; the table is in docs/reliability.md."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ec2_cluster
import pytest
from cloud_cluster import MACHINES, Said, changes, free_port, then
from doubles.aws import Aws, Fault
from ec2_cluster import Computer, Forks, Waiting, kills, looks

from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.errors import Busy, ClusterError, UsageError

POLICY = json.loads((Path(__file__).parents[2] / "docs" / "aws-policy.json").read_text())
#: The permissions that the documented policy gives.
ALLOWED = {
    action
    for statement in POLICY["Statement"]
    for action in (
        [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
    )
}


@pytest.fixture(scope="module", autouse=True)
def _no_hosts() -> Iterator[None]:
    from botocore import hooks, session

    from clusterkit.cluster.lifecycle import _Remote

    with pytest.MonkeyPatch.context() as patch:  # for its end: what is set here is put back
        patch.setattr(_Remote, "_look", _Remote._look)
        patch.setattr(session, "create_loader", session.create_loader)
        patch.setattr(hooks, "accepts_kwargs", hooks.accepts_kwargs)
        patch.setattr(Client, "_client", Client._client)
        ec2_cluster.without_hosts()
        yield


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def forks(port: int) -> Iterator[Forks]:
    with Aws(port=port) as double:
        environment = double.environment
    with Forks(environment) as made:
        yield made


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int) -> Iterator[Aws]:
    """The double. No call is allowed that is not in the documented policy."""
    with Aws(port=port) as double:
        double.allowed = ALLOWED
        double.boot_time = double.stop_time = double.end_time = double.image_time = 0.0
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        yield double
        denied = [one.name for one in double.calls if one.outcome == "UnauthorizedOperation"]
        planned = sum(one.hits for one in double.faults if one.what == "denied")
        assert len(denied) == planned, f"not in docs/aws-policy.json: {denied}"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting().install(monkeypatch)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory, port: int, _no_hosts: None) -> Path:
    """A data folder's prices, of the one server: they are not what most tests are about."""
    folder = tmp_path_factory.mktemp("prices")
    with Aws(port=port) as double, pytest.MonkeyPatch.context() as patch:
        for name, value in double.environment.items():
            patch.setenv(name, value)
        computer = Computer(folder)
        computer.home.prepared()
        computer.plan()
    return computer.home.root / "prices"


@pytest.fixture
def lab(aws: Aws, tmp_path: Path, prices: Path) -> Computer:
    return Computer(tmp_path / "mine").with_prices(prices)


# -- looking ---------------------------------------------------------------------------------------


def alive(aws: Aws) -> list[str]:
    """The ids of instances that run, or will."""
    over = ("shutting-down", "terminated")
    return sorted(
        one["InstanceId"] for one in aws.things("instance") if one["State"]["Name"] not in over
    )


def ever(aws: Aws) -> list[str]:
    """The ids of all instances that were ever launched."""
    return sorted(one["InstanceId"] for one in aws.things("instance"))


def nothing(aws: Aws) -> None:
    """Nothing is there, tagged or not, that was not there before."""
    assert aws.left() == []
    assert alive(aws) == []
    for kind in ("volume", "network-interface", "key-pair", "placement-group", "snapshot", "image"):
        assert aws.things(kind) == [], kind
    assert {one["GroupName"] for one in aws.things("security-group")} <= {"default"}


def ids(aws: Aws) -> set[str]:
    """The clusters whose labels anything that is there carries."""
    kinds = ("instance", "volume", "key-pair", "security-group", "placement-group")
    return {
        tag["Value"]
        for kind in kinds
        for one in aws.things(kind)
        if one.get("State") != {"Code": 48, "Name": "terminated"}
        for tag in one["Tags"]
        if tag["Key"] == "clusterkit-id"
    }


def launches(aws: Aws) -> list[tuple[str, str]]:
    """What was asked for: the type and its zone, of each RunInstances."""
    zones = {one["SubnetId"]: one["AvailabilityZone"] for one in aws.things("subnet")}
    return [
        (one.params["InstanceType"], zones[one.params["SubnetId"]])
        for one in aws.calls
        if one.action == "RunInstances" and one.params
    ]


def whole(aws: Aws, lab: Computer) -> None:
    """The cluster is there, once, and nothing else."""
    found = {one.name: one.state for one in lab.provider().machines()}
    assert found == dict.fromkeys(MACHINES, "running")
    assert len(alive(aws)) == len(MACHINES)
    assert ids(aws) == {lab.id}
    assert not list(lab.folder.glob("launches/*"))
    assert len(aws.things("key-pair")) == len(aws.things("placement-group")) == 1
    assert len(aws.things("security-group")) == 2  # with the account's own


# -- killed ----------------------------------------------------------------------------------------


def test_a_start_that_was_killed_anywhere_goes_on_or_ends(
    aws: Aws, forks: Forks, lab: Computer
) -> None:
    killed: list[str] = []
    tried = 0
    killing = kills(aws, forks, lab)
    for point in killing.points("start", killed):
        tried += 1
        was, id_ = ever(aws), lab.id
        back = killing.keep("point")
        lab.start()
        assert lab.id == id_ or not id_, point
        assert set(was) <= set(alive(aws)), point
        assert len(ever(aws)) == len(MACHINES), point  # no second instance
        whole(aws, lab)
        back()
        lab.stop()  # instead of going on
        nothing(aws)
    assert changes(killed) == {
        "ec2:ImportKeyPair", "ec2:CreateSecurityGroup", "ec2:CreatePlacementGroup",
        "ec2:AuthorizeSecurityGroupIngress", "ec2:RunInstances",
    }  # fmt: skip
    assert tried >= 8
    print(f"start: killed at {len(killed)} points, {tried} different")


def test_a_start_that_is_killed_again_and_again_goes_on(
    aws: Aws, forks: Forks, lab: Computer
) -> None:
    at = 1
    while kills(aws, forks, lab).at("start", at, "after") is not None:
        at += 1
    whole(aws, lab)
    assert len(ever(aws)) == len(MACHINES)


def test_a_pause_that_was_killed_anywhere_goes_on(aws: Aws, forks: Forks, lab: Computer) -> None:
    lab.start()
    (head,) = [
        one["InstanceId"] for one in aws.things("instance") if "InstanceLifecycle" not in one
    ]
    killed: list[str] = []
    for point in kills(aws, forks, lab).points("pause", killed):
        lab.pause()
        states = {one["InstanceId"]: one["State"]["Name"] for one in aws.things("instance")}
        assert states.pop(head) == "stopped", point
        assert set(states.values()) == {"terminated"}, point
        assert len(aws.things("volume")) == 1, point
        lab.start()
        assert head in alive(aws), point
        whole(aws, lab)
    assert changes(killed) == {"ec2:StopInstances", "ec2:TerminateInstances"}
    print(f"pause: killed at {len(killed)} points")


def test_a_stop_that_was_killed_anywhere_goes_on(aws: Aws, forks: Forks, lab: Computer) -> None:
    lab.start()
    killed: list[str] = []
    for point in kills(aws, forks, lab).points("stop", killed):
        lab.stop()
        nothing(aws)
        assert not lab.id, point
    assert changes(killed) == {
        "ec2:TerminateInstances", "ec2:DeletePlacementGroup", "ec2:DeleteSecurityGroup",
        "ec2:DeleteKeyPair",
    }  # fmt: skip
    print(f"stop: killed at {len(killed)} points")


# -- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        ("", "", "no credentials for AWS were found"),
        ("nobody", "testing", "does not accept these credentials"),
        ("testing", "wrong", "does not accept these credentials"),
    ],
)
def test_credentials_that_are_missing_or_wrong(
    aws: Aws, lab: Computer, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, words: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(ClusterError, match=words):
        lab.start()
    assert not lab.id
    nothing(aws)


@pytest.mark.parametrize(
    "action", ["ImportKeyPair", "AuthorizeSecurityGroupIngress", "RunInstances", "waiting"]
)
def test_credentials_that_expire_in_the_middle_and_are_renewed(
    aws: Aws, lab: Computer, waiting: Waiting, action: str
) -> None:
    """From `action` on every call is refused, the clean-up too, until they are renewed."""
    if action == "waiting":
        aws.boot_time = 3600.0
        waiting.at(2.0, lambda: aws.fault("*", "expired", times=None))
    else:
        made = aws.fault(action, "expired")
        then(made, lambda: aws.fault("*", "expired", times=None))
    with pytest.raises(ClusterError, match=r"credentials have expired.*goes on") as caught:
        lab.start()
    assert "RequestExpired" in str(caught.value)  # AWS's own words
    was, id_ = alive(aws), lab.id
    aws.faults.clear()
    aws.boot_time = 0.0
    for one in aws.world().things["instance"].values():
        if "_due" in one:
            one["_due"] = (0.0, one["_due"][1])
    lab.start()
    assert lab.id == id_
    assert set(was) <= set(alive(aws))
    assert len(ever(aws)) == len(MACHINES)
    whole(aws, lab)
    lab.stop()
    nothing(aws)


# -- what there is not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"region": "us-esat-1", "head": {"types": ["t3.medium"]}, "workers": {"zones": "any"}},
            "us-esat-1 is no region.*near are: .*us-east-1",
        ),
        ({"head": {"types": ["t3.medum"]}}, "t3.medum.*t3.medium"),
        ({"workers": {"types": ["c5.large", "c5.lrage"]}}, "c5.lrage.*c5.large"),
        ({"image": "ami-00000000000000001"}, "ami-00000000000000001"),
        ({"head": {"types": ["t3.medium"], "zones": ["us-east-1z"]}}, "us-east-1z.*us-east-1a"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_made(
    aws: Aws, lab: Computer, waiting: Waiting, more: dict[str, Any], words: str
) -> None:
    lab.write(**more)
    with pytest.raises((UsageError, ClusterError), match=f"(?s){words}"):
        lab.start()
    assert not lab.id
    assert not [one.name for one in aws.calls if not looks(one.action)]
    nothing(aws)


def test_a_zone_without_the_type_is_no_candidate(aws: Aws, lab: Computer) -> None:
    aws.lacks |= {("c5.large", "us-east-1a")}
    lab.start()
    assert launches(aws).count(("c5.large", "us-east-1b")) == 1
    assert ("c5.large", "us-east-1a") not in launches(aws)
    whole(aws, lab)


def test_no_zone_with_the_type_is_refused_before_anything_is_made(aws: Aws, lab: Computer) -> None:
    aws.lacks |= {("c5.large", zone) for zone in ("us-east-1a", "us-east-1b")}
    with pytest.raises(UsageError, match=r"workers\.cpu.*c5\.large is offered in us-east-1"):
        lab.start()
    nothing(aws)


# -- somebody else's -------------------------------------------------------------------------------


def test_a_name_that_another_cluster_has(aws: Aws, lab: Computer, tmp_path: Path) -> None:
    lab.start()
    theirs = alive(aws)
    other = Computer(tmp_path / "other")
    before = aws.count()
    with pytest.raises(ClusterError, match=f"'lab' is taken.*id {lab.id}.*adopt lab"):
        other.start()
    asked = [one.name for one in aws.calls[before:] if not looks(one.action)]
    assert asked == []
    assert alive(aws) == theirs
    assert ids(aws) == {lab.id}
    other.stop()  # ends nothing of theirs
    assert alive(aws) == theirs


@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("at", ["ImportKeyPair", "CreateSecurityGroup"])
def test_two_computers_that_start_one_name_at_once(
    aws: Aws, forks: Forks, lab: Computer, tmp_path: Path, prices: Path, at: str, effect: Any
) -> None:
    """The other computer is held at the moment of its claim, while this one starts."""
    other = Computer(tmp_path / "other").with_prices(prices)
    hold = aws.hold(1, effect, lambda action: action == f"ec2:{at}")
    process = forks.run(other, "start")
    assert hold.reached.wait(30)
    first = at == "ImportKeyPair" and effect == "before"  # whose claim it is
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
    whole(aws, winner)
    assert len(ever(aws)) == len(MACHINES)
    loser.stop()
    whole(aws, winner)
    winner.stop()
    nothing(aws)


def test_two_starts_on_one_computer(aws: Aws, forks: Forks, lab: Computer) -> None:
    hold = aws.hold(22, "before")
    process = forks.run(lab, "start")
    assert hold.reached.wait(30)
    with pytest.raises(Busy, match=str(process.pid)):
        lab.start()
    with pytest.raises(Busy, match=str(process.pid)):
        lab.stop()
    hold.release()
    assert process.wait() == 0, process.words
    whole(aws, lab)
    assert len(ever(aws)) == len(MACHINES)


# -- AWS is slow, or silent ------------------------------------------------------------------------


def test_throttling_for_a_minute(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    fault = aws.fault("*", "throttle", times=None)
    waiting.at(60.0, aws.faults.clear)
    lab.start()
    assert waiting.seconds >= 60
    assert fault.hits <= 12  # more and more slowly
    whole(aws, lab)
    assert len(ever(aws)) == len(MACHINES)
    aws.fault("*", "throttle", times=None)
    waiting.at(waiting.seconds + 60, aws.faults.clear)
    lab.stop()
    nothing(aws)


def test_throttling_without_an_end(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    aws.fault("TerminateInstances", "throttle", times=None)
    with pytest.raises(ClusterError, match="RequestLimitExceeded"):
        lab.stop()
    assert 170 <= waiting.seconds <= 400
    aws.faults.clear()
    lab.stop()
    nothing(aws)


@pytest.mark.parametrize("what", ["internal", "unavailable", "cut", "lost", "throttle"])
def test_launches_are_not_multiplied_by_being_asked_for_again(
    aws: Aws, lab: Computer, waiting: Waiting, what: str
) -> None:
    fault = aws.fault("RunInstances", what, times=3)
    lab.start()
    asked = [one for one in aws.calls if one.action == "RunInstances"]
    assert fault.hits == 3
    assert len(asked) == 2 + 3
    tokens = {one.params["ClientToken"] for one in asked if one.params}
    assert len(tokens) == 2  # one for each group
    assert len(ever(aws)) == len(MACHINES)
    whole(aws, lab)


def test_a_launch_whose_answer_is_never_heard(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    """It fails after half a minute; what was launched, unheard of, is not left behind."""
    aws.fault("RunInstances", "lost", times=None)
    with pytest.raises(ClusterError, match="did not answer RunInstances"):
        lab.start()
    assert waiting.seconds >= 30
    assert len(ever(aws)) <= len(MACHINES)
    aws.faults.clear()
    lab.stop()
    nothing(aws)


@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_every_call_is_repeated_when_its_end_is_unclear(
    aws: Aws, lab: Computer, waiting: Waiting, what: str
) -> None:
    """Every call of a start and a stop meets it once."""
    met: set[str] = set()
    strikes = aws._befall

    def once(call: Any) -> bool:
        if call.name not in met:
            met.add(call.name)
            aws.fault("*", what)
        return strikes(call)

    aws._befall = once  # type: ignore[method-assign]
    lab.start()
    whole(aws, lab)
    assert len(ever(aws)) == len(MACHINES)
    lab.stop()
    nothing(aws)
    assert {"ec2:RunInstances", "ec2:DeleteKeyPair", "ec2:TerminateInstances"} <= met


@pytest.mark.parametrize("lag", [1, 3])
def test_what_was_made_is_shown_late(aws: Aws, lab: Computer, waiting: Waiting, lag: int) -> None:
    aws.lag = lag
    lab.start()
    lab.start()
    assert len(ever(aws)) == len(MACHINES)
    whole(aws, lab)
    a_minute_later(aws)
    lab.stop()
    nothing(aws)


@pytest.mark.parametrize("lag", [1, 3])
def test_what_was_made_for_a_start_that_failed_is_removed_though_it_is_not_shown_yet(
    aws: Aws, lab: Computer, waiting: Waiting, lag: int
) -> None:
    aws.lag = lag
    aws.capacity["c5.large", "*", "*"] = 0
    with pytest.raises(ClusterError, match="InsufficientInstanceCapacity"):
        lab.start()
    nothing(aws)


def a_minute_later(aws: Aws) -> None:
    """All is shown by then."""
    for kind in aws.world().things.values():
        for one in kind.values():
            one["_hidden"] = 0


def test_a_start_that_was_killed_before_its_launch_was_shown(
    aws: Aws, forks: Forks, lab: Computer, waiting: Waiting
) -> None:
    """Its labels do not tell of it yet: what is on disk does."""

    def counts(action: str) -> bool:
        if action == "ec2:RunInstances":
            aws.lag = 12  # longer than a plan looks
        return action == "ec2:RunInstances"

    hold = aws.hold(1, "after", counts)
    process = forks.run(lab, "start")
    assert hold.reached.wait(30)
    process.kill()
    hold.release(drop=True)
    lab.start()
    assert len(ever(aws)) == len(MACHINES)
    whole(aws, lab)


# -- no machines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "words"),
    [
        ("on-demand", "We currently do not have sufficient c5.large capacity in the Availability"),
        ("spot", "There is no Spot capacity available that matches your request."),
    ],
)
def test_the_next_candidate_is_asked_at_once_in_the_order_of_the_plan(
    aws: Aws, lab: Computer, waiting: Waiting, market: str, words: str
) -> None:
    lab.write({"types": ["c5.large", "c5.xlarge"], "market": market, "zones": "any"})
    aws.capacity["c5.large", "*", market] = 0
    said = lab.start()
    plan = lab.plans[0]
    first, second = plan.table[2], plan.table[3]
    assert (first[2], second[2]) == ("c5.large", "c5.xlarge")
    asked = [one for one in launches(aws) if one[0] != "t3.medium"]
    assert asked == [("c5.large", zone) for zone in first[4].split(", ")] + [
        ("c5.xlarge", second[4].split(", ")[0])
    ]
    told = [line for line in said if line.startswith("cpu: c5.large") and words in line]
    assert len(told) == len(first[4].split(", "))
    assert waiting.seconds == 0.0  # at once
    whole(aws, lab)


def test_each_refusal_leads_to_the_next_candidate(
    aws: Aws, lab: Computer, waiting: Waiting
) -> None:
    """Every candidate is refused for another reason, but for the last one."""
    lab.write({"types": ["c5.large", "c5.xlarge"], "zones": "any", "placement": False})
    codes = [
        "InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow",
        "Unsupported", "VcpuLimitExceeded", "InsufficientFreeAddressesInSubnet",
    ]  # fmt: skip
    refused = _refusing(aws, list(codes))
    said = lab.start()
    ways = [(row[2], zone) for row in lab.plans[0].table[2:4] for zone in row[4].split(", ")]
    asked = [one for one in launches(aws) if one[0] != "t3.medium"]
    assert asked == ways[: len(codes) + 1]  # each once, in the order of the plan
    assert not refused
    told = [line for line in said if " spot in " in line and line.startswith("cpu: c5")]
    for code, (type_, zone), line in zip(codes, ways, told, strict=False):
        assert line.startswith(f"cpu: {type_} spot in {zone}: {code}: "), line
    assert waiting.seconds == 0.0
    found = {one.name: one.state for one in lab.provider().machines()}
    assert found == dict.fromkeys(MACHINES, "running")


def _refusing(aws: Aws, codes: list[str]) -> list[str]:
    """AWS refuses workers with these codes, one after the other; those that are left."""
    from doubles.aws import instances, world

    launch = instances.run_instances

    def run(region: Any, params: Any) -> Any:
        if params["InstanceType"] != "t3.medium" and codes:
            error = Fault("*", codes.pop(0)).error("ec2:RunInstances")
            assert error is not None
            raise error
        return launch(region, params)

    world.ACTIONS["ec2:RunInstances"] = run
    return codes


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    from doubles.aws import world

    kept = dict(world.ACTIONS)
    yield
    world.ACTIONS.update(kept)


def test_a_quota_that_is_too_small_is_named_with_its_value_and_page(
    aws: Aws, lab: Computer, waiting: Waiting
) -> None:
    lab.write({"market": "on-demand"})
    aws.quotas["L-1216C47A"] = 5
    with pytest.raises(ClusterError) as caught:
        lab.start()
    said = str(caught.value)
    assert "your current vCPU limit of 5 allows" in said  # AWS's own words
    assert "L-1216C47A" in said
    assert "of 5 vCPUs is too small" in said
    assert "https://us-east-1.console.aws.amazon.com/servicequotas" in said
    assert any("TOO SMALL" in note for note in lab.plans[0].notes)  # before any money
    nothing(aws)


@pytest.mark.parametrize("market", ["spot", "on-demand", "spot-then-on-demand"])
def test_where_nothing_can_be_had_nothing_is_left(
    aws: Aws, lab: Computer, waiting: Waiting, market: str
) -> None:
    """The head did start; it is ended, and all that was made for it."""
    lab.write({"market": market})
    aws.capacity["c5.large", "*", "*"] = 1  # one of two that are needed
    with pytest.raises(ClusterError, match="2 of 2 needed, 0 to be had") as caught:
        lab.start()
    lines = str(caught.value).splitlines()
    markets = ["spot", "on-demand"] if market == "spot-then-on-demand" else [market]
    asked = [f"c5.large {one} in {zone}" for one in markets for zone in _zones(lab, one)]
    told = [line.strip() for line in lines if line.startswith("    c5.large")]
    assert [line.partition(":")[0] for line in told] == asked  # the order of the plan
    assert all("InsufficientInstanceCapacity" in line for line in told)
    assert len([one for one in launches(aws) if one[0] == "c5.large"]) == len(asked)
    nothing(aws)
    aws.capacity.clear()
    lab.start()
    whole(aws, lab)


def _zones(lab: Computer, market: str) -> list[str]:
    (row,) = [one for one in lab.plans[0].table if one[2:4] == ("c5.large", market)]
    return row[4].split(", ")


@pytest.mark.parametrize(("least", "free", "had"), [(None, 3, 0), (3, 2, 0), (3, 3, 3), (1, 9, 4)])
def test_all_or_nothing_unless_min_says_otherwise(
    aws: Aws, lab: Computer, waiting: Waiting, least: int | None, free: int, had: int
) -> None:
    lab.write({"count": 4, "min": least, "zones": ["us-east-1a"], "placement": False})
    aws.capacity["c5.large", "us-east-1a", "spot"] = free
    if not had:
        with pytest.raises(ClusterError, match="needed"):
            lab.start()
        nothing(aws)
        return
    lab.start()
    workers = [one for one in lab.provider().machines() if one.group == "cpu"]
    assert len(workers) == had
    assert len(alive(aws)) == had + 1


def test_failures_of_a_cluster_that_works_leave_it_alone(
    aws: Aws, lab: Computer, waiting: Waiting
) -> None:
    lab.start()
    was = alive(aws)
    lab.write({"count": 4})
    aws.capacity["c5.large", "*", "spot"] = 1
    with pytest.raises(ClusterError, match="needed"):
        lab.start()
    assert alive(aws) == was
    lab.write({"count": 2})
    whole(aws, lab)


# -- machines that die -----------------------------------------------------------------------------


def test_a_machine_that_ends_at_once_counts_as_a_refusal(
    aws: Aws, lab: Computer, waiting: Waiting
) -> None:
    from doubles.aws import instances

    boot = aws.boot

    def fails(world: Any, one: Any) -> None:
        zone = one["Placement"]["AvailabilityZone"]
        if one["InstanceType"] == "c5.large" and zone == "us-east-1a":
            instances.terminate(world, one, "Server.InternalError: Internal error on launch")
        else:
            boot(world, one)

    aws.boot = fails  # type: ignore[method-assign]
    said = lab.start()
    words = "us-east-1a: Server.InternalError: Internal error on launch"
    assert any(words in line for line in said)
    assert len(alive(aws)) == len(MACHINES)
    assert lab.provider().fleet.instances()
    found = {one.name: one.state for one in lab.provider().machines()}
    assert found == dict.fromkeys(MACHINES, "running")
    lab.stop()
    nothing(aws)


@pytest.mark.parametrize("how", ["taken", "itself"])
def test_a_machine_that_ends_while_the_cluster_works(
    aws: Aws, lab: Computer, waiting: Waiting, how: str
) -> None:
    lab.start()
    before = lab.provider()
    fleet = before.fleet
    (one,) = [one for one in fleet.instances() if fleet.machine_of(one) == "lab-cpu-2"]
    if how == "taken":
        aws.take_away(one.id)
        words = "Server.SpotInstanceTermination: Spot instance termination"
    else:
        aws.shut_itself_down(one.id)
        words = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
    found = {one.name: one for one in lab.provider().machines()}
    assert found["lab-cpu-2"].state == "dead"
    assert found["lab-cpu-2"].why == words
    assert lab.provider().symptoms() == f"lab-cpu-2: {words}"
    (seen,) = [each for each in lab.provider().fleet.instances() if each.id == one.id]
    assert seen.taken == (how == "taken")
    plan = lab.plan()
    assert [machine.name for machine in plan.missing] == ["lab-cpu-2"]
    kept = alive(aws)
    lab.start()
    assert set(kept) < set(alive(aws))
    assert len(ever(aws)) == len(MACHINES) + 1
    whole(aws, lab)


def test_a_machine_that_ends_between_launch_and_set_up(
    aws: Aws, lab: Computer, waiting: Waiting
) -> None:
    """`create` saw it run; when the machines are to be reached it has ended."""
    from clusterkit.cluster.cloud.provider import CloudProvider

    create = CloudProvider.create

    def dies(provider: CloudProvider, *said: Any) -> None:
        create(provider, *said)
        for one in provider.fleet.instances():
            if provider.fleet.machine_of(one) == "lab-cpu-1" and one.alive:
                aws.take_away(one.id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudProvider, "create", dies)
        with pytest.raises(ClusterError, match="lab-cpu-1 did not start, or ended again") as caught:
            lab.start()
    assert "Server.SpotInstanceTermination" in str(caught.value)
    lab.start()
    whole(aws, lab)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["DeleteSecurityGroup", "DeletePlacementGroup"])
def test_what_refuses_deletion_for_a_while(
    aws: Aws, lab: Computer, waiting: Waiting, action: str
) -> None:
    lab.start()
    code = "DependencyViolation" if "Security" in action else "InvalidPlacementGroup.InUse"
    fault = aws.refuse(action, times=6, code=code)
    said = lab.stop()
    assert fault.hits == 6
    assert any(code in line for line in said)  # why it takes so long
    assert waiting.seconds > 2
    nothing(aws)


def test_what_refuses_deletion_for_ever(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    id_ = lab.id
    aws.refuse("DeleteSecurityGroup", times=None)
    with pytest.raises(ClusterError, match=r"DependencyViolation.*(?s:.*)stop lab` tries again"):
        lab.stop()
    assert waiting.seconds >= 600
    assert alive(aws) == []  # nothing that costs money
    assert lab.id == id_
    aws.faults.clear()
    lab.stop()
    nothing(aws)


def test_a_failed_start_whose_clean_up_fails_too(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    aws.capacity["c5.large", "*", "*"] = 0
    aws.fault("DeleteSecurityGroup", "denied", times=None)
    with pytest.raises(ClusterError, match="could not be removed") as caught:
        lab.start()
    assert "InsufficientInstanceCapacity" in str(caught.value)
    assert alive(aws) == []
    aws.faults[-1].times = aws.faults[-1].hits
    lab.stop()
    nothing(aws)


def test_other_credentials_are_another_account(
    aws: Aws, lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would be found there, and the end would be proved of the wrong account."""
    lab.start()
    aws.credentials["other"] = ("other", "999999999999")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    for command in (lab.start, lab.pause, lab.stop):
        with pytest.raises(ClusterError, match=r"is in the account 123456789012.*999999999999"):
            command()
    assert len(alive(aws)) == len(MACHINES)


def test_no_room_to_switch_on_again(aws: Aws, lab: Computer, waiting: Waiting) -> None:
    lab.start()
    lab.pause()
    aws.capacity["t3.medium", "*", "on-demand"] = 0
    with pytest.raises(ClusterError, match=r"(?s)InsufficientInstanceCapacity.*disks are kept"):
        lab.start()
    assert len(aws.things("volume")) == 1
    aws.capacity.clear()
    lab.start()
    whole(aws, lab)


# -- what is asked of AWS --------------------------------------------------------------------------


def test_calls_do_not_grow_with_machines(aws: Aws, tmp_path: Path, prices: Path) -> None:
    """The table is in docs/benchmarks.md."""
    told: dict[int, dict[str, Counter[str]]] = {}
    for count in (2, 32):
        mine = Computer(tmp_path / str(count), workers={"count": count})
        for command in ("plan", "start", "start again", "pause", "start after pause", "stop"):
            before = len(aws.calls)
            getattr(mine, command.partition(" ")[0])()
            made = Counter(one.name for one in aws.calls[before:])
            told.setdefault(count, {})[command] = made
        nothing(aws)
    for command, few in told[2].items():
        print(f"{command}: {few.total()} calls for 2 workers, {told[32][command].total()} for 32")
        assert few == told[32][command], command
    assert told[2]["start"]["ec2:RunInstances"] == 2
    assert told[2]["stop"]["ec2:TerminateInstances"] == 1
    assert told[2]["start again"].total() <= 8


def test_every_permission_of_the_policy_is_needed(
    aws: Aws, lab: Computer, tmp_path: Path, waiting: Waiting
) -> None:
    """A life with all that can happen in it, under the documented policy and nothing more."""
    from clusterkit.cluster.cloud import adopting

    lab.write(saved_image="auto", image="debian-12")
    lab.start()
    lab.write(own_address="10.9.8.8", image="ubuntu-24.04")
    assert "10.9.8.7/32" in lab.provider().open_door()
    lab.pause()
    lab.start()
    cloud = lab.provider().cloud
    assert all(one.verdict != "bad" for one in cloud.examine())
    assert "us-east-1" in cloud.regions()
    # An image.
    (head,) = [one for one in cloud.instances(lab.id) if one.alive and one.market != "spot"]
    cloud.save_image(head, "clusterkit-lab-0123", {**lab.provider().identity.labels("image"),
                                                   "clusterkit-digest": "0123"})  # fmt: skip
    (image,) = cloud.images()
    cloud.remove_image(image)
    # Taken over by another computer.
    other = Computer(tmp_path / "other")
    adopting.take(other.home, other.name, adopting.look(other.home, other.name))
    watch = Said()
    adopting.bring_key(other.home, other.name, watch)
    other.start()
    assert other.id == lab.id
    whole(aws, other)
    # Left behind, by whatever went wrong.
    tags = [{"Key": "clusterkit-id", "Value": lab.id}]
    _litter(aws, tags)
    other.stop()
    nothing(aws)
    used = {one.name for one in aws.calls if one.outcome == "ok"}
    used |= (
        {"ec2:CreateTags"}
        if any(one.params.get("TagSpecifications") for one in aws.calls)
        else set()
    )
    assert ALLOWED - used == {"iam:CreateServiceLinkedRole"}  # AWS needs it, not we


def _litter(aws: Aws, tags: list[dict[str, str]]) -> None:
    """Things with a cluster's label that belong to no machine."""
    import boto3

    world = aws.world()
    volume = {"Size": 8, "SnapshotId": "", "AvailabilityZone": "us-east-1a", "Attachments": []}
    world.add("volume", {**volume, "State": "available", "VolumeType": "gp3"}, tags)
    world.add("spot-instances-request", {"State": "open", "Type": "one-time"}, tags)
    allowed, aws.allowed = aws.allowed, None
    before = len(aws.calls)
    ec2: Any = boto3.client("ec2", "us-east-1")
    subnet = aws.things("subnet")[0]["SubnetId"]
    said = {"ResourceType": "network-interface", "Tags": tags}
    ec2.create_network_interface(SubnetId=subnet, TagSpecifications=[said])
    said = {"ResourceType": "elastic-ip", "Tags": tags}
    ec2.allocate_address(Domain="vpc", TagSpecifications=[said])
    del aws.calls[before:]  # these were not clusterkit's
    aws.allowed = allowed


def test_what_is_asked_for_is_labelled_and_closed(aws: Aws, lab: Computer) -> None:
    lab.start()
    labels = {f"clusterkit-{one}" for one in ("cluster", "id", "role", "owner", "created")}
    makers = ("RunInstances", "ImportKeyPair", "CreateSecurityGroup", "CreatePlacementGroup")
    made = [one for one in aws.calls if one.action in makers]
    assert {one.action for one in made} == set(makers)
    for call in made:
        for said in call.params["TagSpecifications"]:
            assert labels <= {tag["Key"] for tag in said["Tags"]}, (call.action, said)
    for kind in ("instance", "volume", "network-interface", "key-pair", "placement-group",
                 "spot-instances-request"):  # fmt: skip
        for one in aws.things(kind):
            assert labels <= {tag["Key"] for tag in one["Tags"]}, kind
    assert not aws.count("CreateTags")
    run = [one.params for one in aws.calls if one.action == "RunInstances"]
    for asked in run:
        assert asked["MetadataOptions"]["HttpTokens"] == "required"
        assert asked["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert [one["Ebs"]["DeleteOnTermination"] for one in asked["BlockDeviceMappings"]] == [True]
    doors = [one.params for one in aws.calls if one.action == "AuthorizeSecurityGroupIngress"]
    open_to = re.findall(r"[0-9.:a-f]+/[0-9]+", str(doors))
    assert open_to == ["10.9.8.7/32"]
    whole(aws, lab)


def test_user_data_hold_no_secret_that_lasts(aws: Aws, lab: Computer) -> None:
    """The first host key alone, which is replaced when a machine is reached first."""
    lab.start()
    identity = lab.provider().identity
    assert len(identity.munge_key.read_bytes()) == 128
    kept = [identity.key.read_text(), identity.munge_key.read_bytes().hex()]
    kept += [base64.b64encode(identity.munge_key.read_bytes()).decode(), "AWS", "aws_secret"]
    for one in aws.world().things["instance"].values():
        said = one["_user_data"]
        text = said.decode() if isinstance(said, bytes) else said
        assert text.startswith("#cloud-config\n")
        assert text.count("PRIVATE KEY") == 2  # the beginning and the end of one key
        for secret in kept:
            assert secret not in text
            assert secret.splitlines()[min(2, len(secret.splitlines()) - 1)] not in text


def test_the_whole_world_is_let_in_only_when_it_is_asked_for(aws: Aws, lab: Computer) -> None:
    lab.write(allow=["0.0.0.0/0"])
    lab.start()
    assert any("the whole world, as you asked" in note for note in lab.plans[0].notes)


# -- the commands ----------------------------------------------------------------------------------


def test_the_commands_of_a_whole_life(aws: Aws, lab: Computer) -> None:
    shown = lab.clusterkit("start", "lab", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "c5.large" in shown.stdout
    assert not lab.folder.exists()
    nothing(aws)
    lab.start()
    ended = lab.clusterkit("stop", "lab", "--discard", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "key pairs" in ended.stdout  # the proof
    nothing(aws)


def test_the_commands_say_what_is_wrong_in_a_line(
    aws: Aws, lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = lab.clusterkit("start", "lab", "--yes")
    assert result.returncode == 1
    assert "does not accept these credentials" in result.stderr
    assert "Traceback" not in result.stderr
    assert "wrong" not in result.stdout
