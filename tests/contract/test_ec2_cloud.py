"""EC2's `Cloud` against the double of AWS, which is never kinder than AWS. Nothing here waits: the
pauses that the client would make are recorded instead."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from doubles.aws import Aws

from clusterkit.cluster.cloud.api import (
    DIGEST,
    GROUP,
    LAUNCH,
    LOGIN,
    Candidate,
    Instance,
    Launch,
    Refused,
    Resource,
)
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.cloud import Ec2Cloud
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError, UsageError

POLICY = Path(__file__).parents[2] / "docs" / "aws-policy.json"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9S0gCHyDNmsPDMt0RcsUmTrLkWz0E7R7CXNh8Dyk0Q me@here"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHdB1hLyqWkRuV9Y0cJ3b5Y0w8cGqvDkq0cUu0h8S2bH me@there"
ID, ZONE = "a" * 16, "us-east-1a"
LABELS = {
    "clusterkit-cluster": "c",
    "clusterkit-id": ID,
    "clusterkit-role": "cluster",
    "clusterkit-owner": "anna_laptop",
    "clusterkit-created": "20261121T134118Z",
}
HOME = "203.0.113.7/32"


def allowed() -> list[str]:
    """What the policy in the docs allows."""
    said = [one["Action"] for one in json.loads(POLICY.read_text())["Statement"]]
    return [one for some in said for one in ([some] if isinstance(some, str) else some)]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws() as made:
        made.boot_time = made.stop_time = made.end_time = made.image_time = 0.0
        made.allowed = allowed()  # whatever else is called is refused
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


class Asked:
    """A cloud, the pauses it would have made, and what it said."""

    def __init__(self, **more: Any) -> None:
        self.pauses: list[float] = []
        self.said: list[str] = []
        client = Client(pause=self.pauses.append, say=self.said.append)
        self.cloud = Ec2Cloud(client, **more)


@pytest.fixture
def asked(aws: Aws) -> Asked:
    return Asked()


@pytest.fixture
def cloud(asked: Asked) -> Ec2Cloud:
    return asked.cloud


@pytest.fixture
def launch(cloud: Ec2Cloud) -> Callable[..., Launch]:
    """A launch of two machines; a new token each time, unless told."""
    site = cloud.prepare(LABELS, KEY, [HOME], True)
    image = cloud.image("ubuntu-24.04", "x86_64")
    count = iter(range(100))

    def make(
        type_: str = "t3.medium", market: Any = "on-demand", zone: str = ZONE, **more: Any
    ) -> Launch:
        token = f"{next(count):032x}"
        labels = {**LABELS, GROUP: "cpu", LAUNCH: token, LOGIN: "ubuntu"}
        where = Candidate(type_, zone, market)
        said = "#cloud-config\n"
        whole = Launch(token, "cpu", (1, 2), 2, where, image.id, 30, said, labels, site)
        return replace(whole, **more)

    return make


def rules(aws: Aws) -> set[str]:
    """The networks that ssh is open for."""
    named = [{"Name": "group-name", "Values": ["clusterkit-c"]}]
    (group,) = Client().pages("ec2", "DescribeSecurityGroups", "SecurityGroups", Filters=named)
    return {
        one["CidrIp"]
        for rule in group["IpPermissions"]
        if rule.get("FromPort") == 22
        for one in rule.get("IpRanges") or ()
    }


def live(aws: Aws) -> list[str]:
    return [
        one["InstanceId"] for one in aws.things("instance") if one["State"]["Name"] != "terminated"
    ]


# -- what there is --------------------------------------------------------------------------------


def test_types_and_the_zones_that_have_them(cloud: Ec2Cloud, aws: Aws) -> None:
    found = cloud.machine_types(["g4dn.xlarge", "t3.medium"])
    gpu = found["g4dn.xlarge"]
    assert (gpu.cpus, gpu.memory, gpu.gpus, gpu.gpu) == (4, 16384, 1, "NVIDIA T4")
    assert ZONE in gpu.zones
    before = aws.count()
    cloud.machine_types(["t3.medium"])
    assert aws.count() == before  # what is known is not asked again


def test_all_unknown_types_at_once_with_near_names(cloud: Ec2Cloud) -> None:
    with pytest.raises(UsageError) as caught:
        cloud.machine_types(["g4dn.xlarg", "t3.medium", "t9.huge"])
    assert "g4dn.xlarg (near are: g4dn.xlarge" in str(caught.value)
    assert "t9.huge" in str(caught.value)
    assert "t3.medium" not in str(caught.value).partition("t9")[0]


@pytest.mark.parametrize(
    ("name", "arch", "login", "owner"),
    [
        ("ubuntu-22.04", "x86_64", "ubuntu", "099720109477"),
        ("ubuntu-24.04", "arm64", "ubuntu", "099720109477"),
        ("debian-12", "x86_64", "admin", "136693071363"),
        ("debian-13", "arm64", "admin", "136693071363"),
        ("dlami-gpu", "x86_64", "ubuntu", "898082745236"),
    ],
)
@pytest.mark.parametrize("way", ["parameter", "search", "denied"])
def test_images_by_name(
    cloud: Ec2Cloud, aws: Aws, name: str, arch: str, login: str, owner: str, way: str
) -> None:
    """The newest of the right maker, also where somebody else's newer one has its name."""
    if way == "search":
        aws.fault("GetParameters", "denied", times=None)
    elif way == "denied":
        aws.allowed = [one for one in allowed() if one != "ssm:GetParameters"]
    found = cloud.image(name, arch)
    assert (found.arch, found.login, found.name) == (arch, login, name)
    assert found.made is not None
    assert (datetime.now(UTC) - found.made).days < 60
    (said,) = cloud.client.pages("ec2", "DescribeImages", "Images", ImageIds=[found.id])
    assert said["OwnerId"] == owner


