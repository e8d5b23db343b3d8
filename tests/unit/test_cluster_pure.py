"""Inventory, hardware, facts, parsers: values in, values out."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from clusterkit import cluster
from clusterkit.cluster import facts, hardware, inventory, processes, state
from clusterkit.cluster.hardware import Gpu
from clusterkit.cluster.providers import Machine
from clusterkit.errors import ClusterNotStarted, UnknownCluster
from clusterkit.paths import Home

HEAD = Machine("head", "10.0.0.1", ("head",), 4, 8000, ansible={"ansible_user": "admin"})
GPUS = (Gpu("t4", "/dev/nvidia0"), Gpu("t4", "/dev/nvidia1"), Gpu("a100", "/dev/nvidia2"))
WORKERS = (
    Machine("w1", "10.0.0.2", ("worker",), 8, 16000, GPUS),
    Machine("w2", "10.0.0.3", ("worker",), 2, 3000),
)


def test_inventory_of_several_machines() -> None:
    (everything,) = inventory.build(
        "lab", [HEAD, *WORKERS], {"slurm_conf": {"A": 1, "B": 2}}, {"B": 3}
    ).values()
    assert isinstance(everything, dict)
    groups = {name: list(group["hosts"]) for name, group in everything["children"].items()}
    assert groups == {
        "munge": ["head", "w1", "w2"], "slurm": ["head", "w1", "w2"],
        "head": ["head"], "worker": ["w1", "w2"],
    }  # fmt: skip
    values = everything["vars"]
    assert values["slurm_ctld_host"] == "head(10.0.0.1)"
    assert values["slurm_conf"] == {"A": 1, "B": 3, "GresTypes": "gpu"}
    assert values["slurm_nodes"][0]["Gres"] == "gpu:t4:2,gpu:a100:1"
    assert "Gres" not in values["slurm_nodes"][1]
    assert values["slurm_partitions"][0]["DefMemPerCPU"] == 1500
    assert [line["File"] for line in values["slurm_gres"]] == [gpu.device for gpu in GPUS]
    assert everything["hosts"]["head"] == {"ansible_user": "admin"}


@pytest.mark.parametrize("machines", [[], [HEAD], list(WORKERS), [HEAD, HEAD, *WORKERS]])
def test_inventory_needs_one_head_and_workers(machines: list[Machine]) -> None:
    with pytest.raises(ValueError, match="one head"):
        inventory.build("lab", machines, {})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100_sxm4_40gb"),
        ("NVIDIA GeForce RTX 3090", "rtx_3090"),
        ("Tesla V100-PCIE-16GB", "tesla_v100_pcie_16gb"),
        ("::", "gpu"),
    ],
)
def test_gpu_type(model: str, expected: str) -> None:
    assert hardware.gpu_type(model) == expected


def test_nvidia_smi_is_parsed() -> None:
    text = "1, NVIDIA H200, 143771\n0, Odd, name, [N/A]\nNo devices were found\n"
    assert hardware.parse_nvidia_smi(text) == [(0, "Odd, name", None), (1, "NVIDIA H200", 143771)]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    program.write_text("#!/bin/sh\necho '0, NVIDIA L4, 23034'\n")
    program.chmod(0o755)
    return program


def test_gpus_have_device_files(nvidia_smi: Path, tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    (devices / "nvidiactl").touch()
    found = hardware.this_machine(devices)
    assert found.gpus == ()
    assert "nvidia-smi lists 1" in found.notes[0]
    (devices / "nvidia3").touch()  # a container with one GPU of its host
    assert hardware.this_machine(devices).gpus == (Gpu("l4", f"{devices}/nvidia3", 23034),)
    (devices / "nvidia0").touch()
    assert hardware.this_machine(devices).gpus[0].device == f"{devices}/nvidia0"


def test_a_failing_nvidia_smi_is_no_gpu(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    found = hardware.this_machine()
    assert found.gpus == ()
    assert "no driver" in found.notes[0]


def test_memory_is_a_bit_under_the_total() -> None:
    assert hardware.usable_memory("MemTotal:       10485760 kB\nMemFree: 1 kB\n") == 9932


def test_facts_survive_a_round_trip_and_garbage(tmp_path: Path) -> None:
    one = facts.Facts(
        "local", "local", "2026-01-01T00:00:00+00:00", "/c/slurm.conf", "/usr/bin", "22.05.8",
        "/usr/bin/python3", "/c/work", 1001, None, 2, 1000, ("t4",), {"slurmctld": 1},
        {"slurmctld": facts.Daemon(1, 2)},
    )  # fmt: skip
    assert facts.read(tmp_path) is None
    one.write(tmp_path)
    assert facts.read(tmp_path) == one
    assert [file.name for file in tmp_path.iterdir()] == [facts.FILE]
    for garbage in ("", "{", "[]", '{"cluster": "x"}', '{"daemons": 3}'):
        (tmp_path / facts.FILE).write_text(garbage)
        assert facts.read(tmp_path) is None


def test_connect_says_what_to_do(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(UnknownCluster, match="Did you mean 'local'"):
        cluster.connect("Locall", home)
    with pytest.raises(UnknownCluster, match="clusterkit init NAME"):
        cluster.connect("../../etc", home)
    with pytest.raises(ClusterNotStarted, match="clusterkit start local"):
        cluster.connect("local", home)


def test_sinfo_and_squeue_are_parsed() -> None:
    nodes = state.parse_nodes(
        "vm|mixed|1/1/0/2|23382|(null)|none\nvm|mixed|1/1/0/2|23382|(null)|none\n"
        "w1|down*|0/0/4/4|900|gpu:t4:1|Not responding\n"
    )
    assert nodes == (
        state.Node("vm", "mixed", 2, 1, 23382, ""),
        state.Node("w1", "down*", 4, 0, 900, "gpu:t4:1", "Not responding"),
    )
    queue = "RUNNING|3\nRUNNING|N/A\nPENDING|4-9,12\nCOMPLETING|1\n"
    assert state.parse_queue(queue) == (3, 7)


def test_a_process_is_more_than_its_pid() -> None:
    child = subprocess.Popen(["sleep", "100"])
    seen = processes.look(child.pid)
    assert seen is not None
    assert seen.name == "sleep"
    somebody_else = processes.Process(seen.pid, seen.start + 1, seen.name, seen.parent)
    assert processes.kill([somebody_else]) == []
    assert child.poll() is None
    assert processes.wait([seen], 0.01) == [seen]
    assert processes.end([seen], 5) == []
    child.wait()
    assert processes.look(child.pid) is None


def test_ending_is_not_taken_for_an_answer() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    seen = processes.look(child.pid)
    assert seen is not None
    assert processes.end([seen], 0.1) == []
    assert child.wait() == -9
    child.stdout.close()


def test_ports() -> None:
    port = processes.free_port()
    assert not processes.port_in_use(port)
    with socket.socket() as one:
        one.bind(("127.0.0.1", port))
        one.listen()
        assert processes.port_in_use(port)
        me = processes.look(os.getpid())
        assert me is not None
        assert port in processes.listening(me)
