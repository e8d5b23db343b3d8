"""The double by hand: `python tests/doubles/gce [--hosts] [--port N]` until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

try:
    from doubles.gce import Gce
    from doubles.hosts import Hosts
except ModuleNotFoundError as error:
    sys.exit(f"{error}: the double needs what the tests need, `pip install '.[dev]'`")


def main() -> None:
    parser = argparse.ArgumentParser(description="Google Compute Engine on this machine.")
    parser.add_argument("--hosts", action="store_true", help="real machines behind it (root)")
    parser.add_argument(
        "--port", type=int, default=0, help="of 127.0.0.1; any free one if left out"
    )
    said = parser.parse_args()
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):  # also in the background of a script
        signal.signal(one, lambda *_: ended.set())
    with Gce(Hosts() if said.hosts else None, port=said.port) as gce:
        for key, value in gce.environment.items():
            print(f"export {key}={value}")
        sys.stdout.flush()
        ended.wait()
        for name, count in sorted(gce.counts().items()):
            print(f"{count:5} {name}", file=sys.stderr)


main()
