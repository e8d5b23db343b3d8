"""The double by hand: `python tests/doubles/gce [--hosts] [--port N]` until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

try:
    from doubles.by_hand import serve
    from doubles.gce import Gce
except ModuleNotFoundError as error:
    sys.exit(f"{error}: the double needs what the tests need, `pip install '.[dev]'`")

serve("Google Compute Engine on this machine.", Gce)
