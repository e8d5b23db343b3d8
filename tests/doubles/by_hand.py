"""A double that runs by itself: its options, its environment, its end."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from doubles.hosts import Hosts


def serve(description: str, double: Callable[..., Any]) -> None:
    """Until Ctrl-C or SIGTERM; then how often each call came."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--hosts", action="store_true", help="real machines behind it (root)")
    parser.add_argument(
        "--port", type=int, default=0, help="of 127.0.0.1; any free one if left out"
    )
    said = parser.parse_args()
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):  # also in the background of a script
        signal.signal(one, lambda *_: ended.set())
    with double(Hosts() if said.hosts else None, port=said.port) as made:
        for key, value in made.environment.items():
            print(f"export {key}={value}")
        sys.stdout.flush()
        ended.wait()
        for name, count in sorted(made.counts().items()):
            print(f"{count:5} {name}", file=sys.stderr)
