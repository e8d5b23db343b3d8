"""A SLURM that somebody else runs, behind a jump host, by the user's own ssh settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import places
import pytest
from conftest import Clusterkit, environment
from lab import Lab, cancelled_after
from places import Gate, Place
from slot_experiment import wait_for

from clusterkit.cluster import facts

pytestmark = pytest.mark.slurm

WAITS = """
import clusterkit, os, time
clusterkit.log(step=0)
while not os.path.exists("go"): time.sleep(0.05)
clusterkit.log(v=1)
"""


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Gate]:
    with places.gate(tmp_path) as made:
        yield made


@pytest.fixture
def uni(slurm_home: Path, tmp_path: Path, clusterkit: Clusterkit, way: Gate) -> Iterator[Lab]:
    """A user who has only written his settings."""
    config = {
        "provider": "attach",
        "host": "uni",
        "slurm_conf": places.slurm_conf(slurm_home),
        "sbatch": {"comment": "of the cluster"},
    }
    env = places.settings(tmp_path / "clusterkit.yaml", "uni", **config)
    place = Place("uni", tmp_path / "data", {**way.env, **env})
    lab = place.lab(tmp_path / "project", clusterkit)
    with cancelled_after(lab):
        yield lab


def test_its_life(uni: Lab, way: Gate) -> None:
    """It needs no start, and its stop only forgets it: what runs there goes on."""
    (shown,) = (
        one for one in json.loads(uni.call("list", "--json").stdout) if one["name"] == "uni"
    )
    assert (shown["state"], shown["problem"]) == ("stopped", "not used yet")
    assert "attached to uni" in uni.call("start", "uni", "--dry-run").stdout
    assert way.server.logins() == 0
    uni.project(WAITS, "params: {i: [1, 2]}\n")
    experiment = uni.parrun()["id"]
    root = uni.root(experiment)
    assert str(root).startswith(str(way.server.folder / "home" / "clusterkit"))
    assert '#SBATCH --comment="of the cluster"' in (root / "rounds/0/script").read_text()
    wait_for(lambda: uni.records(root, "start"))
    assert uni.call("ssh", "uni", "--", "printf", "%s", "a  b'$HOME").stdout == "a  b'$HOME"
    state = json.loads(uni.call("status", "uni", "--json").stdout)
    assert (state["state"], len(state["nodes"])) == ("running", 1)
    assert state["running"] + state["pending"] >= 1
    assert "is attached: SLURM" in uni.call("start", "uni").stdout
    # The jump host let it in once, and the cluster too: everything shared one connection.
    assert way.server.logins() == 2

    refused = uni.call("stop", "uni", check=False)
    assert refused.returncode == 1
    assert "nothing was forgotten" in refused.stderr
    assert experiment in refused.stderr
    would = uni.call("stop", "uni", "--dry-run").stdout
    assert "would go on" in would
    assert experiment in would
    assert "its jobs go on" in uni.call("stop", "uni", "--harvest").stdout
    assert facts.read(uni.home / "clusters" / "uni") is None
    assert "not running" in uni.call("stop", "uni").stdout

    (root / "code" / "go").touch()
    rows = uni.finished(experiment)  # which attaches again
    assert [(row["state"], row["v"]) for row in rows] == [("COMPLETED", 1)] * 2
    assert uni.call("stop", "uni").returncode == 0


def test_a_connection_of_the_users_own_is_used_and_left(uni: Lab, way: Gate) -> None:
    """Such as one that a second factor was given for."""
    folder = Path(tempfile.mkdtemp(prefix="ck"))  # a socket's path is short

    def ssh(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", *words], env=environment(None, way.env), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=180,
        )  # fmt: skip

    way.settings(f"  ControlPath {folder}/%C\n  ControlMaster auto\n  ControlPersist 600\n")
    try:
        made = ssh("-f", "-N", "uni")
        assert made.returncode == 0, made.stderr
        uni.project("import clusterkit; clusterkit.log(v=1)", "params: {i: [1, 2]}\n")
        assert uni.parrun("--wait")["states"] == {"COMPLETED": 2}
        uni.call("stop", "uni")
        assert way.server.logins() == 2
        assert ssh("-O", "check", "uni").returncode == 0
    finally:
        ssh("-O", "exit", "uni")
        shutil.rmtree(folder)


def fails(lab: Lab) -> str:
    """What a first use says; nothing is remembered of it."""
    lab.project("", "params: {i: [1]}\n")
    done = lab.call(*lab.parrun_words(), check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert facts.read(lab.home / "clusters" / "uni") is None
    assert not (lab.home / "clusters" / "uni" / "settings.json").exists()
    assert lab.experiments() == []
    return done.stderr


def test_hosts_that_cannot_be_reached(uni: Lab, way: Gate) -> None:
    config = way.home / ".ssh" / "config"
    good = config.read_text()
    config.write_text(good.replace("ProxyJump gate", "ProxyJump nowhere.invalid"))
    assert "cannot be reached by the way that your ssh settings name" in fails(uni)
    config.write_text(good.replace("HostKeyAlias machine", "HostKeyAlias other"))
    assert "key" in fails(uni)
    config.write_text(good.replace("Host uni", "Host uno"))
    assert "the name uni is not known" in fails(uni)
    config.write_text(good)
    state = json.loads(uni.call("status", "uni", "--json").stdout)
    assert state["state"] == "running"


def test_a_slurm_that_cannot_be_used(uni: Lab, slurm_home: Path, tmp_path: Path) -> None:
    def settings(**more: object) -> None:
        places.settings(tmp_path / "clusterkit.yaml", "uni", provider="attach", host="uni", **more)

    settings(slurm_conf="/nowhere/slurm.conf")
    assert "there is no /nowhere/slurm.conf on uni" in fails(uni)
    good = places.slurm_conf(slurm_home)
    settings(slurm_conf=good, python="/nowhere/python3")
    assert "'/nowhere/python3' cannot be run on uni" in fails(uni)
    settings(slurm_conf=good, sbatch={"partition": "nope"})
    assert "uni has no partition 'nope'; it has main" in fails(uni)
    settings(slurm_conf=good, root="/dev/null/x")
    assert "the folder /dev/null/x cannot be made on uni" in fails(uni)
    settings(slurm_conf=good, root="$NOWHERE/x")
    assert "$NOWHERE has no value on uni" in fails(uni)
