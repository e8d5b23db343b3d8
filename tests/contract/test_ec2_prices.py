"""Prices, quotas and doctor on EC2, against the double."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from doubles.aws import Aws, catalogue

from clusterkit.cli import main
from clusterkit.cluster.cloud import doctor as cloud_doctor
from clusterkit.cluster.cloud.api import Finding, MachineType, Need
from clusterkit.cluster.providers.ec2 import doctor, prices, quotas
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.errors import ClusterError

ZONES = ("us-east-1a", "us-east-1b")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws() as double:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        yield double


@pytest.fixture
def client(aws: Aws) -> Client:
    return Client("us-east-1", pause=lambda _: None)


def kind(name: str, cpus: int) -> MachineType:
    return MachineType(name, cpus, 16384)


# -- prices ---------------------------------------------------------------------------------------


def test_on_demand_prices_are_those_of_the_list(aws: Aws, client: Client) -> None:
    names = ["g4dn.xlarge", "m5.large"]
    found = {one.subject: one for one in prices.prices(client, names, ZONES, ["on-demand"])}
    for name in names:
        assert found[name].amount == pytest.approx(catalogue.ON_DEMAND[name])
        assert (found[name].market, found[name].zone) == ("on-demand", "")
        assert found[name].source == "AWS Price List"
        assert found[name].as_of is not None
        assert found[name].fetched is not None
    assert aws.count("GetProducts") == 2
    assert aws.count("DescribeSpotPriceHistory") == 0


def test_a_region_far_from_the_price_list_is_asked_about_elsewhere(aws: Aws) -> None:
    client = Client("eu-north-1", pause=lambda _: None)
    [found] = prices.prices(client, ["m5.large"], [], ["on-demand"])
    assert found.amount is not None
    assert found.amount > catalogue.ON_DEMAND["m5.large"]
    assert found.region == "eu-north-1"
    assert {call.region for call in aws.calls} == {"eu-central-1"}


def test_spot_prices_of_all_types_in_one_question(aws: Aws, client: Client) -> None:
    aws.spot_prices[("g4dn.xlarge", "us-east-1b")] = 0.1234
    found = prices.prices(client, ["g4dn.xlarge", "m5.large", "c5.large"], ZONES, ["spot"])
    assert {(one.subject, one.zone) for one in found} == {
        (name, zone) for name in ("g4dn.xlarge", "m5.large", "c5.large") for zone in ZONES
    }
    assert len(found) == 6
    cheap = next(one for one in found if (one.subject, one.zone) == ("g4dn.xlarge", "us-east-1b"))
    assert cheap.amount == pytest.approx(0.1234)
    assert cheap.as_of is not None
    assert cheap.as_of <= datetime.now(UTC) + timedelta(seconds=5)
    assert aws.count("GetProducts") == 0


def test_things_by_the_hour(aws: Aws, client: Client) -> None:
    assert prices.disk_price(client).amount == pytest.approx(catalogue.GP3 / 730)
    assert prices.image_price(client).amount == pytest.approx(catalogue.SNAPSHOT / 730)
    assert prices.address_price(client).amount == pytest.approx(catalogue.ADDRESS)
    assert "730 h" in prices.disk_price(client).source


def test_what_cannot_be_had_is_unknown_with_a_reason(aws: Aws, client: Client) -> None:
    [found] = prices.prices(client, ["z9.huge"], [], ["on-demand"])
    assert found.amount is None
    assert "us-east-1" in found.why
    aws.fault("GetProducts", "denied", times=None)
    aws.fault("DescribeSpotPriceHistory", "denied", times=None)
    for one in prices.prices(client, ["m5.large"], ZONES, ["on-demand", "spot"]):
        assert one.amount is None
        assert one.why
    assert prices.disk_price(client).amount is None


def product(**changes: Any) -> str:
    """A product of the Price List, as AWS writes it."""
    said: dict[str, Any] = {
        "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": "a"}},
        "terms": {
            "OnDemand": {
                "T": {
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "priceDimensions": {
                        "D": {
                            "unit": "Hrs",
                            "beginRange": "0",
                            "pricePerUnit": {"USD": "0.1250000000"},
                        }
                    },
                }
            }
        },
    }
    dimension = said["terms"]["OnDemand"]["T"]["priceDimensions"]["D"]
    dimension.update(changes)
    return json.dumps(said)


def test_a_product_is_read() -> None:
    [rate] = prices.rates([product()], {"instanceType": "a"})
    assert (rate.amount, rate.currency, rate.unit) == (0.125, "USD", "Hrs")
    assert rate.as_of == datetime(2026, 11, 1, tzinfo=UTC)
    assert prices.rates([product(pricePerUnit={"CNY": "1"})], {})[0].currency == "CNY"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        product(pricePerUnit={}),
        product(pricePerUnit={"USD": "much"}),
        product(pricePerUnit={"USD": "NaN"}),
        product(pricePerUnit={"USD": "-1"}),
        product(pricePerUnit={"USD": "0"}),  # reserved capacity
        product(beginRange="10240"),
        product().replace('"instanceType": "a"', '"instanceType": "b"'),
        product().replace("OnDemand", "Reserved"),
    ],
)
def test_a_product_that_makes_no_sense_or_is_another_is_none(text: str) -> None:
    assert prices.rates([text], {"instanceType": "a"}) == []


# -- quotas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [
        ("m5.large", "L-1216C47A", "L-34B43A08"),
        ("im4gn.large", "L-1216C47A", "L-34B43A08"),
        ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
        ("i4i.large", "L-1216C47A", "L-34B43A08"),
        ("t3.micro", "L-1216C47A", "L-34B43A08"),
        ("trn1.2xlarge", "L-2C3B7624", "L-6B0D517C"),
        ("d3en.xlarge", "L-1216C47A", "L-34B43A08"),
        ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"),
        ("g4dn.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("x2gd.large", "L-7295265B", "L-E3A00192"),
        ("f2.6xlarge", "L-74FC7D96", "L-88CF9481"),
        ("u7i-12tb.224xlarge", "L-43DA4232", ""),
        ("hpc7g.4xlarge", "L-F7808C92", ""),
    ],
)
def test_the_quota_of_a_type(name: str, on_demand: str, spot: str) -> None:
    found, market = quotas.family(name, "on-demand"), quotas.family(name, "spot")
    assert found is not None
    assert market is not None
    assert (found.code, market.code) == (on_demand, spot)


def test_a_family_that_is_not_known_has_no_quota() -> None:
    assert quotas.family("qq9.large", "spot") is None
    assert quotas.family("", "spot") is None


def test_needs_of_one_family_are_added_up(aws: Aws, client: Client) -> None:
    aws.quotas["L-3819A6DF"] = 16
    needs = [
        Need(kind("m5.large", 2), "on-demand", 1),
        Need(kind("g4dn.xlarge", 4), "spot", 3),
        Need(kind("g5.2xlarge", 8), "spot", 1),
        Need(kind("qq9.large", 8), "spot", 1),
    ]
    found = {one.code: one for one in quotas.quotas(client, needs)}
    assert found["L-1216C47A"].needed == 2
    assert found["L-1216C47A"].limit == 256
    assert found["L-1216C47A"].used == 0
    assert not found["L-1216C47A"].short
    assert found["L-3819A6DF"].needed == 20
    assert found["L-3819A6DF"].short
    assert found["L-3819A6DF"].page.endswith("/quotas/L-3819A6DF")
    assert found[""].limit is None
    assert found[""].why
    assert aws.count("GetServiceQuota") == 2
    assert aws.count("DescribeInstances") == 1


def test_what_runs_counts_on_its_own_market(aws: Aws, client: Client) -> None:
    launch(client, "m5.xlarge", 2)
    launch(client, "m5.xlarge", 1, InstanceMarketOptions={"MarketType": "spot"})
    needs = [Need(kind("m5.large", 2), market, 1) for market in ("on-demand", "spot")]
    found = {one.code: one.used for one in quotas.quotas(client, needs)}
    assert found == {"L-1216C47A": 8, "L-34B43A08": 4}


def launch(client: Client, type_: str, count: int, **more: Any) -> None:
    image = client.call("ec2", "DescribeImages", Owners=["099720109477"])["Images"][0]["ImageId"]
    client.call(
        "ec2",
        "RunInstances",
        ImageId=image,
        InstanceType=type_,
        MinCount=count,
        MaxCount=count,
        **more,
    )


def test_a_quota_that_may_not_be_read_is_unknown(aws: Aws, client: Client) -> None:
    aws.fault("GetServiceQuota", "denied", times=None)
    aws.fault("DescribeInstances", "denied", times=None)
    [found] = quotas.quotas(client, [Need(kind("m5.large", 2), "spot", 1)])
    assert (found.limit, found.used, found.short) == (None, None, False)
    assert "GetServiceQuota" in found.why


def test_the_advice_after_a_refusal_names_quota_and_page() -> None:
    words = quotas.advice("g4dn.xlarge", "spot", "eu-west-1")
    assert "L-3819A6DF" in words
    assert "G and VT" in words
    assert "https://eu-west-1.console.aws.amazon.com/servicequotas/" in words


# -- doctor ---------------------------------------------------------------------------------------


def findings(client: Client, subnet: str | None = None) -> dict[str, Finding]:
    return {one.subject: one for one in doctor.examine(client, subnet)}


def test_a_healthy_account_is_good(aws: Aws, client: Client) -> None:
    found = findings(client)
    assert {name for name, one in found.items() if one.verdict == "bad"} == set()
    for subject in (
        "SDK", "credentials", "account", "clock", "region", "network", "billing",
        "ec2:RunInstances", "ec2:CreateSecurityGroup", "ec2:ImportKeyPair",
    ):  # fmt: skip
        assert found[subject].verdict == "good", found[subject]
    assert "AWS_ACCESS_KEY_ID" in found["credentials"].words
    assert "123456789012" in found["account"].words
    assert aws.left() == []
    assert aws.things("instance") == []


def test_no_secret_is_shown(aws: Aws, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.credentials = {"AKIDSHOWNNOWHERE": ("sEcReTwOrD", "123456789012")}
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    told = str(findings(Client("us-east-1")))
    assert "123456789012" in told
    assert "sEcReTwOrD" not in told
    assert "AKIDSHOWNNOWHERE" not in told


def test_credentials_that_aws_does_not_accept(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = findings(Client("us-east-1", pause=lambda _: None))
    assert found["account"].verdict == "bad"
    assert found["account"].advice
    assert not any("clusterkit doctor" in one.words + one.advice for one in found.values())
    assert "ec2:RunInstances" not in found  # every further question would be refused too


def test_a_subnet_that_there_is_not_is_bad_with_advice(aws: Aws, client: Client) -> None:
    found = findings(client, "subnet-0123456789abcdef0")["network"]
    assert found.verdict == "bad"
    assert "InvalidSubnetID.NotFound" in found.words
    assert "`aws ec2 describe-subnets --region us-east-1`" in found.advice
    assert "correct `subnet:`" in found.advice


def test_no_credentials_at_all(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    found = findings(Client("us-east-1", pause=lambda _: None))
    assert found["credentials"].verdict == "bad"
    assert "aws configure" in found["credentials"].advice
    assert found["account"].verdict == "bad"


@pytest.mark.parametrize("action", ["RunInstances", "CreateSecurityGroup", "ImportKeyPair"])
def test_a_missing_permission_is_named(aws: Aws, client: Client, action: str) -> None:
    aws.fault(action, "denied", times=None)
    found = findings(client)
    assert found[f"ec2:{action}"].verdict == "bad"
    assert action in found[f"ec2:{action}"].advice
    others = {"RunInstances", "CreateSecurityGroup", "ImportKeyPair"} - {action}
    assert all(found[f"ec2:{one}"].verdict == "good" for one in others)


def test_a_machine_makes_more_permissions_known(aws: Aws, client: Client) -> None:
    assert findings(client)["ec2:TerminateInstances"].verdict == "unknown"
    tags = [{"Key": "clusterkit-id", "Value": "a" * 16}]
    spec = [{"ResourceType": "instance", "Tags": tags}]
    aws.boot_time = 0.0
    launch(client, "m5.large", 1, TagSpecifications=spec)
    found = findings(client)
    assert found["ec2:TerminateInstances"].verdict == "good"
    [state] = [one["State"]["Name"] for one in aws.things("instance")]
    assert state in ("pending", "running")


def test_the_smallest_policy_refuses_the_default_group_alone(aws: Aws, client: Client) -> None:
    said = "User: x is not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:"
    for resource, verdict in (("security-group/sg-1", "unknown"), ("instance/*", "bad")):
        aws.faults.clear()
        words = f"{said}us-east-1:123456789012:{resource} because no policy allows it."
        aws.fault("RunInstances", "UnauthorizedOperation", times=None, words=words)
        assert findings(client)["ec2:RunInstances"].verdict == verdict


def test_credentials_of_a_login_that_is_over(aws: Aws) -> None:
    class Login:
        region = "us-east-1"

        def __init__(self, ends: datetime) -> None:
            known = SimpleNamespace(method="sso", token="t", _expiry_time=ends)
            self.session = SimpleNamespace(get_credentials=lambda: known, profile_name="work")

        def call(self, *_: object) -> None:
            raise ClusterError("not asked")

    soon, past = (datetime.now(UTC) + timedelta(minutes=one) for one in (30, -30))
    for ends, verdict in ((soon, "good"), (past, "bad")):
        found = findings(cast("Client", Login(ends)))
        assert found["credentials"].verdict == verdict
        assert f"{ends:%H:%M} UTC" in found["credentials"].words
        assert "aws sso login" in found["credentials"].words
        assert "profile work" in found["credentials"].words


@pytest.mark.parametrize("code", ["PendingVerification", "OptInRequired", "Blocked"])
def test_an_account_that_is_not_ready(aws: Aws, client: Client, code: str) -> None:
    aws.fault("RunInstances", code, times=None, words="Your account is not ready.")
    found = findings(client)
    assert found["billing"].verdict == "bad"
    assert "Your account is not ready" in found["billing"].words
    assert found["billing"].advice


def test_a_clock_that_is_wrong(aws: Aws, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=90)

    monkeypatch.setattr(doctor, "datetime", Later)
    found = findings(client)
    assert found["clock"].verdict == "bad"
    assert "ahead" in found["clock"].words


def test_no_network(aws: Aws, client: Client) -> None:
    assert findings(client, "subnet-00000000000000000")["network"].verdict == "bad"
    [subnet, *_] = client.call("ec2", "DescribeSubnets")["Subnets"]
    named = findings(client, subnet["SubnetId"])["network"]
    assert named.verdict == "good"
    assert subnet["AvailabilityZone"] in named.words


# -- the commands ---------------------------------------------------------------------------------

SETTINGS = """\
clusters:
  gpu:
    provider: ec2
    region: us-east-1
    own_address: 203.0.113.7
    head: {types: [m5.large]}
    workers:
      t4: {count: 2, types: [g4dn.xlarge, g5.xlarge], market: spot}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLUSTERKIT_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("CLUSTERKIT_CONFIG", str(tmp_path / "clusterkit.yaml"))
    (tmp_path / "clusterkit.yaml").write_text(SETTINGS)
    return tmp_path


