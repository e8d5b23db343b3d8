"""A slot: one element of a job array, which runs tasks until it has been worth its start.

The process that SLURM starts only supervises: it forks a worker, passes signals on, and forks a new
one when the worker was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from clusterkit.node import attempt
from clusterkit.node.worker import Element, Settings, Worker

#: How often a killed worker is replaced.
MAX_WORKERS = 3


def main(root: str, element: Element) -> int:
    """Supervise: the exit code of the batch script."""
    with open(os.path.join(root, "run.json"), encoding="utf-8") as file:
        settings = Settings(**json.load(file))
    signal.pthread_sigmask(signal.SIG_BLOCK, attempt.EVENTS)
    begun = time.monotonic()
    code = 1
    for _ in range(MAX_WORKERS):
        worker = os.fork()
        if worker == 0:
            _work(settings, element, begun)
        while True:
            event = signal.sigwaitinfo(attempt.EVENTS)
            if event.si_signo != signal.SIGCHLD:
                os.kill(worker, event.si_signo)
                continue
            pid, status = os.waitpid(worker, os.WNOHANG)
            if pid:
                break
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        code = 128 + os.WTERMSIG(status)
        print(
            f"the slot's worker was killed by signal {os.WTERMSIG(status)}; starting another one",
            file=sys.stderr,
            flush=True,
        )
    return code


def _work(settings: Settings, element: Element, begun: float) -> None:
    """The forked worker's whole life; never returns."""
    code = 1
    try:
        Worker(settings, element, begun).run()
        code = 0
    except (
        BaseException
    ):  # the process ends here, and its reason must be found in the slot's output
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