@pytest.mark.parametrize("what", ["cut", "internal"])
def test_an_image_is_found_without_its_parameter_soon(asked: Asked, aws: Aws, what: str) -> None:
    aws.fault("GetParameters", what, times=None)
    assert asked.cloud.image("ubuntu-24.04", "x86_64").login == "ubuntu"
    assert sum(asked.pauses) <= 2


def test_an_image_by_its_id_is_named_as_the_settings_name_it(cloud: Ec2Cloud) -> None:
    id_ = cloud.image("ubuntu-24.04", "x86_64").id
    assert cloud.image(id_, "x86_64").name == id_  # machines' labels have it; `adopt` reads them


def test_images_that_are_not(cloud: Ec2Cloud) -> None:
    with pytest.raises(UsageError, match=r"known are ubuntu-22.04"):
        cloud.image("ubuntu-26.04", "x86_64")
    with pytest.raises(UsageError, match=r"ami-0123456789abcdef0 is not in us-east-1"):
        cloud.image("ami-0123456789abcdef0", "x86_64")
    arm = cloud.image("ubuntu-24.04", "arm64").id
    with pytest.raises(UsageError, match=r"is for arm64, but the machines are x86_64"):
        cloud.image(arm, "x86_64")
    assert cloud.image(arm, "arm64").login == "ubuntu"


def test_zones_and_the_network(cloud: Ec2Cloud) -> None:
    assert cloud.zones()[0] == ZONE
    assert list(cloud.zones()) == sorted(cloud.zones())
    assert cloud.network().startswith("172.31.")
    assert "eu-central-1" in cloud.regions()
    assert cloud.account() == "123456789012"


def test_a_subnet_that_is_not_there(aws: Aws) -> None:
    with pytest.raises(UsageError, match=r"`subnet:` names subnet-0123"):
        Asked(subnet="subnet-01234567").cloud.zones()


# -- names, keys, the door ------------------------------------------------------------------------


def test_prepare_makes_what_is_missing_once(cloud: Ec2Cloud, aws: Aws) -> None:
    site = cloud.prepare(LABELS, KEY, [HOME], True)
    assert cloud.prepare(LABELS, KEY, [HOME], True) == site
    assert rules(aws) == {HOME}
    assert sorted(one.kind for one in cloud.resources(ID)) == [
        "key pair", "placement group", "security group",
    ]  # fmt: skip
    for one in cloud.resources(ID):
        assert {key: one.labels[key] for key in LABELS} == LABELS