def command(*words: str) -> Result:
    return CliRunner().invoke(main.cli, list(words), standalone_mode=False)


def test_prices_of_a_cluster_cheapest_first(aws: Aws, project: Path) -> None:
    result = command("prices", "gpu", "--spot", "--json")
    assert result.exception is None, result.output
    said = json.loads(result.output)
    amounts = [one["amount"] for one in said["prices"]]
    known = [one for one in amounts if one is not None]
    assert known == sorted(known)
    assert amounts[: len(known)] == known  # unknown ones last
    assert {one["subject"] for one in said["prices"]} == {"m5.large", "g4dn.xlarge", "g5.xlarge"}
    assert {one["market"] for one in said["prices"]} == {"spot", "on-demand"}


def test_prices_of_named_types_as_a_table(aws: Aws, project: Path) -> None:
    result = command("prices", "aws", "g5.xlarge", "g4dn.xlarge", "--region", "us-east-1")
    assert result.exception is None, result.output
    lines = result.output.splitlines()
    assert lines[0].split()[:3] == ["TYPE", "MARKET", "ZONE"]
    assert [line.split()[0] for line in lines[1:3]] == ["g4dn.xlarge", "g5.xlarge"]
    assert "0.526 USD" in lines[1]
    assert "AWS Price List, as of" in result.output
    assert "spot" not in result.output


