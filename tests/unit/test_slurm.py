"""SLURM's output, as SLURM 22.05 printed it, and its forms of time and array expressions."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit import slurm
from clusterkit.records import TaskState

CAPTURED = Path(__file__).parent / "data" / "slurm-22.05"


def test_squeue_as_captured() -> None:
    elements = slurm.parse_squeue((CAPTURED / "squeue").read_text())
    assert [(e.job_id, e.indexes, e.state) for e in elements] == [
        (12, ((2, 2),), TaskState.COMPLETED),
        (12, ((0, 0),), TaskState.COMPLETED),
        (12, ((1, 1),), TaskState.COMPLETED),
        (12, ((5, 8), (11, 11)), TaskState.PENDING),
        (13, tuple((n, n) for n in range(0, 197, 7)), TaskState.PENDING),
        (12, ((4, 4),), TaskState.RUNNING),
        (12, ((3, 3),), TaskState.RUNNING),
    ]
    waiting = elements[3]
    assert waiting.reason == "JobArrayTaskLimit"
    assert waiting.job_name == "cap-a.0"
    assert waiting.count == 5
    assert waiting.holds(11)
    assert not waiting.holds(9)
    assert elements[0].node == "node1"


def test_squeue_unexpected_lines_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="unexpected line: 'slurm_load_jobs"):
        found = slurm.parse_squeue("slurm_load_jobs error\n\n7|N/A|RUNNING|None|n1|a|b\n")
    assert [(e.job_id, e.indexes, e.job_name, e.count) for e in found] == [(7, (), "a|b", 1)]


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("3", ((3, 3),)),
        ("0-9,12", ((0, 9), (12, 12))),
        ("[5-9]%2", ((5, 9),)),
        ("[5-7,9]%2", ((5, 7), (9, 9))),
        ("0-6:3", ((0, 0), (3, 3), (6, 6))),
        ("N/A", ()),
        ("", ()),
    ],
)
def test_array_expressions(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert slurm.parse_indexes(text) == ranges


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("COMPLETED", TaskState.COMPLETED),
        ("CANCELLED by 1000", TaskState.CANCELLED),
        ("CANCELLED+", TaskState.CANCELLED),
        ("completing", TaskState.RUNNING),
        ("OUT_OF_MEMORY", TaskState.OUT_OF_MEMORY),
        ("NODE_FAIL", TaskState.NODE_FAIL),
        ("DEADLINE", TaskState.TIMEOUT),
        ("REQUEUE_HOLD", TaskState.PENDING),
    ],
)
def test_states_stay_apart(word: str, state: TaskState) -> None:
    assert slurm.state(word) is state


def test_a_new_state_is_unknown_and_warned_of() -> None:
    with pytest.warns(UserWarning, match="'LAUNCH_FAILED'"):
        assert slurm.state("LAUNCH_FAILED") is TaskState.UNKNOWN


def test_show_config_as_captured() -> None:
    config = slurm.parse_config((CAPTURED / "show-config").read_text())
    assert config["MaxArraySize"] == "1000001"
    assert config["SLURM_VERSION"].startswith("22.05")
    assert config["AccountingStorageType"] == "accounting_storage/none"
    # A value that holds an equals sign is kept whole.
    assert config["SchedulerParameters"].startswith("batch_sched_delay=0,sched_interval=1,")


def test_sinfo_as_captured() -> None:
    (main,) = slurm.parse_partitions((CAPTURED / "sinfo").read_text())
    assert main == slurm.Partition("main", True, None, None, 2)


def test_sinfo_of_a_site_with_limits() -> None:
    text = "short*|1-00:00:00|1:00:00|10/20/2/32\ngpu|12:00:00|n/a|0/8/0/8\ngarbage\n"
    assert slurm.parse_partitions(text) == [
        slurm.Partition("short", True, 86400, 3600, 32),
        slurm.Partition("gpu", False, 43200, 43200, 8),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("1:00:00", 3600),
        ("1-2", 93600),
        ("1-2:30", 95400),
        ("1-02:30:15", 95415),
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("0", None),
    ],
)
def test_times(text: str, seconds: int | None) -> None:
    assert slurm.parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "1-", "-5", "1.5", "1h", "1-2:3:4:5"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="not a SLURM time"):
        slurm.parse_time(text)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ([], None),
        (["--time=1"], "1"),
        (["--time", "2"], "2"),
        (["-t", "3"], "3"),
        (["-t4"], "4"),
        (["--time=1", "--mem=4G", "-t9"], "9"),
        (["--time-min=5"], None),
        (["--time"], None),
    ],
)
def test_time_in_raw_options(options: list[str], value: str | None) -> None:
    assert slurm.time_in(options) == value


def test_sbatch_answers() -> None:
    assert slurm.parse_sbatch("17\n") == 17
    assert slurm.parse_sbatch("17;cluster\n") == 17
    assert slurm.parse_sbatch("a site's own greeting\n18\n") == 18
    for text in ("", "Submitted batch job 17", "sbatch: error"):
        with pytest.raises(ValueError, match="no job id"):
            slurm.parse_sbatch(text)


def test_sacct() -> None:
    text = (
        "12_3|TIMEOUT|0:0|TimeLimit\n"
        "12_[5-8,11%2]|PENDING|0:0|None\n"
        "12_4|CANCELLED by 1000|0:15|None\n"
        "12_4.batch|CANCELLED|0:15|\n"
        "13|COMPLETED|0:0|None\n"
    )
    assert [(e.job_id, e.indexes, e.state) for e in slurm.parse_sacct(text)] == [
        (12, ((3, 3),), TaskState.TIMEOUT),
        (12, ((5, 8), (11, 11)), TaskState.PENDING),
        (12, ((4, 4),), TaskState.CANCELLED),
    ]


def test_argument_lists() -> None:
    assert slurm.sbatch_argv("/a b/script", ["0", "3"], ["--array=0-2"]) == [
        "sbatch", "--parsable", "--array=0-2", "/a b/script", "0", "3",
    ]  # fmt: skip
    assert slurm.squeue_argv(["a", "b"])[-1] == "--name=a,b"
    assert slurm.scancel_argv([1, 2]) == ["scancel", "1", "2"]
    assert slurm.scancel_argv([1], pending_only=True) == ["scancel", "--state=PENDING", "1"]
    assert "--starttime=1970-01-01" in slurm.sacct_argv([1, 2])


def test_why_a_job_waits_is_said_in_words() -> None:
    assert slurm.explain("PartitionConfig") == (
        "no node of the partition has what it asks for (PartitionConfig)"
    )
    assert slurm.explain("JobHeldUser").startswith("it is held")
    assert slurm.explain("SomethingNew") == "SomethingNew"