@pytest.mark.parametrize("what", ["lost", "cut"])
@pytest.mark.parametrize(
    "action",
    [
        "ImportKeyPair",
        "CreateSecurityGroup",
        "CreatePlacementGroup",
        "AuthorizeSecurityGroupIngress",
    ],
)
def test_an_answer_that_was_not_heard_while_it_prepares(
    cloud: Ec2Cloud, aws: Aws, action: str, what: str
) -> None:
    aws.fault(action, what)
    cloud.prepare(LABELS, KEY, [HOME], True)
    assert len(cloud.resources(ID)) == 3
    assert rules(aws) == {HOME}


@pytest.mark.parametrize("action", ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"])
def test_a_rule_whose_answer_was_not_heard_is_told(cloud: Ec2Cloud, aws: Aws, action: str) -> None:
    cloud.prepare(LABELS, KEY, [HOME], False)
    aws.fault(action, "lost")
    assert cloud.open_door(ID, ["198.51.100.9/32"]) == (["198.51.100.9/32"], [HOME])
    assert rules(aws) == {"198.51.100.9/32"}


def test_a_name_that_another_cluster_has(cloud: Ec2Cloud, aws: Aws) -> None:
    cloud.prepare(LABELS, KEY, [HOME], False)
    before = aws.left()
    with pytest.raises(ClusterError) as caught:
        cloud.prepare({**LABELS, "clusterkit-id": "b" * 16}, OTHER, ["198.51.100.1/32"], False)
    for word in ("'c' is taken", ID, "anna_laptop", "2026-11-21 13:41 UTC"):
        assert word in str(caught.value)
    assert aws.left() == before
    assert rules(aws) == {HOME}


def test_a_name_that_something_else_has(cloud: Ec2Cloud) -> None:
    cloud.client.call(
        "ec2",
        "ImportKeyPair",
        KeyName="clusterkit-c",
        PublicKeyMaterial=KEY.encode(),
    )
    with pytest.raises(ClusterError, match="clusterkit did not make it"):
        cloud.prepare(LABELS, KEY, [HOME], False)


def test_one_name_for_two_who_want_it_at_once(aws: Aws) -> None:
    """The key pair is the claim: one gets it, the other is told."""
    outcomes: list[str] = []

    def claim(id_: str) -> None:
        try:
            Asked().cloud.prepare({**LABELS, "clusterkit-id": id_}, KEY, [HOME], False)
            outcomes.append("made")
        except ClusterError as error:
            outcomes.append("taken" if "is taken" in str(error) else str(error))

    threads = [threading.Thread(target=claim, args=(letter * 16,)) for letter in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes) == ["made", "taken", "taken", "taken"]
    assert len(aws.things("key-pair")) == 1


def test_a_cluster_that_was_adopted_gets_its_new_key(cloud: Ec2Cloud) -> None:
    cloud.prepare(LABELS, KEY, [HOME], False)
    cloud.prepare(LABELS, OTHER, [HOME], False)
    (pair,) = cloud.client.pages("ec2", "DescribeKeyPairs", "KeyPairs", IncludePublicKey=True)
    assert pair["PublicKey"].split()[1] == OTHER.split()[1]


def test_the_door_is_open_for_just_these(cloud: Ec2Cloud, aws: Aws) -> None:
    cloud.prepare(LABELS, KEY, [HOME], False)
    assert cloud.open_door(ID, [HOME]) == ([], [])
    calls = aws.count()
    moved = ["198.51.100.9/32", "10.1.2.3/16"]
    assert cloud.open_door(ID, moved) == (["10.1.0.0/16", "198.51.100.9/32"], [HOME])
    assert aws.count() - calls == 3
    assert rules(aws) == {"10.1.0.0/16", "198.51.100.9/32"}
    assert cloud.open_door(ID, moved) == ([], [])


def test_rules_of_somebody_else_stay(cloud: Ec2Cloud, aws: Aws) -> None:
    site = cloud.prepare(LABELS, KEY, [HOME], False)
    mine = [{"CidrIp": "192.0.2.0/24", "Description": "the office"}, {"CidrIp": "192.0.2.7/32"}]
    cloud.client.call(
        "ec2",
        "AuthorizeSecurityGroupIngress",
        GroupId=site["group"],
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": mine}],
    )
    assert cloud.open_door(ID, ["192.0.2.7/32"]) == ([], [HOME])
    assert rules(aws) == {"192.0.2.0/24", "192.0.2.7/32"}


def test_no_door_of_an_unknown_cluster(cloud: Ec2Cloud) -> None:
    with pytest.raises(ClusterError, match="no security group"):
        cloud.open_door("f" * 16, [HOME])


# -- machines -------------------------------------------------------------------------------------


def test_a_group_is_one_call(cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]) -> None:
    before = aws.count()
    wanted = launch(numbers=tuple(range(1, 33)), least=32)
    made = cloud.launch(wanted)
    assert aws.count() - before == 1
    assert [one.index for one in made] == list(range(32))
    assert {one.labels[LAUNCH] for one in made} == {wanted.token}
    assert cloud.launched(wanted.token) == cloud.instances(ID)
    assert {one.state for one in cloud.instances(ID)} == {"running"}
    cloud.end(made)
    assert aws.count("TerminateInstances") == 1


