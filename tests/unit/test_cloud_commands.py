"""list, adopt, stop, orphans, pause and image over a cloud in memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from memory_cloud import Memory, ago, labels

from clusterkit.cli import ending as guard
from clusterkit.cli import main
from clusterkit.cli.cluster import agreement
from clusterkit.cli.watch import Display
from clusterkit.cluster import access, ending, facts, looking, paused, stored
from clusterkit.cluster.cloud import elsewhere, known, place
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.providers import Machine, Plan
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.cluster.state import Status
from clusterkit.errors import ClusterError
from clusterkit.paths import Home
from clusterkit.transport import Address

A, B = "a" * 16, "b" * 16
LAPTOP = Machine("lab-head", "192.0.2.1", ("head",))
SETTINGS = """\
clusters:
  lab:
    provider: ec2
    region: us-east-1
    head: {types: t3.small}
    workers:
      gpu: {count: 2, types: g5.xlarge}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("CLUSTERKIT_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("CLUSTERKIT_CONFIG", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "clusterkit.yaml").write_text(SETTINGS)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def home(project: Path) -> Home:
    return Home(project.parent / "data")


class Clouds(dict[str, Memory]):
    """Region -> cloud; `asked` counts connections. One that is not there cannot be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def connect(self, spec: Any) -> Memory:
        region = spec.region or "us-east-1"
        self.asked.append(region)
        if region not in self:
            raise ClusterError("no credentials were found\nand more about that")
        return self[region]


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch, project: Path) -> Clouds:
    made = Clouds()
    made["us-east-1"] = Memory()
    monkeypatch.setattr(known, "connect", made.connect)
    return made


@pytest.fixture
def cloud(clouds: Clouds) -> Memory:
    return clouds["us-east-1"]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main.run(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


Said = pytest.CaptureFixture[str]


# -- list -----------------------------------------------------------------------------------------


def test_list_shows_what_only_the_cloud_knows(cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    cloud.cluster("theirs", B, ago(days=1))
    code, out, err = run(capsys, "list")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert (code, err) == (0, "")
    assert "ec2" in rows["lab"]
    assert "elsewhere" in rows["lab"]
    assert "of anna_laptop, since 20" in rows["lab"]
    assert "1 head (running), 2 workers (running)" in rows["lab"]
    assert rows["lab"].endswith("`clusterkit adopt lab` takes it over")
    assert rows["theirs"].endswith(
        "`clusterkit adopt theirs --provider ec2 --region us-east-1` takes it over"
    )
    assert cloud.calls == ["instances"]


def test_list_as_json(cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    (lab,) = [one for one in json.loads(run(capsys, "list", "--json")[1]) if one["name"] == "lab"]
    assert (lab["state"], lab["found"]["id"], lab["found"]["owner"]) == (
        "elsewhere", A, "anna_laptop")  # fmt: skip


def test_list_asks_each_region_once(project: Path, clouds: Clouds, capsys: Said) -> None:
    more = SETTINGS + SETTINGS.partition("\n")[2].replace("lab:", "second:")
    other = SETTINGS.partition("\n")[2].replace("lab:", "third:").replace("us-east-1", "eu-west-1")
    (project / "clusterkit.yaml").write_text(more + other)
    clouds["eu-west-1"] = Memory("eu-west-1")
    assert run(capsys, "list")[0] == 0
    assert sorted(clouds.asked) == ["eu-west-1", "us-east-1"]


def test_a_cloud_that_cannot_be_asked_is_one_line(clouds: Clouds, capsys: Said) -> None:
    del clouds["us-east-1"]
    code, out, err = run(capsys, "list")
    assert code == 1
    assert "stopped" in out
    assert err == "ec2 us-east-1 could not be asked: no credentials were found\n"


def test_list_shows_the_rows_of_clouds_that_answer(
    project: Path, clouds: Clouds, cloud: Memory, capsys: Said
) -> None:
    other = SETTINGS.partition("\n")[2].replace("lab:", "third:").replace("us-east-1", "eu-west-1")
    (project / "clusterkit.yaml").write_text(SETTINGS + other)
    cloud.cluster("theirs", B, ago(days=1))
    for more in ((), ("--json",)):
        code, out, err = run(capsys, "list", *more)
        assert code == 1
        assert "theirs" in out
        assert "third" in out
        assert err.startswith("ec2 eu-west-1 could not be asked")


NOT_HERE = "If it was started on another computer, `clusterkit adopt lab` takes it over."


@pytest.mark.parametrize(
    "argv",
    [("ssh", "lab", "--", "true"), ("status", "lab"), ("status", "lab", "--check"),
     ("parrun", "task.sh", "lab", "--grid", "grid.yaml")],
)  # fmt: skip
def test_what_is_not_started_here_may_be_elsewhere(
    project: Path, home: Home, clouds: Clouds, capsys: Said, argv: tuple[str, ...]
) -> None:
    (project / "task.sh").write_text("#!/bin/sh\n")
    (project / "grid.yaml").write_text("params: {x: [1]}\n")
    (project / "task.sh").chmod(0o755)
    _, out, err = run(capsys, *argv)
    assert NOT_HERE in out + err
    assert clouds.asked == []
    access.write_identity(home.cluster("lab"), A, "")
    _, out, err = run(capsys, *argv)
    assert NOT_HERE not in out + err


def test_only_a_clouds_cluster_may_be_elsewhere(project: Path, capsys: Said) -> None:
    (project / "clusterkit.yaml").write_text("clusters:\n  lab:\n    provider: local\n")
    code, out, err = run(capsys, "ssh", "lab", "--", "true")
    assert code == 1
    assert "is not started. Start it with `clusterkit start lab`.\n" in out + err


def test_list_all_asks_every_region(clouds: Clouds, cloud: Memory, capsys: Said) -> None:
    cloud.others = ("eu-west-1",)
    clouds["eu-west-1"] = Memory("eu-west-1")
    clouds["eu-west-1"].cluster("far", B, ago(days=1))
    assert "far" not in run(capsys, "list")[1]
    code, out, err = run(capsys, "list", "--all")
    assert (code, err) == (0, "")
    assert "--provider ec2 --region eu-west-1" in out


def test_a_place_with_two_names_is_asked_once(
    home: Home, cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the settings leave the project to gcloud, and a started cluster remembers it."""
    monkeypatch.setattr(Memory, "place", "the same")
    where = [elsewhere.named("ec2", region) for region in ("us-east-1", None)]
    monkeypatch.setattr(elsewhere, "regions", lambda _: where)
    code, out, err = run(capsys, "orphans")
    assert code == 0, err
    assert out.count("no orphans") == 1


def test_what_is_known_here_is_not_elsewhere(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    access.write_identity(home.cluster("lab"), A, "")
    out = run(capsys, "list")[1]
    assert "elsewhere" not in out
    assert "half made" in out


def test_machines_that_are_none_of_its_nodes_are_told_of(
    home: Home, cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a `resize` that was killed: they run, and cost."""
    cloud.cluster("lab", A, ago(days=2))  # a head and two workers
    started(home)
    running = Status("lab", "ec2", "running", {}, facts=facts.read(home.cluster("lab")))
    monkeypatch.setattr(looking, "status", lambda *_, **__: running)
    out = run(capsys, "list")[1]
    assert "3 machines are there, and 1 of them in it: `clusterkit start lab`" in out
    for id_, one in list(cloud.machines.items()):
        if one.labels["clusterkit-role"] == "worker":
            del cloud.machines[id_]
    assert "machines are there" not in run(capsys, "list")[1]


def test_what_another_one_works_on_is_not_called_half_made(
    home: Home, cloud: Memory, capsys: Said
) -> None:
    cloud.cluster("lab", A, ago(minutes=1))
    access.write_identity(home.cluster("lab"), A, "")
    program = (
        "import sys; from pathlib import Path; from clusterkit.cluster.lock import hold;"
        "from clusterkit.paths import Home\n"
        "with hold(Home(Path(sys.argv[1])), 'lab'): print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", program, str(home.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        out = run(capsys, "list")[1]
        assert f"another clusterkit (pid {other.pid}) is working on it" in out
        _, out, err = run(capsys, "ssh", "lab", "--", "true")
        assert f"not started: another clusterkit (pid {other.pid}) works on it" in out + err
        other.communicate()
    assert "half made" in run(capsys, "list")[1]


def test_no_sdk_is_imported_without_a_cloud(project: Path) -> None:
    program = (
        "import sys; from clusterkit.cli import main; assert main.run(['list']) == 0;"
        "print(sorted({'boto3', 'botocore', 'google.cloud'} & set(sys.modules)))"
    )
    (project / "clusterkit.yaml").write_text("clusters:\n  a:\n    provider: local\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_healthy_cluster_costs_no_question_to_its_cloud(project: Path, home: Home) -> None:
    """What parrun and harvest do first: `connect`."""
    started(home)
    program = (
        "import sys; from pathlib import Path; from clusterkit import cluster, paths;"
        f"c = cluster.connect('lab', paths.Home(Path({str(home.root)!r})));"
        "assert c.transport.mend is not None; print('clusterkit.cluster.cloud' in sys.modules,"
        "'boto3' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False"] * 3, done.stderr


def started(home: Home, **changes: Any) -> None:
    """A cluster that was started from here."""
    folder = home.cluster("lab")
    access.write_identity(folder, A, "20261101T000000Z")
    place.write(folder, place.Place(A, "us-east-1", "123456789012"))
    stored.write(folder, spec(), None)
    address = Address("192.0.2.1", "ubuntu")
    Facts(
        "lab", "ec2", "2026-11-01T00:00:00+00:00", "", "", "23.11", "python3", "/home/x", 1000,
        None, 4, 8000, (), id=A, head="lab-head", hosts={"lab-head": address}, disposable=True,
        **changes,
    ).write(folder)  # fmt: skip


def spec() -> Ec2Spec:
    return Ec2Spec.model_validate(
        {
            "provider": "ec2",
            "region": "us-east-1",
            "head": {"types": ["t3.small"]},
            "workers": {"gpu": {"count": 2, "types": ["g5.xlarge"]}},
        }
    )


# -- adopt ----------------------------------------------------------------------------------------


def test_adopt_claims_what_the_labels_tell(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    code, out, err = run(capsys, "adopt", "lab", "--no-key", "--yes")
    assert (code, err) == (0, "")
    assert "of anna_laptop" in out
    folder = home.cluster("lab")
    said = json.loads((folder / "identity.json").read_text())
    assert said["id"] == A
    assert said["created"] == ago(days=2).strftime("%Y%m%dT%H%M%SZ")
    assert place.read(folder, A) == place.Place(A, "us-east-1", "123456789012")
    assert stored.read(folder).spec.workers["gpu"].count == 2  # type: ignore[union-attr]
    assert not [call for call in cloud.calls if call not in ("instances", "resources")]
    assert "elsewhere" not in run(capsys, "list")[1]


def test_adopt_without_settings_reads_them_from_the_machines(
    home: Home, project: Path, cloud: Memory, capsys: Said
) -> None:
    (project / "clusterkit.yaml").unlink()
    cloud.cluster("lab", A, ago(days=2), workers=3)
    more = labels("lab", A, "worker", ago(days=2), group="gpu", numbers="4_9")
    cloud.machine("i-spot", more, index=1, market="spot")
    assert run(capsys, "adopt", "lab", "--yes")[0] == 1  # where?
    argv = ("adopt", "lab", "--provider", "ec2", "--region", "us-east-1", "--no-key", "--yes")
    assert run(capsys, *argv)[0] == 0
    found = stored.read(home.cluster("lab")).spec  # type: ignore[union-attr]
    assert isinstance(found, Ec2Spec)
    assert (found.region, found.head.types, found.connect) == (
        "us-east-1", ("g5.xlarge",), "public")  # fmt: skip
    assert found.workers["gpu"].count == 9
    assert found.workers["gpu"].market == "spot-then-on-demand"


def test_adopt_asks(cloud: Memory, home: Home, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    code, out, err = run(capsys, "adopt", "lab", "--no-key")
    assert code == 2
    assert "say --yes to agree" in err
    assert access.read_id(home.cluster("lab")) == ""
    code, out, _ = run(capsys, "adopt", "lab", "--dry-run")
    assert (code, access.read_id(home.cluster("lab"))) == (0, "")
    assert "3 machines will be switched off, told the new key" in out
    assert "are lost" not in out


def test_adopt_says_that_a_spot_head_is_lost(cloud: Memory, home: Home, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2), head="")
    head = labels("lab", A, "head", ago(days=2), group="head", numbers="1")
    cloud.machine("i-head", head, market="spot")
    out = run(capsys, "adopt", "lab", "--dry-run")[1]
    assert "1 spot machine will be ended" in out
    assert "The head is one of them: the queue, the accounting and all of /home are lost." in out


def test_several_of_one_name_have_to_be_told_apart(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    cloud.cluster("lab", B, ago(days=1))
    code, _, err = run(capsys, "adopt", "lab", "--no-key", "--yes")
    assert code == 1
    assert f"--id {A}: of anna_laptop" in err
    assert f"--id {B}" in err
    assert run(capsys, "adopt", "lab", "--id", B, "--no-key", "--yes")[0] == 0
    assert access.read_id(home.cluster("lab")) == B


def test_one_that_is_not_there(cloud: Memory, capsys: Said) -> None:
    code, _, err = run(capsys, "adopt", "lab", "--yes")
    assert code == 1
    assert "ec2 us-east-1 has no cluster 'lab'" in err


def test_adopt_refuses_where_another_of_the_name_is_known(
    home: Home, cloud: Memory, capsys: Said
) -> None:
    cloud.cluster("lab", A, ago(days=2))
    access.write_identity(home.cluster("lab"), B, "")
    code, _, err = run(capsys, "adopt", "lab", "--yes")
    assert code == 1
    assert "has a cluster 'lab' of its own" in err
    assert access.read_id(home.cluster("lab")) == B


def test_adopt_refuses_what_is_known_and_well(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    started(home)
    code, _, err = run(capsys, "adopt", "lab", "--yes")
    assert code == 1
    assert "is known on this computer: `clusterkit start lab`. If it was adopted" in err
    assert f"`clusterkit adopt lab --id {A}` takes it back" in err


def test_adopt_takes_back_what_another_computer_adopted(
    home: Home, cloud: Memory, capsys: Said
) -> None:
    cloud.cluster("lab", A, ago(days=2))
    started(home)
    place.write(home.cluster("lab"), place.Place(A, "us-east-1", "123456789012", ("10.0.0.0/8",)))
    code, out, err = run(capsys, "adopt", "lab", "--id", A, "--no-key", "--yes")
    assert (code, err) == (0, "")
    assert "of anna_laptop" in out
    known_place = place.read(home.cluster("lab"), A)
    assert known_place is not None
    assert known_place.allow == ("10.0.0.0/8",)
    assert (home.cluster("lab") / "adopting").read_text() == A  # a key has still to be brought
    assert run(capsys, "adopt", "lab", "--id", B, "--yes")[0] == 1


def test_what_a_cloud_wants_said_while_it_is_asked_is_told(
    cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(cloud, "tell", told.append)
    cloud.cluster("lab", A, ago(days=2))
    run(capsys, "orphans", "--dry-run")
    run(capsys, "adopt", "lab", "--dry-run")
    told[0]("AWS asks to slow down")
    assert len(told) == 2
    assert "slow down" in capsys.readouterr().err


# -- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        (Plan((LAPTOP,)), ""),
        (Plan((LAPTOP,), asks=("Switched on",)), "lab-head: head\n    Switched on\n"),
        (Plan((LAPTOP,), table=(("WHAT",), ("there already",))), "WHAT\n    there already\n"),
        (Plan((), asks=("Its disk is lost",)), "Its disk is lost\n"),
    ],
)
def test_a_question_comes_with_what_it_is_about(capsys: Said, plan: Plan, shown: str) -> None:
    agreement(yes=True, as_json=False)(Display())(plan)
    assert capsys.readouterr().out == (f"    {shown}" if shown else "")


def test_a_dry_run_knows_of_more_networks(home: Home, capsys: Said) -> None:
    code, _, err = run(capsys, "start", "local", "--dry-run", "--allow", "10.0.0.0/8")
    assert code == 2
    assert "no door that --allow could open" in err


def test_adopt_of_something_that_is_no_cloud(project: Path, cloud: Memory, capsys: Said) -> None:
    (project / "clusterkit.yaml").write_text("clusters:\n  lab:\n    provider: local\n")
    code, _, err = run(capsys, "adopt", "lab", "--yes")
    assert code == 2
    assert "only a cluster of a cloud (ec2, gce)" in err
    assert run(capsys, "adopt", "x", "--provider", "azure")[0] == 2


def test_adopt_that_was_killed_before_the_key_came_goes_on(
    home: Home, cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterkit.cluster import lifecycle
    from clusterkit.cluster.cloud import newkey

    cloud.cluster("lab", A, ago(days=2))
    tries: list[str] = []

    def bring(provider: Any, say: Any) -> None:
        tries.append(provider.identity.id)
        if len(tries) == 1:
            raise ClusterError("the credentials expired")

    def start(*args: Any, **more: Any) -> None:
        raise ClusterError("started")

    monkeypatch.setattr(newkey, "bring", bring)
    monkeypatch.setattr(lifecycle, "start", start)
    assert "the credentials expired" in run(capsys, "adopt", "lab", "--yes")[2]
    assert run(capsys, "adopt", "lab")[0] == 2  # machines are switched off only when that is agreed
    assert tries == [A]
    assert "started" in run(capsys, "adopt", "lab", "--yes")[2]
    assert tries == [A, A]
    assert "known on this computer" in run(capsys, "adopt", "lab", "--yes")[2]
    (home.cluster("lab") / "adopting").write_text(B)  # of an earlier cluster of the name
    assert "known on this computer" in run(capsys, "adopt", "lab", "--yes")[2]


# -- stop -----------------------------------------------------------------------------------------


def test_stop_of_a_stranger_needs_discard(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    code, _, err = run(capsys, "stop", "lab", "--yes")
    assert code == 1
    assert "not known on this computer" in err
    assert "`clusterkit adopt lab`" in err
    assert all(one.alive for one in cloud.machines.values())
    code, _, err = run(capsys, "stop", "lab", "--discard")
    assert code == 2
    assert f"id {A}: of anna_laptop" in err
    assert access.read_id(home.cluster("lab")) == ""


def test_stop_of_a_stranger_ends_and_proves(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("lab", A, ago(days=2))
    cloud.cluster("other", B, ago(days=2))
    marks = labels("lab", A, "image", ago(days=1))
    cloud.saved["ami-1"] = known_image(marks)
    code, out, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert "3 machines (lab-gpu-1, lab-gpu-2, lab-head)" in out
    assert "volumes" in out
    assert "key pairs: none left" in out
    assert "Kept: image ami-1 (mine): 30 GiB, 1.53 USD a month" in out
    assert {one.labels["clusterkit-id"] for one in cloud.things.values()} == {B}
    assert access.read_id(home.cluster("lab")) == ""
    assert place.read(home.cluster("lab"), A) is None


def known_image(marks: dict[str, str]) -> Any:
    from clusterkit.cluster.cloud.api import Image

    return Image("ami-1", "mine", "x86_64", "ubuntu", 30, labels=marks, digest="d" * 32)


def test_stop_with_half_a_folder(home: Home, cloud: Memory, capsys: Said) -> None:
    """Killed after the id was written; the settings were not remembered yet."""
    cloud.cluster("lab", A, ago(days=2))
    access.write_identity(home.cluster("lab"), A, "")
    code, out, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert cloud.things == {}
    assert "none left" in out


def test_stop_of_what_is_nowhere(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("other", B, ago(days=2))
    code, out, _ = run(capsys, "stop", "lab")
    assert code == 0
    assert "was not running; nothing of it is left" in out
    assert len(cloud.things) == 3


# -- orphans --------------------------------------------------------------------------------------


def test_orphans_are_listed_and_removed(home: Home, cloud: Memory, capsys: Said) -> None:
    cloud.cluster("old", A, ago(days=2), head="")
    cloud.cluster("lab", B, ago(days=2))
    code, out, _ = run(capsys, "orphans", "--dry-run")
    assert code == 0
    assert out.count("its cluster has no head") == 5
    assert "Nothing was removed" in out
    assert run(capsys, "orphans")[0] == 2  # nobody to ask
    assert len(cloud.things) == 6
    code, out, _ = run(capsys, "orphans", "--yes")
    assert code == 0
    assert "5 things removed. Looked for instances, volumes" in out
    assert len(cloud.things) == 3
    assert "no orphans" in run(capsys, "orphans", "--yes")[1]


def test_orphans_as_json_removes_nothing_unasked(cloud: Memory, capsys: Said) -> None:
    cloud.cluster("old", A, ago(days=2), head="")
    code, out, _ = run(capsys, "orphans", "--json")
    assert code == 0
    assert {one["resource"]["kind"] for one in json.loads(out)} == {
        "instance", "volume", "security group", "key pair"}  # fmt: skip
    assert len(cloud.things) == 3


def test_orphans_where_a_cloud_cannot_be_asked(clouds: Clouds, capsys: Said) -> None:
    del clouds["us-east-1"]
    code, _, err = run(capsys, "orphans", "--yes")
    assert code == 1
    assert "no credentials were found" in err


def test_orphans_have_to_know_where_to_look(project: Path, cloud: Memory, capsys: Said) -> None:
    (project / "clusterkit.yaml").unlink()
    code, _, err = run(capsys, "orphans")
    assert code == 2
    assert "--provider ec2 --region REGION" in err
    assert run(capsys, "orphans", "--provider", "ec2", "--region", "us-east-1")[0] == 0
    assert run(capsys, "orphans", "--all", "--region", "us-east-1")[0] == 2
    assert run(capsys, "orphans", "--region", "us-east-1")[0] == 2


# -- pause ----------------------------------------------------------------------------------------


def test_pause_keeps_the_disks_and_says_what_they_cost(
    home: Home, cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.cluster("lab", A, ago(days=2), workers=1)
    spot = labels("lab", A, "worker", ago(days=2), group="gpu", numbers="2")
    cloud.machine("i-spot", spot, market="spot")
    started(home)
    done: list[str] = []
    monkeypatch.setattr(guard, "settle_before_pause", lambda *_: done.append("asked"))
    monkeypatch.setattr(ending, "_let_in", lambda *_: done.append("door"))
    monkeypatch.setattr(ending, "_requeue", lambda *_: done.append("requeued"))
    code, out, err = run(capsys, "pause", "lab", "--yes")
    assert code == 0, err
    assert done == ["asked", "door", "requeued"]
    assert "lab-gpu-1, lab-head switched off. lab-gpu-2 ended." in out
    assert "only its disks cost (30 GiB): 0.0030 USD an hour" in out
    states = {one.id: one.state for one in cloud.machines.values()}
    assert states == {"i-aaahead1": "stopped", "i-aaagpu1": "stopped", "i-spot": "ended"}
    code, out, _ = run(capsys, "status", "lab")
    assert "lab  ec2  paused" in out
    assert "0.0030 USD an hour. `clusterkit start lab` resumes it" in out
    code, _, err = run(capsys, "ssh", "lab", "--", "true")
    assert code == 1
    assert "is paused. Resume it with `clusterkit start lab`" in err


def test_a_spot_head_is_not_paused_away(
    home: Home, cloud: Memory, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be switched off, and /home lies on it."""
    head = labels("lab", A, "head", ago(days=2), group="head", numbers="1")
    cloud.machine("i-head", head, market="spot")
    started(home)
    monkeypatch.setattr(guard, "settle_before_pause", lambda *_: None)
    monkeypatch.setattr(ending, "_requeue", lambda *_: pytest.fail("jobs were disturbed"))
    code, _, err = run(capsys, "pause", "lab", "--yes")
    assert code == 1
    assert "the head of 'lab' is a spot machine, which cannot be switched off" in err
    assert cloud.machines["i-head"].state == "running"
    assert facts.read(home.cluster("lab")) is not None


def test_only_a_cloud_can_be_paused(project: Path, cloud: Memory, capsys: Said) -> None:
    assert run(capsys, "pause", "lab", "--yes")[0] == 1
    (project / "clusterkit.yaml").write_text("clusters:\n  lab:\n    provider: local\n")
    code, _, err = run(capsys, "pause", "lab", "--yes")
    assert code == 1
    assert "only the machines of a cloud can be paused" in err


def test_a_damaged_note_counts_as_one(tmp_path: Path) -> None:
    assert paused.read(tmp_path) is None
    (tmp_path / paused.FILE).write_text("{")
    assert paused.read(tmp_path) == paused.Paused("")
    paused.forget(tmp_path)
    assert paused.read(tmp_path) is None


# -- images ---------------------------------------------------------------------------------------


def test_images_are_listed_with_their_cost_and_removed(cloud: Memory, capsys: Said) -> None:
    cloud.saved["ami-1"] = known_image(labels("lab", A, "image", ago(days=1)))
    code, out, err = run(capsys, "image", "list")
    assert code == 0, err
    assert "1.53 USD a month" in out
    assert "nothing: it can be removed" in out
    assert "No saved images" in run(capsys, "image", "list", "local")[1]
    (one,) = json.loads(run(capsys, "image", "list", "lab", "--json")[1])
    assert one["month"] == pytest.approx(0.00007 * 30 * 730)
    assert run(capsys, "image", "remove", "ami-1", "--dry-run")[0] == 0
    assert run(capsys, "image", "remove", "ami-1")[0] == 2
    code, _, err = run(capsys, "image", "remove", "ami-1", "ami-2", "--yes")
    assert code == 1
    assert "no saved image ami-2; there is ami-1" in err
    assert set(cloud.saved) == {"ami-1"}
    name = cloud.saved["ami-1"].name
    assert run(capsys, "image", "remove", name, "ami-1", "--yes")[0] == 0
    assert cloud.saved == {}


def test_images_are_found_without_settings(project: Path, cloud: Memory, capsys: Said) -> None:
    """They outlive their cluster, and cost."""
    (project / "clusterkit.yaml").unlink()
    cloud.saved["ami-1"] = known_image(labels("lab", A, "image", ago(days=1)))
    code, _, err = run(capsys, "image", "list")
    assert code == 2
    assert "--provider ec2 --region REGION, or --all" in err
    where = ("--provider", "ec2", "--region", "us-east-1")
    assert "ami-1" in run(capsys, "image", "list", *where)[1]
    assert "ami-1" in run(capsys, "image", "list", "--all")[1]
    assert run(capsys, "image", "remove", "ami-1", *where, "--yes")[0] == 0
    assert cloud.saved == {}


def test_a_deleted_folder_and_back(home: Home, cloud: Memory, capsys: Said) -> None:
    """Started here, folder deleted, found, adopted, stopped."""
    cloud.cluster("lab", A, ago(days=2))
    started(home)
    shutil.rmtree(home.cluster("lab"))
    assert "elsewhere" in run(capsys, "list")[1]
    assert run(capsys, "adopt", "lab", "--no-key", "--yes")[0] == 0
    code, _, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert cloud.things == {}
    assert "elsewhere" not in run(capsys, "list")[1]