def test_prices_that_were_kept_are_shown_when_aws_is_silent(aws: Aws, project: Path) -> None:
    command("prices", "gpu", "--spot")
    aws.fault("*", "denied", times=None)
    result = command("prices", "gpu", "--spot", "--json")
    assert result.exception is None, result.output
    said = json.loads(result.stdout)
    assert all(one["amount"] is not None for one in said["prices"] if one["market"] != "spot")
    assert any("not now" in line for line in said["sources"])


def test_prices_of_types_that_there_are_not(aws: Aws, project: Path) -> None:
    result = command("prices", "gpu", "g4dn.xlrage")
    assert "g4dn.xlarge" in str(result.exception)
    assert "no cluster" in str(command("prices", "nothing").exception)
    assert "machine types" in str(command("prices", "ec2", "--region", "us-east-1").exception)
    assert "cost nothing" in str(command("prices", "local", "m5.large").exception)


def test_prices_that_nobody_tells_are_an_error(aws: Aws, project: Path) -> None:
    aws.fault("*", "denied", times=None)
    result = command("prices", "gpu", "--spot")
    assert "UnauthorizedOperation" in str(result.exception)
    assert "TYPE" not in result.output  # no table of nothing


def test_why_a_price_is_unknown_stands_below_the_table(aws: Aws, project: Path) -> None:
    result = command("prices", "gpu", "t4g.large", "m5.large")
    assert result.exception is None, result.output
    (row,) = (line for line in result.output.splitlines() if line.startswith("t4g.large"))
    assert row.rstrip().endswith("unknown")
    assert "Unknown: t4g.large on-demand: the AWS Price List does not have it" in result.output


