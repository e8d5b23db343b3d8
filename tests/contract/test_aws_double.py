"""The double of AWS, asked by boto3: that it refuses what AWS refuses, and does what AWS does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from doubles.aws import Aws

KEY = (
    "ssh-ed25519 "
    "AAAAC3NzaC1lZDI1NTE5AAAAIJ9S0gCHyDNmsPDMt0RcsUmTrLkWz0E7R7CXNh8Dyk0Q someone@somewhere"
)
TAGS = [{"Key": "clusterkit-id", "Value": "abc"}]


@pytest.fixture
def aws() -> Iterator[Aws]:
    with Aws() as made:
        made.boot_time = made.stop_time = made.end_time = made.image_time = 0.0
        yield made


def client(
    aws: Aws, service: str = "ec2", key: str = "testing", secret: str = "testing", **more: Any
) -> Any:
    more.setdefault("region_name", "us-east-1")
    return boto3.client(
        service,
        endpoint_url=aws.url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=5),
        **more,
    )


@pytest.fixture
def ec2(aws: Aws) -> Any:
    return client(aws)


def image(aws: Aws, arch: str = "amd64") -> str:
    name = f"/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
    return str(client(aws, "ssm").get_parameter(Name=name)["Parameter"]["Value"])


def run(
    aws: Aws, count: int = 1, least: int | None = None, spot: bool = False, **more: Any
) -> list[Any]:
    more.setdefault("InstanceType", "t3.medium")
    more.setdefault("ImageId", image(aws))
    if spot:
        more["InstanceMarketOptions"] = {"MarketType": "spot"}
    made = client(aws).run_instances(MinCount=least or count, MaxCount=count, **more)
    return list(made["Instances"])


def tagged(*kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": TAGS} for kind in kinds]


def refused(code: str) -> Any:
    """The call inside is refused with just this code."""
    return pytest.raises(ClientError, match=rf"\({code}\)")


def states(ec2: Any) -> dict[str, str]:
    found = ec2.describe_instances()["Reservations"]
    return {one["InstanceId"]: one["State"]["Name"] for each in found for one in each["Instances"]}


# -- launching -------------------------------------------------------------------------------------


def test_a_launch_whole(aws: Aws, ec2: Any) -> None:
    aws.boot_time = 60
    ec2.import_key_pair(KeyName="k", PublicKeyMaterial=KEY.encode())
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    kinds = ("instance", "volume", "network-interface", "spot-instances-request")
    subnet = ec2.describe_subnets(
        Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}]
    )["Subnets"][0]
    made = run(
        aws, 3, spot=True, KeyName="k", SecurityGroupIds=[group], SubnetId=subnet["SubnetId"],
        TagSpecifications=tagged(*kinds), UserData="#cloud-config\n",
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 40, "VolumeType": "gp3"}}
        ],
    )  # fmt: skip
    assert [one["AmiLaunchIndex"] for one in made] == [0, 1, 2]
    assert {one["State"]["Name"] for one in made} == {"pending"}
    aws.boot_time = 0
    ids = [one["InstanceId"] for one in made]
    shown = ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"]
    first = shown[0]
    assert first["InstanceLifecycle"] == "spot"
    assert first["MetadataOptions"]["HttpTokens"] == "required"
    assert first["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert first["PrivateIpAddress"].startswith("172.31.16.")
    assert first["Tags"] == TAGS
    volumes = ec2.describe_volumes(Filters=[{"Name": "tag:clusterkit-id", "Values": ["abc"]}])
    assert {(one["Size"], one["VolumeType"], one["State"]) for one in volumes["Volumes"]} == {
        (40, "gp3", "in-use")
    }
    assert volumes["Volumes"][0]["Attachments"][0]["DeleteOnTermination"] is True
    found = ec2.describe_network_interfaces(
        Filters=[{"Name": "tag:clusterkit-id", "Values": ["abc"]}]
    )
    assert len(found["NetworkInterfaces"]) == 3
    requests = ec2.describe_spot_instance_requests(
        Filters=[{"Name": "tag-key", "Values": ["clusterkit-id"]}]
    )["SpotInstanceRequests"]
    assert {one["InstanceId"] for one in requests} == set(ids)
    assert {one["State"] for one in requests} == {"active"}
    assert len(aws.left()) == 3 * 4


def test_a_token_makes_machines_once(aws: Aws, ec2: Any) -> None:
    before = run(aws, 2, ClientToken="t")
    again = run(aws, 2, ClientToken="t")
    ids = [one["InstanceId"] for one in before]
    assert [one["InstanceId"] for one in again] == ids
    assert {one["State"]["Name"] for one in again} == {"running"}, "its present state"
    with refused("IdempotentParameterMismatch"):
        run(aws, 3, ClientToken="t")
    ec2.terminate_instances(InstanceIds=ids)
    states(ec2)
    with refused("IdempotentInstanceTerminated"):
        run(aws, 2, ClientToken="t")
    assert len(states(ec2)) == 2


def test_a_token_used_at_the_same_time(aws: Aws) -> None:
    image(aws)
    found: list[Any] = []
    gate = threading.Barrier(4)

    def launch() -> None:
        gate.wait()
        found.append(run(aws, 2, ClientToken="t")[0]["InstanceId"])

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 1
    assert len(aws.things("instance")) == 2


def test_capacity(aws: Aws, ec2: Any) -> None:
    aws.capacity["g5.xlarge", "us-east-1a", "on-demand"] = 2
    with pytest.raises(ClientError) as caught:
        run(aws, 3, InstanceType="g5.xlarge")
    assert caught.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "sufficient g5.xlarge capacity" in str(caught.value)
    assert states(ec2) == {}
    made = run(aws, 3, least=1, InstanceType="g5.xlarge")
    assert len(made) == 2
    with refused("InsufficientInstanceCapacity"):
        run(aws, 1, InstanceType="g5.xlarge")
    assert run(aws, 1, spot=True, InstanceType="g5.xlarge"), "another market"
    ec2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])
    assert run(aws, 1, InstanceType="g5.xlarge"), "one is free again"
    aws.capacity["*", "us-east-1a", "spot"] = 0
    with pytest.raises(ClientError, match="There is no Spot capacity available"):
        run(aws, 1, spot=True)


def test_what_a_zone_lacks(aws: Aws, ec2: Any) -> None:
    aws.lacks.add(("g5.xlarge", "us-east-1a"))
    with pytest.raises(ClientError, match=r"\(Unsupported\).*not supported in your requested"):
        run(aws, InstanceType="g5.xlarge", Placement={"AvailabilityZone": "us-east-1a"})
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": ["g5.xlarge"]}],
    )["InstanceTypeOfferings"]
    zones = {one["Location"] for one in offered}
    assert "us-east-1a" not in zones
    assert "us-east-1b" in zones


def test_quotas(aws: Aws) -> None:
    aws.quotas["L-DB2E81BA"] = 8
    run(aws, 1, InstanceType="g5.xlarge")
    with pytest.raises(ClientError, match=r"\(VcpuLimitExceeded\).*current vCPU limit of 8 allows"):
        run(aws, 2, least=1, InstanceType="g4dn.xlarge")
    run(aws, 1, InstanceType="g4dn.xlarge")
    aws.quotas["L-3819A6DF"] = 0
    with refused("MaxSpotInstanceCountExceeded"):
        run(aws, 1, spot=True, InstanceType="g5.xlarge")
    quotas = client(aws, "service-quotas")
    said = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]
    assert (said["Value"], said["QuotaName"]) == (8, "Running On-Demand G and VT instances")
    with refused("NoSuchResourceException"):
        quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")
    listed = quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]
    assert "L-1216C47A" in {one["QuotaCode"] for one in listed}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "x9.huge"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.medium"}, "InvalidParameterValue"),  # another make of processor
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"Placement": {"GroupName": "nowhere"}}, "InvalidPlacementGroup.Unknown"),
        ({"TagSpecifications": tagged("spot-instances-request")}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged("key-pair")}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 4}}]},
            "InvalidBlockDeviceMapping",
        ),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_launches_that_are_refused(aws: Aws, more: dict[str, Any], code: str) -> None:
    with refused(code):
        run(aws, **more)
    assert aws.things("instance") == []
    assert aws.things("volume") == []


# -- life ------------------------------------------------------------------------------------------


def test_life_of_a_machine(aws: Aws, ec2: Any) -> None:
    one = run(aws)[0]
    id_, public = one["InstanceId"], one["PublicIpAddress"]
    assert states(ec2) == {id_: "running"}
    with refused("IncorrectInstanceState"):
        ec2.modify_instance_attribute(InstanceId=id_, UserData={"Value": b"new"})
    aws.stop_time = 60
    ec2.stop_instances(InstanceIds=[id_])
    assert states(ec2) == {id_: "stopping"}
    with aws.lock:
        aws.world().things["instance"][id_]["_due"][1]()
    shown = ec2.describe_instances()["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "stopped"
    assert "PublicIpAddress" not in shown
    ec2.modify_instance_attribute(InstanceId=id_, UserData={"Value": b"new"})
    said = ec2.describe_instance_attribute(InstanceId=id_, Attribute="userData")
    assert said["UserData"]["Value"] == "bmV3"
    ec2.start_instances(InstanceIds=[id_])
    shown = ec2.describe_instances()["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "running"
    assert shown["PublicIpAddress"] != public
    assert shown["PrivateIpAddress"] == one["PrivateIpAddress"]
    ec2.terminate_instances(InstanceIds=[id_])
    shown = ec2.describe_instances()["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "terminated"
    assert shown["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert ec2.describe_volumes()["Volumes"] == []
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[id_])
    ec2.terminate_instances(InstanceIds=[id_])
    aws.gone_after = 0
    other = run(aws)[0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[other])
    states(ec2)
    assert list(states(ec2)) == [id_]
    with refused("InvalidInstanceID.NotFound"):
        ec2.terminate_instances(InstanceIds=[other])


def test_spot_machines(aws: Aws, ec2: Any) -> None:
    one, other = (one["InstanceId"] for one in run(aws, 2, spot=True))
    with pytest.raises(ClientError, match="You can't stop the Spot Instance"):
        ec2.stop_instances(InstanceIds=[one])
    aws.take_away(one)
    states(ec2)
    shown = ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "terminated"
    assert shown["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    requests = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert {each["InstanceId"]: each["State"] for each in requests} == {
        one: "closed",
        other: "active",
    }
    aws.shut_itself_down(other)
    assert set(states(ec2).values()) <= {"shutting-down", "terminated"}
    with pytest.raises(ClientError, match=r"\(SpotMaxPriceTooLow\)"):
        ec2.run_instances(
            MinCount=1, MaxCount=1, ImageId=image(aws), InstanceType="g5.xlarge",
            InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0001"}},
        )  # fmt: skip


# -- names, doors, dependencies --------------------------------------------------------------------


def test_key_pairs(aws: Aws, ec2: Any) -> None:
    made = ec2.import_key_pair(
        KeyName="k", PublicKeyMaterial=KEY.encode(), TagSpecifications=tagged("key-pair")
    )
    with refused("InvalidKeyPair.Duplicate"):
        ec2.import_key_pair(KeyName="k", PublicKeyMaterial=KEY.encode())
    with refused("InvalidKey.Format"):
        ec2.import_key_pair(KeyName="l", PublicKeyMaterial=b"no key")
    shown = ec2.describe_key_pairs(KeyNames=["k"], IncludePublicKey=True)["KeyPairs"][0]
    assert (shown["Tags"], shown["PublicKey"]) == (TAGS, KEY)
    with refused("InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyNames=["other"])
    ec2.delete_key_pair(KeyPairId=made["KeyPairId"])
    ec2.delete_key_pair(KeyName="k")  # not there: no error


def test_security_groups(aws: Aws, ec2: Any) -> None:
    made = ec2.create_security_group(
        GroupName="g", Description="d", TagSpecifications=tagged("security-group")
    )
    id_ = made["GroupId"]
    with refused("InvalidGroup.Duplicate"):
        ec2.create_security_group(GroupName="g", Description="d")
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    one = {**ssh, "IpRanges": [{"CidrIp": "203.0.113.9/32", "Description": "mine"}]}
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": id_}]}
    ec2.authorize_security_group_ingress(GroupId=id_, IpPermissions=[one, inside])
    with pytest.raises(ClientError, match=r"InvalidPermission.Duplicate.*203.0.113.9/32, TCP"):
        ec2.authorize_security_group_ingress(GroupId=id_, IpPermissions=[one])
    with refused("InvalidParameterValue"):
        wrong = {**ssh, "IpRanges": [{"CidrIp": "203.0.113.9/99"}]}
        ec2.authorize_security_group_ingress(GroupId=id_, IpPermissions=[wrong])
    shown = ec2.describe_security_groups(
        Filters=[{"Name": "tag:clusterkit-id", "Values": ["a?c"]}]
    )["SecurityGroups"][0]
    assert shown["Tags"] == TAGS
    door = next(each for each in shown["IpPermissions"] if each["IpProtocol"] == "tcp")
    assert door["IpRanges"] == one["IpRanges"]
    ec2.revoke_security_group_ingress(GroupId=id_, IpPermissions=[one])
    with refused("InvalidPermission.NotFound"):
        ec2.revoke_security_group_ingress(GroupId=id_, IpPermissions=[one])
    machine = run(aws, SecurityGroupIds=[id_])[0]["InstanceId"]
    aws.end_time = 60
    ec2.terminate_instances(InstanceIds=[machine])
    with pytest.raises(ClientError, match=r"DependencyViolation.*has a dependent object"):
        ec2.delete_security_group(GroupId=id_)
    with aws.lock:
        aws.world().things["instance"][machine]["_due"][1]()
    aws.refuse("DeleteSecurityGroup", times=2)
    for _ in range(2):
        with refused("DependencyViolation"):
            ec2.delete_security_group(GroupId=id_)
    ec2.delete_security_group(GroupId=id_)
    with refused("InvalidGroup.NotFound"):
        ec2.delete_security_group(GroupId=id_)
    assert aws.left() == []


def test_placement_groups(aws: Aws, ec2: Any) -> None:
    said = {"GroupName": "p", "Strategy": "cluster"}
    ec2.create_placement_group(**said, TagSpecifications=tagged("placement-group"))
    with refused("InvalidPlacementGroup.Duplicate"):
        ec2.create_placement_group(**said)
    with pytest.raises(ClientError, match=r"not supported by the 't3\.medium' instance type"):
        run(aws, Placement={"GroupName": "p"})
    one = run(aws, Placement={"GroupName": "p"}, InstanceType="c5.large")[0]
    assert one["Placement"]["GroupName"] == "p"
    with refused("InvalidPlacementGroup.InUse"):
        ec2.delete_placement_group(GroupName="p")
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    ec2.delete_placement_group(GroupName="p")
    with refused("InvalidPlacementGroup.Unknown"):
        ec2.describe_placement_groups(GroupNames=["p"])


def test_volumes_and_images(aws: Aws, ec2: Any) -> None:
    machine = run(aws)[0]["InstanceId"]
    volume = ec2.describe_volumes()["Volumes"][0]["VolumeId"]
    with refused("VolumeInUse"):
        ec2.delete_volume(VolumeId=volume)
    states(ec2)
    ec2.stop_instances(InstanceIds=[machine])
    states(ec2)
    aws.image_time = 60
    made = ec2.create_image(
        InstanceId=machine, Name="mine", TagSpecifications=tagged("image", "snapshot")
    )["ImageId"]
    with refused("InvalidAMIName.Duplicate"):
        ec2.create_image(InstanceId=machine, Name="mine")
    with refused("InvalidAMIID.Unavailable"):
        run(aws, ImageId=made)
    with aws.lock:
        aws.world().things["image"][made]["_due"][1]()
    shown = ec2.describe_images(Owners=["self"])["Images"]
    assert [(one["ImageId"], one["State"], one["Tags"]) for one in shown] == [
        (made, "available", TAGS)
    ]
    snapshot = shown[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"][0]["Tags"] == TAGS
    with refused("InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot)
    assert run(aws, ImageId=made)
    ec2.deregister_image(ImageId=made)
    ec2.delete_snapshot(SnapshotId=snapshot)
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[made])
    with refused("AuthFailure"):
        ec2.deregister_image(ImageId=image(aws))


def test_public_images(aws: Aws, ec2: Any) -> None:
    newest = ec2.describe_images(
        Owners=["099720109477"],
        Filters=[
            {"Name": "name", "Values": ["ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-amd64-server-*"]}
        ],
    )["Images"]
    assert len(newest) == 2
    assert max(newest, key=lambda one: one["CreationDate"])["ImageId"] == image(aws)
    ssm = client(aws, "ssm")
    deb, nothing = "/aws/service/debian/release/13/latest/arm64", "/aws/service/nothing"
    said = ssm.get_parameters(Names=[deb, nothing])
    assert said["InvalidParameters"] == [nothing]
    shown = ec2.describe_images(ImageIds=[said["Parameters"][0]["Value"]])["Images"][0]
    assert (shown["OwnerId"], shown["Architecture"]) == ("136693071363", "arm64")
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name=nothing)


def test_tags_can_be_changed(aws: Aws, ec2: Any) -> None:
    id_ = run(aws, TagSpecifications=tagged("instance"))[0]["InstanceId"]
    ec2.create_tags(Resources=[id_], Tags=[{"Key": "a", "Value": "b"}])
    ec2.delete_tags(Resources=[id_], Tags=[{"Key": "clusterkit-id"}])
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [id_]}])["Tags"]
    assert [(one["Key"], one["Value"]) for one in found] == [("a", "b")]
    with refused("InvalidParameterValue"):
        ec2.create_tags(Resources=[id_], Tags=[{"Key": "aws:x", "Value": "b"}])


# -- prices ----------------------------------------------------------------------------------------


def test_prices(aws: Aws, ec2: Any) -> None:
    pricing = client(aws, "pricing")
    wanted = {
        "instanceType": "g5.xlarge", "regionCode": "eu-central-1", "operatingSystem": "Linux",
        "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
    }  # fmt: skip
    said = [{"Type": "TERM_MATCH", "Field": key, "Value": one} for key, one in wanted.items()]
    found = pricing.get_products(ServiceCode="AmazonEC2", Filters=said)
    assert len(found["PriceList"]) == 1
    (term,) = json.loads(found["PriceList"][0])["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert (dimension["unit"], float(dimension["pricePerUnit"]["USD"])) == ("Hrs", 1.2575)
    everything = pricing.get_products(ServiceCode="AmazonEC2", Filters=said[1:2])
    assert len(everything["PriceList"]) == 100
    assert everything["NextToken"]
    history = ec2.describe_spot_price_history(
        InstanceTypes=["g5.xlarge"], ProductDescriptions=["Linux/UNIX"]
    )["SpotPriceHistory"]
    assert {one["AvailabilityZone"] for one in history} >= {"us-east-1a", "us-east-1b"}
    assert history[0]["Timestamp"] >= history[-1]["Timestamp"]


# -- bad days --------------------------------------------------------------------------------------


def test_what_is_new_is_unknown_for_a_while(aws: Aws, ec2: Any) -> None:
    aws.lag = 2
    id_ = run(aws, TagSpecifications=tagged("instance"))[0]["InstanceId"]
    assert states(ec2) == {}
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[id_])
    assert states(ec2) == {id_: "running"}


def test_faults(aws: Aws, ec2: Any) -> None:
    aws.fault("DescribeInstances", "throttle", times=2, after=1)
    states(ec2)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            states(ec2)
        assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    states(ec2)
    aws.fault("*", "expired")
    with refused("RequestExpired"):
        states(ec2)
    aws.fault("sts:*", "expired")
    with refused("ExpiredToken"):
        client(aws, "sts").get_caller_identity()
    aws.fault("StopInstances", "PendingVerification")
    with refused("PendingVerification"):
        ec2.stop_instances(InstanceIds=["i-00000000000000000"])


def test_connections_that_are_cut(aws: Aws, ec2: Any) -> None:
    id_ = image(aws)
    said = {"MinCount": 1, "MaxCount": 1, "ImageId": id_, "InstanceType": "t3.micro"}
    aws.fault("RunInstances", "cut")
    with pytest.raises(HTTPClientError):
        ec2.run_instances(**said, ClientToken="a")
    assert states(ec2) == {}
    aws.fault("RunInstances", "lost")
    with pytest.raises(HTTPClientError):
        ec2.run_instances(**said, ClientToken="b")
    assert len(states(ec2)) == 1
    ec2.run_instances(**said, ClientToken="b")
    assert len(states(ec2)) == 1
    outcomes = [one.outcome for one in aws.calls if one.action == "RunInstances"]
    assert outcomes == ["cut", "lost", "ok"]


@pytest.mark.parametrize("effect", ["before", "after"])
def test_a_call_that_is_held(aws: Aws, ec2: Any, effect: Any) -> None:
    states(ec2)
    hold = aws.hold(2, effect)
    states(ec2)
    assert not hold.reached.is_set()

    def ask() -> None:
        with pytest.raises(HTTPClientError):
            ec2.import_key_pair(KeyName="k", PublicKeyMaterial=KEY.encode())

    thread = threading.Thread(target=ask)
    thread.start()
    assert hold.reached.wait(10)
    assert hold.action == "ec2:ImportKeyPair"
    hold.release(drop=True)
    thread.join(10)
    assert len(aws.things("key-pair")) == (1 if effect == "after" else 0)


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", "describe_instances", "AuthFailure"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("service-quotas", "list_services", "UnrecognizedClientException"),
    ],
)
def test_unknown_credentials(aws: Aws, service: str, call: str, code: str) -> None:
    with refused(code):
        getattr(client(aws, service, key="AKIASOMEBODY"), call)()


def test_wrong_secret_and_other_accounts(aws: Aws) -> None:
    with refused("AuthFailure"):
        client(aws, secret="wrong").describe_instances()
    with refused("SignatureDoesNotMatch"):
        client(aws, "sts", secret="wrong").get_caller_identity()
    aws.credentials["other"] = ("secret", "210987654321")
    them = client(aws, "sts", "other", "secret").get_caller_identity()
    assert them["Account"] == "210987654321"
    run(aws)
    assert states(client(aws, key="other", secret="secret")) == {}


def test_regions_are_apart(aws: Aws, ec2: Any) -> None:
    run(aws)
    assert states(client(aws, region_name="eu-central-1")) == {}
    with refused("AuthFailure"):
        client(aws, region_name="xx-nowhere-1").describe_instances()


def test_permissions(aws: Aws, ec2: Any) -> None:
    aws.allowed = {"ec2:Describe*", "ec2:CreateSecurityGroup"}
    states(ec2)
    ec2.create_security_group(GroupName="g", Description="d")
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateTags"):
        ec2.create_security_group(
            GroupName="h", Description="d", TagSpecifications=tagged("security-group")
        )
    with pytest.raises(ClientError, match="perform: ec2:TerminateInstances"):
        ec2.terminate_instances(InstanceIds=["i-00000000000000000"])


def test_parameters_are_checked(aws: Aws) -> None:
    """As AWS does; botocore's own checks are off here."""
    lenient = boto3.client(
        "ec2", endpoint_url=aws.url, region_name="us-east-1", aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with pytest.raises(ClientError, match=r"MissingParameter.*MaxCount"):
        lenient.run_instances(MinCount=1)
    with refused("InvalidParameterValue"):
        lenient.run_instances(MinCount="many", MaxCount=1)
    lenient.meta.events.register(
        "before-call.ec2", lambda params, **_: params["body"].update(Surprise="1")
    )
    with pytest.raises(ClientError, match=r"UnknownParameter.*Surprise"):
        lenient.describe_instances()
    with refused("InvalidParameterValue"):
        client(aws).describe_instances(Filters=[{"Name": "no-such-filter", "Values": ["x"]}])


def test_calls_are_recorded(aws: Aws, ec2: Any) -> None:
    run(aws, TagSpecifications=tagged("instance"))
    states(ec2)
    assert aws.count("RunInstances") == 1
    assert aws.counts()["ec2:DescribeInstances"] == 1
    assert aws.actions() == {
        "ec2:RunInstances", "ec2:DescribeInstances", "ec2:CreateTags", "ssm:GetParameter",
    }  # fmt: skip
    call = next(one for one in aws.calls if one.action == "RunInstances")
    assert (call.outcome, call.params["MaxCount"]) == ("ok", 1)


def test_what_moto_answers(aws: Aws, ec2: Any) -> None:
    types = ec2.describe_instance_types(InstanceTypes=["g5.xlarge"])["InstanceTypes"]
    assert types[0]["GpuInfo"]["Gpus"][0]["Name"] == "A10G"
    with refused("InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["x9.huge"])
    assert ec2.describe_addresses()["Addresses"] == []
    assert "us-east-1" in {one["RegionName"] for one in ec2.describe_regions()["Regions"]}
