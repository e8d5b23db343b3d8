"""Taking nodes out of SLURM without hurting jobs, and telling it that a machine has died."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from clusterkit.errors import ClusterError, CommandFailed
from clusterkit.transport import Transport

#: Why a node is down whose machine died or left.
GONE = "clusterkit: its machine is gone"
#: Seconds between two looks at whether the nodes are empty, grown up to the second number.
_LOOK, _LOOK_AT_MOST = 1.0, 15.0


def drain(
    head: Transport, nodes: Sequence[str], reason: str, say: Callable[[str], None], *, now: bool
) -> None:
    """Let nothing new start on `nodes`, and wait until their jobs have ended.

    With `now` the jobs are put back into the queue instead of waited for.
    """
    if not nodes:
        return
    names = ",".join(nodes)
    try:
        head.run(["scontrol", "update", f"NodeName={names}", "State=DRAIN", f"Reason={reason}"])
    except CommandFailed as error:
        if "Invalid node name" in error.stderr:  # SLURM does not know them any more: nothing runs
            return
        raise
    if now:
        requeue(head, nodes, reason)
        return
    pause, told = _LOOK, 0
    while jobs := _jobs(head, names):
        if len(jobs) != told:
            told = len(jobs)
            say(f"waiting for {told} job{'' if told == 1 else 's'} on {names}")
        # slurmctld has no event for "drained" that can be waited for; it is asked ever more rarely.
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_AT_MOST)


def requeue(head: Transport, nodes: Sequence[str], reason: str) -> None:
    """Tell SLURM that these nodes are gone: their jobs go back into the queue at once.

    Without that it would notice only after SlurmdTimeout.
    """
    if nodes:
        head.run(
            ["scontrol", "update", f"NodeName={','.join(nodes)}", "State=DOWN", f"Reason={reason}"]
        )


def resume(head: Transport, nodes: Sequence[str]) -> None:
    """Let jobs run again on nodes that were drained or down."""
    if nodes:
        argv = ["scontrol", "update", f"NodeName={','.join(nodes)}", "State=RESUME"]
        try:
            head.run(argv)
        except CommandFailed as error:
            # "Invalid node state specified": they are neither drained nor down, which is well.
            if "Invalid node state" not in error.stderr:
                raise ClusterError(
                    f"the nodes {', '.join(nodes)} cannot be resumed: {error}"
                ) from error


def release_held(head: Transport, env: Mapping[str, str] | None = None, bin_: str = "") -> None:
    """Let jobs run again that SLURM requeued and held when their node was in disorder."""
    listed = head.run([f"{bin_}squeue", *_HELD_ARGUMENTS], env=env).text
    for job in held(listed):
        head.run([f"{bin_}scontrol", "release", job], env=env, check=False)


_HELD_ARGUMENTS = (
    "--noheader", "--states=PENDING", "--Format=JobArrayID:40,RestartCnt:12,Reason:64",
)  # fmt: skip


def held(listed: str) -> list[str]:
    """Lines of squeue (`_HELD_ARGUMENTS`): the jobs that ran before and are held now."""
    found = []
    for line in listed.splitlines():
        job, restarts, reason = line[:40].strip(), line[40:52].strip(), line[52:].strip()
        if restarts not in ("", "0") and ("held" in reason or reason.startswith("JobHeld")):
            found.append(job)
    return found


def _jobs(head: Transport, nodes: str) -> list[str]:
    listed = head.run(
        [
            "squeue",
            "--noheader",
            f"--nodelist={nodes}",
            "--states=RUNNING,COMPLETING",
            "--format=%A",
        ]
    )
    return listed.text.split()