def test_no_images_are_told_of_only_where_some_cloud_answered(aws: Aws, project: Path) -> None:
    assert "No saved images." in command("image", "list").output
    aws.fault("*", "denied", times=None)
    result = command("image", "list")
    assert result.return_value == 1
    assert "could not be asked" in result.output
    assert "No saved images" not in result.output


def test_doctor_of_a_healthy_cluster(aws: Aws, project: Path) -> None:
    result = command("doctor", "gpu")
    assert result.exception is None, result.output
    assert result.return_value == 0, result.output
    for words in (
        "203.0.113.7/32",
        "ubuntu",
        "quota L-3819A6DF",
        "All G and VT",
        "8 needed",
        "0 bad",
    ):
        assert words in result.output
    assert not (project / "data").exists()  # it changes nothing
    assert aws.left() == []


def test_doctor_tells_all_that_is_bad(aws: Aws, project: Path) -> None:
    aws.quotas["L-3819A6DF"] = 0
    aws.fault("CreateSecurityGroup", "denied", times=None)
    text = SETTINGS.replace("    own_address", "    login: admin\n    own_address")
    (project / "clusterkit.yaml").write_text(text)
    result = command("doctor", "gpu", "--json")
    assert result.return_value == 1
    bad = {one["subject"]: one for one in json.loads(result.output) if one["verdict"] == "bad"}
    assert set(bad) == {
        "login",
        "ec2:CreateSecurityGroup",
        "quota L-3819A6DF",
    }
    assert "servicequotas" in bad["quota L-3819A6DF"]["advice"]


