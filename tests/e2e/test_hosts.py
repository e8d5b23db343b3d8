"""The double of AWS with real machines behind it: what the API says is what ssh finds."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import project as here
import pytest
from doubles.aws import Aws
from doubles.hosts import Hosts

from clusterkit.cluster.nspawn import network
from clusterkit.errors import ClusterError

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

KIND = {"ResourceType": "instance", "Tags": [{"Key": "clusterkit-id", "Value": "abc"}]}
ID = "d0b1e000"  # where the search for a free range begins
DEBIAN = "/aws/service/debian/release/12/latest/amd64"


class Lab:
    """A double, its hosts, a client of it, a key."""

    def __init__(self, aws: Aws, hosts: Hosts, key: Path) -> None:
        self.aws, self.hosts, self.key = aws, hosts, key
        said = {"endpoint_url": aws.url, "region_name": "us-east-1"}
        said |= {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        self.ec2: Any = boto3.client("ec2", **said)
        ssm: Any = boto3.client("ssm", **said)
        self.group = self.ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
        mine = f"{hosts.net.gateway}/32"
        self.door = [
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": mine}]}
        ]
        inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]}
        self.ec2.authorize_security_group_ingress(
            GroupId=self.group, IpPermissions=[*self.door, inside]
        )
        self.image = ssm.get_parameter(Name=DEBIAN)["Parameter"]["Value"]

    def run(self, count: int = 1, wait: bool = True, **more: Any) -> list[Any]:
        public = Path(f"{self.key}.pub").read_text().strip()
        said = {"ImageId": self.image, "InstanceType": "t3.medium"}
        said |= {"UserData": self.user_data(ssh_authorized_keys=[public])}
        said |= {"SecurityGroupIds": [self.group]}
        said |= {"InstanceInitiatedShutdownBehavior": "terminate", "TagSpecifications": [KIND]}
        said |= more
        made = list(self.ec2.run_instances(MinCount=count, MaxCount=count, **said)["Instances"])
        if wait:
            self.booted(made)
        return made

    def user_data(self, **more: Any) -> str:
        """A #cloud-config with the host key that all machines here have, and is believed."""
        private, public = (Path(f"{self.key}.{one}").read_text() for one in ("host", "host.pub"))
        keys = {"ed25519_private": private, "ed25519_public": public}
        return "#cloud-config\n" + json.dumps(
            {"ssh_keys": keys, "ssh_deletekeys": True, "ssh_genkeytypes": [], **more}
        )

    def booted(self, made: list[Any]) -> None:
        for one in made:
            self.until(one["InstanceId"], "running")
            self.hosts.host(one["InstanceId"]).wait(here.PATIENCE)

    def shown(self, id_: str) -> Any:
        found = self.ec2.describe_instances(InstanceIds=[id_])
        return found["Reservations"][0]["Instances"][0]

    def until(self, id_: str, state: str) -> None:
        here.until(lambda: self.shown(id_)["State"]["Name"] == state, f"{id_} {state}")

    def ssh(self, address: str, command: str) -> str:
        argv = ["ssh", "-F", "none", "-i", str(self.key), "-o", "StrictHostKeyChecking=yes"]
        argv += ["-o", f"UserKnownHostsFile={self.key}.known", "-o", "BatchMode=yes"]
        argv += ["-o", "LogLevel=ERROR", f"admin@{address}", command]
        heard: list[subprocess.CompletedProcess[str]] = []

        def logged_in() -> bool:  # sshd answers before cloud-init has brought the key
            heard[:] = [
                subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            ]
            return heard[0].returncode != 255

        here.until(logged_in, f"ssh to {address}")
        assert heard[0].returncode == 0, heard[0].stderr
        return heard[0].stdout.strip()