@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_an_answer_that_was_not_heard_makes_nothing_twice(
    asked: Asked, aws: Aws, launch: Callable[..., Launch], what: str
) -> None:
    wanted = launch()
    aws.fault("RunInstances", what, times=2)
    made = asked.cloud.launch(wanted)
    assert sorted(one.id for one in made) == sorted(live(aws))
    assert len(made) == 2
    assert aws.count("RunInstances") == 3
    assert asked.pauses


def test_a_launch_that_is_sent_again_by_another_process(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    wanted = launch()
    first = cloud.launch(wanted)
    again = Asked().cloud.launch(wanted)  # knows nothing of the first
    assert [one.id for one in again] == [one.id for one in first]
    assert len(live(aws)) == 2


def test_a_token_with_another_wish(cloud: Ec2Cloud, launch: Callable[..., Launch]) -> None:
    wanted = launch()
    cloud.launch(wanted)
    with pytest.raises(ClusterError, match="was asked for differently before"):
        cloud.launch(replace(wanted, disk=50))


def test_no_capacity_is_asked_for_once_and_told_in_awss_words(
    asked: Asked, aws: Aws, launch: Callable[..., Launch]
) -> None:
    aws.capacity["t3.medium", ZONE, "spot"] = 1
    with pytest.raises(Refused) as caught:
        asked.cloud.launch(launch(market="spot"))
    assert caught.value.kind == "capacity"
    assert "InsufficientInstanceCapacity" in caught.value.words
    assert caught.value.advice
    assert aws.count("RunInstances") == 1  # AWS says it with HTTP 500, which SDKs repeat
    assert asked.pauses == []
    assert live(aws) == []
    assert len(asked.cloud.launch(launch(market="spot", least=1))) == 1


def test_a_quota_is_named_with_its_value_and_page(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    aws.quotas["L-1216C47A"] = 2
    with pytest.raises(Refused) as caught:
        cloud.launch(launch())
    assert caught.value.kind == "quota"
    assert "VcpuLimitExceeded" in caught.value.words
    for word in ("L-1216C47A", "of 2 vCPUs", "servicequotas/home/services/ec2/quotas"):
        assert word in caught.value.advice
    aws.quotas["L-34B43A08"] = 2
    with pytest.raises(Refused) as spot:
        cloud.launch(launch(market="spot"))
    assert spot.value.kind == "quota"
    assert "L-34B43A08" in spot.value.advice


def test_a_quota_that_may_not_be_asked_for_is_named_all_the_same(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    aws.quotas["L-1216C47A"] = 2
    aws.fault("GetServiceQuota", "denied", times=None)
    with pytest.raises(Refused, match="L-1216C47A"):
        cloud.launch(launch())


def test_a_type_that_a_zone_does_not_have(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    aws.lacks.add(("t3.medium", ZONE))
    with pytest.raises(Refused) as caught:
        cloud.launch(launch())
    assert caught.value.kind == "unsupported"
    assert live(aws) == []


@pytest.mark.parametrize("code", ["InvalidKeyPair.NotFound", "InvalidGroup.NotFound"])
def test_what_a_launch_needs_may_not_be_known_everywhere_yet(
    asked: Asked, aws: Aws, launch: Callable[..., Launch], code: str
) -> None:
    wanted = launch()
    aws.fault("RunInstances", code, times=2)
    assert len(asked.cloud.launch(wanted)) == 2
    assert len(live(aws)) == 2
    assert len(asked.pauses) == 2


def test_another_error_of_a_launch_ends_it(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    """The next candidate would fail in the same way."""
    aws.fault("RunInstances", "InvalidParameterValue", words="Value (x) is invalid")
    with pytest.raises(Refused, match=r"InvalidParameterValue: Value \(x\) is invalid") as caught:
        cloud.launch(launch())
    assert caught.value.kind == "never"


@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_an_error_after_a_silence_does_not_say_that_nothing_was_launched(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch], what: str
) -> None:
    aws.fault("RunInstances", what)
    aws.fault("RunInstances", "UnauthorizedOperation", times=None, after=1)
    with pytest.raises(ApiError, match="UnauthorizedOperation"):
        cloud.launch(launch())


def test_off_and_on(cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]) -> None:
    cloud.launch(launch())
    made = cloud.instances(ID)
    cloud.stop(made)
    off = cloud.instances(ID)
    assert {one.state for one in off} == {"stopped"}
    cloud.give_user_data(off[0], "#cloud-config\nhostname: other\n")
    cloud.start(off)
    assert {one.state for one in cloud.instances(ID)} == {"running"}
    assert aws.count("StopInstances") == aws.count("StartInstances") == 1


def test_no_capacity_to_switch_on_again(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    cloud.launch(launch())
    cloud.stop(cloud.instances(ID))
    aws.fault("StartInstances", "InsufficientInstanceCapacity")
    with pytest.raises(Refused) as caught:
        cloud.start(cloud.instances(ID))
    assert caught.value.kind == "capacity"
    assert aws.count("StartInstances") == 1


def test_a_spot_machine_that_was_taken_away(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    cloud.launch(launch(market="spot"))
    first, second = cloud.instances(ID)
    aws.take_away(first.id)
    now = {one.id: one for one in cloud.instances(ID)}
    assert now[first.id].taken
    assert not now[first.id].alive
    assert "Spot" in now[first.id].why
    assert now[second.id].alive
    assert now[second.id].why == ""


def gone(began: datetime | None = None) -> Instance:
    return Instance(
        "i-0123456789abcdef0", "", ZONE, "on-demand", "running", "", "", {}, began=began
    )


def test_what_is_gone_does_not_keep_the_others(
    asked: Asked, aws: Aws, launch: Callable[..., Launch]
) -> None:
    made = asked.cloud.launch(launch())
    asked.cloud.end([gone(), *made])
    assert live(aws) == []
    assert asked.pauses == []  # it is old: nobody waits for it
    asked.cloud.end(made)


def test_what_is_too_new_to_be_known_is_waited_for(
    asked: Asked, aws: Aws, launch: Callable[..., Launch]
) -> None:
    made = asked.cloud.launch(launch(numbers=(1,), least=1))
    words = f"The instance ID '{made[0].id}' does not exist"
    aws.fault("TerminateInstances", "InvalidInstanceID.NotFound", times=3, words=words)
    asked.cloud.end(made)
    assert live(aws) == []
    assert 0 < sum(asked.pauses) < 60
    asked.pauses.clear()
    asked.cloud.end([gone(datetime.now(UTC))])
    assert 55 < sum(asked.pauses) <= 61


def test_what_was_just_made_may_be_unknown(aws: Aws) -> None:
    aws.lag = 3
    asked = Asked()
    site = asked.cloud.prepare(LABELS, KEY, [HOME], True)
    assert asked.cloud.prepare(LABELS, KEY, [HOME], True) == site
    assert rules(aws) == {HOME}
    assert asked.pauses


# -- the end --------------------------------------------------------------------------------------


def end_all(cloud: Ec2Cloud) -> int:
    """As `stop` does it: machines, then the rest, again while something is refused; the rounds."""
    cloud.end([one for one in cloud.instances(ID) if one.alive])
    for rounds in range(1, 20):
        left = cloud.resources(ID)
        if not left:
            return rounds
        for one in left:
            cloud.delete(one)
    raise AssertionError(cloud.resources(ID))


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_every_kind_is_listed_and_goes(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch], market: str
) -> None:
    cloud.launch(launch(market=market, type_="c5.large", placement=True))
    kinds = {one.kind for one in cloud.resources(ID)}
    expected = {
        "instance", "volume", "network interface", "security group", "key pair", "placement group",
    }  # fmt: skip
    assert kinds == (expected | {"spot request"} if market == "spot" else expected)
    assert {f"{kind}s" for kind in kinds} <= set(cloud.kinds)
    assert all(one.labels["clusterkit-id"] == ID for one in cloud.resources(None))
    assert cloud.resources("f" * 16) == []
    end_all(cloud)
    assert aws.left() == []
    assert cloud.resources(None) == []


def test_what_cannot_be_deleted_yet_says_why(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    cloud.launch(launch())
    words = {one.kind: cloud.delete(one) for one in cloud.resources(ID) if one.kind != "instance"}
    assert "DependencyViolation" in words["security group"]
    assert "VolumeInUse" in words["volume"]
    assert "in use" in words["network interface"]
    assert words["key pair"] == ""
    aws.refuse("DeleteSecurityGroup", times=3)
    assert end_all(cloud) >= 4
    assert aws.left() == []


def test_deleting_twice_is_no_error(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    cloud.launch(launch(market="spot"))
    everything = cloud.resources(ID)
    end_all(cloud)
    for one in everything:
        assert cloud.delete(one) == "", one


def test_a_deletion_that_is_not_allowed_is_an_error(cloud: Ec2Cloud, aws: Aws) -> None:
    cloud.prepare(LABELS, KEY, [HOME], False)
    aws.fault("DeleteKeyPair", "denied")
    with pytest.raises(ClusterError, match="permission ec2:DeleteKeyPair"):
        cloud.delete(Resource("key pair", "clusterkit-c", {}))


# -- saved images ---------------------------------------------------------------------------------


def saved(cloud: Ec2Cloud, launch: Callable[..., Launch]) -> str:
    cloud.launch(launch(numbers=(1,), least=1))
    (one,) = cloud.instances(ID)
    cloud.stop([one])
    return cloud.save_image(one, "clusterkit-c-x86_64", {**LABELS, DIGEST: "d1", LOGIN: "ubuntu"})


def test_an_image_of_ones_own(cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]) -> None:
    id_ = saved(cloud, launch)
    assert saved_again(cloud) == id_
    (image,) = cloud.images()
    assert (image.id, image.digest, image.state, image.login) == (id_, "d1", "available", "ubuntu")
    assert image.disk == 30
    assert image.labels["clusterkit-id"] == ID
    assert "image" not in {one.kind for one in cloud.resources(ID)}
    made = cloud.launch(launch(image=id_))
    assert {one.image for one in made} == {id_}
    cloud.remove_image(image)
    assert cloud.images() == []
    assert not any(one.startswith(("image", "snapshot")) for one in aws.left())
    cloud.remove_image(image)


def saved_again(cloud: Ec2Cloud) -> str:
    (one,) = cloud.instances(ID)
    return cloud.save_image(one, "clusterkit-c-x86_64", {**LABELS, DIGEST: "d1", LOGIN: "ubuntu"})


def test_the_name_of_somebody_elses_image(cloud: Ec2Cloud, launch: Callable[..., Launch]) -> None:
    saved(cloud, launch)
    (one,) = cloud.instances(ID)
    with pytest.raises(ClusterError, match="not this cluster's"):
        cloud.save_image(one, "clusterkit-c-x86_64", {**LABELS, "clusterkit-id": "b" * 16})


def test_a_removal_that_was_cut_off_leaves_nothing_unseen(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    saved(cloud, launch)
    (image,) = cloud.images()
    aws.fault("DeleteSnapshot", "expired")
    with pytest.raises(ClusterError, match="aws sso login"):
        cloud.remove_image(image)
    (rest,) = cloud.images()
    assert rest.state == "leftover"
    assert rest.labels["clusterkit-id"] == ID
    cloud.remove_image(rest)
    assert cloud.images() == []
    assert not any(one.startswith("snapshot") for one in aws.left())


def test_what_is_gone_may_be_refused_by_a_policy_on_labels(
    cloud: Ec2Cloud, aws: Aws, launch: Callable[..., Launch]
) -> None:
    """It has none any more. What is there and must not be deleted is an error all the same."""
    cloud.launch(launch())
    there = next(one for one in cloud.resources(ID) if one.kind == "volume")
    aws.fault("DeleteVolume", "denied", times=None)
    assert cloud.delete(replace(there, id="vol-0123456789abcdef0")) == ""
    with pytest.raises(ApiError, match="lack the permission ec2:DeleteVolume"):
        cloud.delete(there)


# -- bad days -------------------------------------------------------------------------------------


def test_throttling_for_a_while_is_obeyed_and_told_once(asked: Asked, aws: Aws) -> None:
    aws.fault("*", "throttle", times=7)
    assert asked.cloud.account() == "123456789012"
    assert asked.cloud.instances(ID) == []
    aws.fault("*", "throttle", times=2)
    assert asked.cloud.instances(ID) == []
    assert len(asked.said) == 1
    assert "slow down" in asked.said[0]
    first = asked.pauses[:7]
    assert sum(first) > 30  # more and more slowly
    assert first[-1] > first[0]


def test_throttling_without_end_is_an_error(asked: Asked, aws: Aws) -> None:
    aws.fault("DescribeInstances", "throttle", times=None)
    with pytest.raises(ClusterError, match="RequestLimitExceeded"):
        asked.cloud.instances(ID)
    assert 170 < sum(asked.pauses) <= 181
    assert aws.count("DescribeInstances") < 40


def test_throttling_of_a_launch(asked: Asked, aws: Aws, launch: Callable[..., Launch]) -> None:
    aws.fault("RunInstances", "throttle", times=5)
    assert len(asked.cloud.launch(launch())) == 2
    assert len(live(aws)) == 2


@pytest.mark.parametrize("what", ["unavailable", "internal", "cut"])
def test_trouble_that_passes(asked: Asked, aws: Aws, what: str) -> None:
    aws.fault("DescribeInstances", what, times=2)
    assert asked.cloud.instances(ID) == []
    assert len(asked.pauses) == 2


def test_trouble_that_stays_is_told(asked: Asked, aws: Aws) -> None:
    aws.fault("DescribeInstances", "cut", times=None)
    with pytest.raises(ClusterError, match=r"did not answer DescribeInstances.*it goes on"):
        asked.cloud.instances(ID)
    assert 25 < sum(asked.pauses) <= 31


def test_nobody_answers(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        asked = Asked()
        with pytest.raises(ClusterError, match="did not answer GetCallerIdentity"):
            asked.cloud.account()
        assert 0 < sum(asked.pauses) <= 2  # there is no network: that is said soon
        asked.pauses.clear()
        with pytest.raises(ClusterError, match="did not answer GetCallerIdentity"):
            asked.cloud.account()
        assert asked.pauses == []


def test_a_network_that_goes_away_meanwhile_is_waited_for(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.cloud.account()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(ClusterError, match="did not answer DescribeInstances"):
            asked.cloud.instances(ID)
    assert 25 < sum(asked.pauses) <= 31


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("expired", "Renew them"),
        ("AuthFailure", "does not accept these credentials"),
        ("denied", "lack the permission ec2:DescribeInstances"),
        ("OptInRequired", "billing"),
    ],
)
def test_credentials_that_do_not_do(asked: Asked, aws: Aws, what: str, expected: str) -> None:
    aws.fault("DescribeInstances", what)
    with pytest.raises(ApiError, match=expected):
        asked.cloud.instances(ID)
    assert asked.pauses == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"AWS_ACCESS_KEY_ID": "somebody"}, "does not accept these credentials"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, "does not accept these credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials for AWS"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "incomplete"),
    ],
)
def test_wrong_and_missing_credentials(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str], expected: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(ClusterError, match=expected) as caught:
        Asked().cloud.account()
    assert "hunter2" not in str(caught.value)  # the secret is in no message


def test_regions(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client("eu-central-1").region == "eu-central-1"
    with pytest.raises(UsageError, match=r"us-est-1 is no region.*near are: us-.*east-1"):
        Client("us-est-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")  # as AWS's own command line does it
    assert Client().region == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    assert Client().region == "us-east-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UsageError, match="`region:`"):
        Client()


def test_a_profile_that_is_not_there(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[profile work]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert Client(profile="work").region == "eu-north-1"
    with pytest.raises(UsageError, match=r"wrok.*There are: work"):
        Client(profile="wrok")


def test_boto3_is_imported_when_aws_is_asked_and_not_before() -> None:
    code = (
        "import sys\n"
        "import clusterkit.cluster.providers.ec2.cloud, clusterkit.cli.main\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ClusterError, match=r"pip install 'clusterkit\[ec2\]'"):
        Client("us-east-1")