def test_doctor_tells_of_types_and_zones_that_there_are_not(aws: Aws, project: Path) -> None:
    bad = []
    for wrong in (
        SETTINGS.replace("g4dn.xlarge", "g4dn.xlrage"),
        SETTINGS.replace("market: spot", "market: spot, zones: [us-east-1z]"),
    ):
        assert wrong != SETTINGS
        (project / "clusterkit.yaml").write_text(wrong)
        result = command("doctor", "gpu", "--json")
        said = json.loads(result.output)
        bad += [(one["subject"], one["words"]) for one in said if one["verdict"] == "bad"]
        assert result.return_value == 1
    [(types, near), (zones, there)] = bad  # each is told once
    assert (types, zones) == ("types", "zones")
    assert "g4dn.xlarge" in near
    assert "us-east-1z" in there
    assert "us-east-1a" in there


def test_doctor_tells_mistakes_in_the_settings(aws: Aws, project: Path) -> None:
    text = SETTINGS.replace("m5.large", "huge").replace("market: spot", "market: free")
    (project / "clusterkit.yaml").write_text(text)
    result = command("doctor", "gpu", "--json")
    bad = [one for one in json.loads(result.output) if one["verdict"] == "bad"]
    assert len(bad) == 2
    assert result.return_value == 1
    assert aws.calls == []