@pytest.fixture(scope="module")
def lab(spot: Path) -> Iterator[Lab]:
    key = spot / "key"
    for file in (key, f"{key}.host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    Path(f"{key}.known").write_text("* " + Path(f"{key}.host.pub").read_text())
    hosts = Hosts(here.IMAGES, range=str(network.choose(ID)))
    with Aws(hosts) as aws:
        yield Lab(aws, hosts, key)
    assert here.remains(hosts.id) == []
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert hosts.id not in listed.stdout


def test_machines_and_doors_are_what_the_api_says(lab: Lab) -> None:
    """Three machines: two with a GPU, and a stranger of another group, which a spot market lends.

    A machine that no rule lets in is silent: to this one, and to those of other groups.
    """
    other = lab.ec2.create_security_group(GroupName="h", Description="d")["GroupId"]
    lab.ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=lab.door)
    market = {"MarketType": "spot"}
    (stranger,) = lab.run(SecurityGroupIds=[other], InstanceMarketOptions=market, wait=False)
    one, two = lab.run(2, InstanceType="g4dn.xlarge")
    lab.booted([stranger])
    address, there = one["PrivateIpAddress"], two["PrivateIpAddress"]
    ids = [each["InstanceId"] for each in (one, two, stranger)]

    name = lab.ssh(address, "hostname")
    assert name == f"ip-{address.replace('.', '-')}"
    assert lab.ssh(address, "nvidia-smi --query-gpu=index,name,memory.total") == (
        "0, Tesla T4, 16384"
    )
    lab.ssh(address, "echo seen | sudo tee /home/word")
    assert lab.ssh(there, "cat /home/word") == "seen", "/home is shared"
    lab.ssh(there, f"timeout 5 bash -c 'echo > /dev/tcp/{address}/22'")
    assert lab.hosts.running() == sorted(ids)

    knock = f"timeout 2 bash -c 'echo > /dev/tcp/{address}/22' && echo open || echo closed"
    assert lab.ssh(stranger["PrivateIpAddress"], knock) == "closed"
    lab.ec2.revoke_security_group_ingress(GroupId=lab.group, IpPermissions=lab.door)
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((address, 22), timeout=2)
    lab.ec2.authorize_security_group_ingress(GroupId=lab.group, IpPermissions=lab.door)
    assert lab.ssh(address, "echo open") == "open"
    gateway = str(lab.hosts.net.gateway)
    with socket.create_server((gateway, 0)) as outside:  # outwards
        port = outside.getsockname()[1]
        lab.ssh(address, f"timeout 5 bash -c 'echo > /dev/tcp/{gateway}/{port}'")

    lab.aws.take_away(ids[2])
    assert ids[2] not in lab.hosts.running(), "dead before anybody can ask"
    lab.ec2.terminate_instances(InstanceIds=[ids[0]])
    for id_ in (ids[0], ids[2]):
        lab.until(id_, "terminated")
    assert lab.hosts.running() == [ids[1]]
    lab.ssh(there, "sudo systemd-run --quiet --no-block systemctl poweroff")
    lab.until(ids[1], "terminated")
    why = lab.shown(ids[1])["StateReason"]["Code"]
    assert why == "Client.InstanceInitiatedShutdown"


def test_disks_stay_and_become_images(lab: Lab) -> None:
    one = lab.run()[0]
    id_, address = one["InstanceId"], one["PrivateIpAddress"]
    lab.ssh(address, "echo kept | sudo tee /opt/word; sudo rm /etc/debian_version")
    lab.ec2.stop_instances(InstanceIds=[id_])
    lab.until(id_, "stopped")
    assert id_ not in lab.hosts.running()
    image = lab.ec2.create_image(InstanceId=id_, Name="mine")["ImageId"]
    here.until(
        lambda: lab.ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available",
        "the image",
    )
    fresh = lab.user_data(bootcmd=[["sh", "-c", "echo fresh > /opt/boot"]]).encode()
    lab.ec2.modify_instance_attribute(InstanceId=id_, UserData={"Value": fresh})
    lab.ec2.start_instances(InstanceIds=[id_])
    lab.until(id_, "running")
    assert lab.ssh(address, "cloud-init status --wait > /dev/null; cat /opt/word /opt/boot") == (
        "kept\nfresh"
    )
    copy = lab.run(ImageId=image)[0]["PrivateIpAddress"]
    assert copy != address
    assert lab.ssh(copy, "cat /opt/word; ls /opt/boot /etc/debian_version 2>&1 | wc -l") == (
        "kept\n2"
    ), "what was removed is not there again, nor what came later"
    assert lab.ssh(copy, "hostname") == f"ip-{copy.replace('.', '-')}"


def test_the_range_is_somebody_elses(lab: Lab) -> None:
    other = Hosts(here.IMAGES, range=str(lab.hosts.net.range))
    with pytest.raises(ClusterError, match="overlaps"), Aws(other):
        pass
    assert here.remains(other.id) == []
