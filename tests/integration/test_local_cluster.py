"""`start`, `stop`, `list`, `ssh` against a real SLURM, and what may go wrong between them."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Clusterkit, command, environment, start_or_skip

from clusterkit import cluster, paths
from clusterkit.cluster import processes
from clusterkit.cluster.access import Identity
from clusterkit.cluster.providers.local import LocalProvider
from clusterkit.cluster.spec import LocalSpec
from clusterkit.errors import ClusterNotStarted

pytestmark = pytest.mark.slurm
root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def facts(home: Path) -> dict[str, Any]:
    return json.loads((home / "clusters" / "local" / "facts.json").read_text())


def pids(home: Path) -> dict[str, int]:
    return {name: one["pid"] for name, one in facts(home)["daemons"].items()}


def kill(*numbers: int) -> None:
    seen = [process for number in numbers if (process := processes.look(number)) is not None]
    assert processes.kill(seen) == []


def belongs(home: Path) -> list[str]:
    """Every process of this user whose command line or environment names `home`."""
    found = []
    for process in processes.mine():
        if process.pid == os.getpid():
            continue
        proc = Path("/proc") / str(process.pid)
        try:
            text = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in text:
            found.append(f"{process.pid} {process.name}")
    return found


def saved_by_the_controller(home: Path, job_name: str) -> None:
    """Wait until slurmctld has written the job down.

    It saves a new one within about five seconds, and forgets it when it is killed before.
    """
    state = home / "clusters" / "local" / "slurm" / "state" / "job_state"
    until = time.monotonic() + 180
    while not state.exists() or job_name.encode() not in state.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.1)


def runs_a_job(clusterkit: Clusterkit, home: Path) -> str:
    done = clusterkit("ssh", "local", "--", "srun", "--immediate=180", "hostname", home=home)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, clusterkit: Clusterkit) -> Iterator[Path]:
    """A started cluster that these tests may maltreat."""
    home = tmp_path_factory.mktemp("own")
    try:
        start_or_skip(home)
        yield home
    finally:
        clusterkit("stop", "local", "--yes", home=home)
        assert belongs(home) == []


def test_a_second_start_changes_nothing(own: Path, clusterkit: Clusterkit) -> None:
    before = facts(own)
    done = json.loads(clusterkit("start", "local", "--json", home=own).stdout)
    assert done["changed"] == 0
    assert facts(own)["daemons"] == before["daemons"]
    assert facts(own)["ports"] == before["ports"]


def test_connect_knows_the_limits_and_is_quick(own: Path) -> None:
    connection = cluster.connect("local", paths.Home(own))
    assert connection.limits.max_array_size == 1_000_001
    assert connection.limits.cpus == len(os.sched_getaffinity(0))
    assert connection.root == str(own / "clusters" / "local" / "work")
    assert connection.run(["sinfo", "--noheader", "--format=%T"]).text.strip() in ("idle", "mixed")


def test_list_and_exit_codes(own: Path, clusterkit: Clusterkit) -> None:
    (one,) = json.loads(clusterkit("list", "--json", home=own).stdout)
    assert (one["name"], one["state"]) == ("local", "running")
    assert (
        clusterkit("ssh", "local", "--", "sh", "-c", "exit 7", home=own, check=False).returncode
        == 7
    )
    wrong = clusterkit("start", "locol", home=own, check=False)
    assert wrong.returncode == 1
    assert "Did you mean 'local'?" in wrong.stderr


def test_nothing_secret_is_in_the_logs(own: Path) -> None:
    folder = own / "clusters" / "local"
    key = folder / "munge" / "munge.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_bytes()
    for file in (folder / "runs").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert secret not in data
            assert secret.hex().encode() not in data


@pytest.mark.parametrize("name", ["munged", "slurmctld", "slurmd"])
def test_a_killed_daemon_is_healed(own: Path, clusterkit: Clusterkit, name: str) -> None:
    begun = own / f"outlives-{name}"
    os.mkfifo(begun)
    job = clusterkit(
        "ssh", "local", "--", "sbatch", "--parsable", f"--job-name=outlives-{name}",
        "--output=/dev/null", f"--wrap=echo > {begun}; sleep 300", home=own,
    ).stdout.strip()  # fmt: skip
    begun.read_text()  # waits for the job to write
    if name == "slurmctld":
        saved_by_the_controller(own, f"outlives-{name}")
    before = pids(own)
    kill(before[name])
    with pytest.raises(ClusterNotStarted, match="clusterkit start local"):
        cluster.connect("local", paths.Home(own))
    clusterkit("start", "local", home=own)
    after = pids(own)
    assert after[name] != before[name]
    assert {**after, name: 0} == {**before, name: 0}  # the others were left alone
    assert runs_a_job(clusterkit, own)
    state = clusterkit("ssh", "local", "--", "squeue", "-h", "-j", job, "-o", "%T", home=own)
    assert state.stdout.strip() == "RUNNING"  # jobs outlive it
    clusterkit("ssh", "local", "--", "scancel", job, home=own)


def test_after_a_reboot_with_a_port_taken(own: Path, clusterkit: Clusterkit) -> None:
    """All daemons gone, their pids somebody else's, their port too, and a running job with them."""
    job = clusterkit(
        "ssh", "local", "--", "sbatch", "--parsable", "--job-name=ghost", "--output=/dev/null",
        f"--wrap=test -e {own}/again && exit; touch {own}/again; sleep 300", home=own,
    ).stdout.strip()  # fmt: skip
    saved_by_the_controller(own, "ghost")
    before = facts(own)
    where = own / "clusters" / "local"
    provider = LocalProvider(LocalSpec(), Identity("local", "0" * 16, where), where)
    running = provider._running()
    assert running.steps
    kill(*(process.pid for process in running.all))
    folder = own / "clusters" / "local"
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        for file in ("slurm/slurmctld.pid", "slurm/slurmd.pid", "munge/munged.pid"):
            (folder / file).write_text(f"{bystander.pid}\n")
        data = {**before, "daemons": {
            name: {**one, "pid": bystander.pid} for name, one in before["daemons"].items()
        }}  # fmt: skip
        (folder / "facts.json").write_text(json.dumps(data))
        with pytest.raises(ClusterNotStarted):
            cluster.connect("local", paths.Home(own))
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", before["ports"]["slurmctld"]))
            taken.listen()
            clusterkit("start", "local", home=own)
        assert facts(own)["ports"]["slurmctld"] != before["ports"]["slurmctld"]
        assert facts(own)["ports"]["slurmd"] == before["ports"]["slurmd"]
        assert runs_a_job(clusterkit, own)
        assert bystander.poll() is None
        shown = clusterkit("ssh", "local", "--", "scontrol", "show", "job", job, home=own).stdout
        assert "Restarts=1" in shown  # SLURM's own begin delay for a requeued job still holds it
        clusterkit("ssh", "local", "--", "scancel", job, home=own)
    finally:
        bystander.kill()
        bystander.wait()