def test_doctor_of_another_cluster_asks_no_cloud(
    aws: Aws, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "boto3"]:
        monkeypatch.delitem(sys.modules, name)
    result = command("doctor", "local", "--json")
    assert result.return_value == 0, result.output
    assert {one["subject"] for one in json.loads(result.output)} == {"disk", "settings"}
    assert "boto3" not in sys.modules


def test_doctor_sees_keys_that_others_can_read(aws: Aws, project: Path) -> None:
    folder = project / "data" / "clusters" / "gpu"
    folder.mkdir(parents=True)
    (folder / "key").write_text("secret")
    (folder / "key").chmod(0o644)
    result = command("doctor", "gpu", "--json")
    [bad] = [one for one in json.loads(result.output) if one["verdict"] == "bad"]
    assert bad["subject"] == "secrets"
    assert "chmod 600" in bad["advice"]


def test_doctor_sees_whether_the_door_is_open(aws: Aws, project: Path) -> None:
    client = Client("us-east-1")
    folder = project / "data" / "clusters" / "gpu"
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps({"id": "a" * 16}))
    tags = [{"Key": "clusterkit-id", "Value": "a" * 16}]
    group = client.call(
        "ec2",
        "CreateSecurityGroup",
        GroupName="clusterkit-gpu",
        Description="x",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )["GroupId"]

    def door() -> dict[str, Any]:
        said = json.loads(command("doctor", "gpu", "--json").output)
        found: dict[str, Any] = next(one for one in said if one["subject"] == "door")
        return found

    let_in(client, group, "198.51.100.9/32")
    assert door()["verdict"] == "bad"
    assert "not from 203.0.113.7/32" in door()["words"]
    let_in(client, group, "203.0.113.0/24")
    assert door()["verdict"] == "good"
    let_in(client, group, "0.0.0.0/0")
    assert door()["verdict"] == "bad"
    assert "everybody" in door()["words"]


def let_in(client: Client, group: str, cidr: str) -> None:
    client.call(
        "ec2",
        "AuthorizeSecurityGroupIngress",
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]}
        ],
    )


def test_doctor_without_an_own_address(aws: Aws, project: Path) -> None:
    text = SETTINGS.replace("203.0.113.7", "http://127.0.0.1:9/nothing")
    for allow, verdict in (("", "bad"), ("    allow: [198.51.100.0/24]\n", "unknown")):
        (project / "clusterkit.yaml").write_text(text.replace("    head:", f"{allow}    head:"))
        said = json.loads(command("doctor", "gpu", "--json").output)
        [found] = [one for one in said if one["subject"] == "own address"]
        assert found["verdict"] == verdict
        assert "own_address" in found["words"]


def test_doctor_of_an_image_that_is_old(
    aws: Aws, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(name: str) -> list[dict[str, Any]]:
        said = json.loads(command("doctor", name, "--json").output)
        return [one for one in said if one["subject"] == "image"]

    [young] = images("gpu")
    assert "days old" not in young["words"]

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=400)

    monkeypatch.setattr(cloud_doctor, "datetime", Later)
    [old] = images("gpu")
    assert "days old" in old["words"]
    assert old["advice"]
