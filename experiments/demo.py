"""The whole path on this machine: start, parrun, harvest, stop. Run by `make demo`.

It uses a data folder of its own, so that it neither sees nor changes the user's, and removes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "demo-out"


def clusterkit(home: Path, *words: str) -> None:
    """Run one command as a user would, and show it."""
    print(f"\n$ clusterkit {' '.join(words)}", flush=True)
    environment = {**os.environ, "CLUSTERKIT_HOME": str(home)}
    subprocess.run(
        [sys.executable, "-m", "clusterkit", *words],
        cwd=HERE / "digits-mlp",
        env=environment,
        check=True,
    )


def main() -> None:
    """Exit code 0 only when all of it worked."""
    begun = time.monotonic()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clusterkit-demo-") as folder:
        home = Path(folder)
        clusterkit(home, "start", "local")
        try:
            words = ["parrun", "train.py", "--grid", "grid.yaml", "--name", "digits-mlp"]
            words += ["-m", "does width matter?", "--wait"]
            clusterkit(home, *words)
            plot, table = OUT / "digits-mlp.png", OUT / "digits-mlp.csv"
            clusterkit(home, "harvest")
            words = ["--x", "width", "--y", "accuracy", "--by", "lr"]
            clusterkit(home, "harvest", "--to", str(table), "--plot", str(plot), *words)
        finally:
            clusterkit(home, "stop", "local", "--yes", "--discard")
    print(f"\nDone in {time.monotonic() - begun:.0f} s: {table} and {plot}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: {' '.join(error.cmd[3:])} ended with exit code {error.returncode}")