def test_two_clusterkits_at_once(own: Path, clusterkit: Clusterkit) -> None:
    with (own / "clusters" / "local" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for action in (["start", "local"], ["stop", "local", "--yes"]):
            done = clusterkit(*action, home=own, check=False)
            assert done.returncode == 1
            assert "another clusterkit (pid " in done.stderr


def test_two_clusters_at_once(own: Path, slurm_home: Path, clusterkit: Clusterkit) -> None:
    assert not set(facts(own)["ports"].values()) & set(facts(slurm_home)["ports"].values())
    assert runs_a_job(clusterkit, own) == runs_a_job(clusterkit, slurm_home)


def test_stop_asks_ends_everything_and_keeps_results(own: Path, clusterkit: Clusterkit) -> None:
    result = own / "clusters" / "local" / "work" / "result.txt"
    result.write_text("kept")
    started = own / "started"
    script = f"setsid sleep 301 & touch {started}; sleep 302"
    fifo_watch = subprocess.Popen(
        [*command("ssh", "local", "--", "srun", "--quiet", "sh", "-c", script)],
        env=environment(own), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    clusterkit(
        "ssh", "local", "--", "sbatch", "--wait", "--output=/dev/null",
        f"--wrap=while ! test -e {started}; do sleep 0.05; done", home=own,
    )  # fmt: skip
    refused = clusterkit("stop", "local", home=own, check=False)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    ports = facts(own)["ports"].values()
    done = json.loads(clusterkit("stop", "local", "--yes", "--json", home=own).stdout)
    fifo_watch.wait(timeout=180)
    assert done["jobs"] == 1
    assert belongs(own) == []
    assert not any(processes.port_in_use(port) for port in ports)
    assert result.read_text() == "kept"
    with pytest.raises(ClusterNotStarted, match="not started"):
        cluster.connect("local", paths.Home(own))
    again = clusterkit("stop", "local", home=own)
    assert "was not running" in again.stdout


@pytest.mark.parametrize("moment", ["reach", "Set up SLURM", "Verify"])
def test_a_start_killed_at_any_moment_goes_on(
    own: Path, clusterkit: Clusterkit, moment: str
) -> None:
    clusterkit("stop", "local", "--yes", home=own)
    first = subprocess.Popen(
        command("start", "local"),
        env=environment(own, {"PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert first.stdout is not None
    seen = b""
    while moment.encode() not in seen:
        piece = os.read(first.stdout.fileno(), 1000)
        assert piece, f"start ended before {moment}: {seen!r}"
        seen += piece
    first.kill()
    first.wait()
    first.stdout.close()
    clusterkit("start", "local", home=own)
    assert runs_a_job(clusterkit, own)
    assert set(pids(own)) == {"munged", "slurmctld", "slurmd"}


def test_a_long_path_with_awkward_characters(tmp_path: Path, clusterkit: Clusterkit) -> None:
    home = tmp_path / ("a long folder's name, mit Umläuten {{ 7 * 7 }} #" + "x" * 60)
    try:
        start_or_skip(home)
        assert runs_a_job(clusterkit, home)
        alias = Path(facts(home)["slurm_conf"]).parents[2]
        assert stat.S_IMODE(alias.stat().st_mode) == 0o700
        shutil.rmtree(alias)  # as a cleaner of /tmp does
        clusterkit("start", "local", home=home)
        assert runs_a_job(clusterkit, home)
    finally:
        clusterkit("stop", "local", "--yes", home=home)
        assert belongs(home) == []
    assert not alias.exists()


@pytest.mark.root
@root
def test_gpus_become_gres(tmp_path: Path, clusterkit: Clusterkit) -> None:
    devices = [Path(f"/dev/nvidia{number}") for number in range(2)]
    if any(device.exists() for device in devices):
        pytest.skip("this machine has real ones")
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\necho '0, NVIDIA A100-SXM4-40GB, 40960'\necho '1, Tesla T4, [N/A]'\n"
    )
    fake.chmod(0o755)
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    home = tmp_path / "home"
    try:
        for number, device in enumerate(devices):
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3 + 2 * number))
        done = json.loads(clusterkit("start", "local", "--json", home=home, env=env).stdout)
        assert done["facts"]["gpus"] == ["a100_sxm4_40gb", "tesla_t4"]
        seen = clusterkit(
            "ssh", "local", "--", "srun", "--gres=gpu:1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES",
            home=home,
        )  # fmt: skip
        assert seen.stdout.strip() in ("0", "1")
        typed = clusterkit(
            "ssh", "local", "--", "srun", "--gres=gpu:tesla_t4:1", "sh", "-c",
            "echo $CUDA_VISIBLE_DEVICES", home=home,
        )  # fmt: skip
        assert typed.stdout.strip() == "1"
    finally:
        clusterkit("stop", "local", "--yes", home=home)
        for device in devices:
            device.unlink(missing_ok=True)


@pytest.fixture
def somebody() -> Iterator[pwd.struct_passwd]:
    """An ordinary user, for one test."""
    name = f"ck{os.getpid()}"
    subprocess.run(["/usr/sbin/useradd", "--create-home", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["/usr/sbin/userdel", "--remove", name], check=True, capture_output=True)


@pytest.mark.root
@root
def test_an_ordinary_user_can_do_all_of_it(somebody: pwd.struct_passwd) -> None:
    home = Path(somebody.pw_dir)
    tools = home / "bin"
    tools.mkdir()
    # This Python may lie in a folder that only root may enter; the system's one then reads the
    # same packages.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(version, path="/usr/bin:/bin")
    if system is None:
        pytest.skip(f"no {version} that another user may run")
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    playbook = tools / "ansible-playbook"
    playbook.write_text(f'#!/bin/sh\nexec {system} -m ansible playbook "$@"\n')
    playbook.chmod(0o755)
    env = {
        "HOME": str(home), "USER": somebody.pw_name, "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join([str(REPOSITORY), *packages]),
        "PATH": f"{tools}:/usr/bin:/bin",  # no sbin, as for ordinary users
    }  # fmt: skip

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [system, "-m", "clusterkit", *args], user=somebody.pw_uid, group=somebody.pw_gid,
            extra_groups=[], env=env, cwd=home, capture_output=True, text=True, timeout=300,
            start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    if run("--version").returncode != 0:
        pytest.skip("this checkout is not readable for another user")
    try:
        started = run("start", "local")
        assert started.returncode == 0, started.stderr
        who = run("ssh", "local", "--", "srun", "id", "-un")
        assert who.stdout.strip() == somebody.pw_name, who.stderr
    finally:
        stopped = run("stop", "local", "--yes")
    assert stopped.returncode == 0, stopped.stderr
