"""The request for machines: everything that AWS is told in the one call that makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clusterkit.cluster.cloud.api import Candidate, Launch, Refused
from clusterkit.cluster.providers.ec2 import launches

SITE = {
    "key": "clusterkit-c",
    "group": "sg-1",
    "placement": "clusterkit-c",
    "subnet z-a": "subnet-1",
}
LAUNCH = Launch(
    token="t" * 32,
    group="gpu",
    numbers=(1, 2, 5),
    least=2,
    candidate=Candidate("g5.xlarge", "z-a", "on-demand"),
    image="ami-1",
    disk=30,
    user_data="#cloud-config\n{}\n",
    labels={"clusterkit-cluster": "c", "clusterkit-id": "a" * 16},
    site=SITE,
)


def asked(**changes: Any) -> dict[str, Any]:
    return launches.request(replace(LAUNCH, **changes), "/dev/sda1")


def test_one_call_for_a_group_with_its_token() -> None:
    found = asked()
    assert (found["MinCount"], found["MaxCount"]) == (2, 3)
    assert found["ClientToken"] == "t" * 32
    assert found == asked()  # sent again it is the same, or AWS would refuse its token
    assert (found["SubnetId"], found["SecurityGroupIds"]) == ("subnet-1", ["sg-1"])
    assert "Placement" not in found
    assert "InstanceMarketOptions" not in found


def test_a_machine_keeps_no_secrets_and_can_end_itself() -> None:
    found = asked()
    assert found["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "IamInstanceProfile" not in found


def test_the_disk_goes_with_its_machine() -> None:
    (disk,) = asked()["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/sda1"
    assert disk["Ebs"] == {"VolumeType": "gp3", "VolumeSize": 30, "DeleteOnTermination": True}


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_everything_is_labelled_by_the_call_that_makes_it(market: Any) -> None:
    found = asked(candidate=Candidate("g5.xlarge", "z-a", market))
    kinds = {one["ResourceType"]: one["Tags"] for one in found["TagSpecifications"]}
    expected = {"instance", "volume", "network-interface"}
    assert set(kinds) == (expected | {"spot-instances-request"} if market == "spot" else expected)
    for tags in kinds.values():
        labels = {one["Key"]: one["Value"] for one in tags}
        assert labels["clusterkit-id"] == "a" * 16
        assert labels["clusterkit-launch"] == "t" * 32
        assert labels["Name"] == "c-gpu"


def test_spot_is_asked_for_once_and_ends() -> None:
    found = asked(candidate=Candidate("g5.xlarge", "z-a", "spot"))
    options = found["InstanceMarketOptions"]
    assert options["MarketType"] == "spot"
    assert options["SpotOptions"]["SpotInstanceType"] == "one-time"
    assert options["SpotOptions"]["InstanceInterruptionBehavior"] == "terminate"


def test_close_together_where_wished() -> None:
    assert asked(placement=True)["Placement"] == {"GroupName": "clusterkit-c"}


def test_a_subnet_that_gives_no_public_addresses_is_told_to() -> None:
    found = asked(site={**SITE, "address z-a": "public"})
    (card,) = found["NetworkInterfaces"]
    assert card["AssociatePublicIpAddress"] is True
    assert (card["SubnetId"], card["Groups"]) == ("subnet-1", ["sg-1"])
    assert "SubnetId" not in found  # AWS refuses both at once
    assert "SecurityGroupIds" not in found


def test_a_zone_without_a_subnet_is_a_refusal_of_that_candidate() -> None:
    with pytest.raises(Refused, match="no subnet for the cluster in z-b"):
        asked(candidate=Candidate("g5.xlarge", "z-b", "spot"))
