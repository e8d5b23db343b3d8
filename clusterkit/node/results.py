"""A task's result.json."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Optional

#: A result.json larger than this (bytes) is an error: large results are files.
MAX_RESULT = 1 << 20
#: So deep may its lists and mappings be nested: every reader of JSON has a limit.
MAX_DEPTH = 64


def read(path: str) -> "tuple[Optional[dict[str, Any]], Optional[str]]":
    """The task's result.json, and what is wrong with it."""
    try:
        # Not blocking: a task may have made anything of that name, a FIFO too.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None, "result.json is no regular file"
            data = file.read(MAX_RESULT + 1)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"result.json cannot be read: {error.strerror}"
    if len(data) > MAX_RESULT:
        return None, f"result.json is larger than {MAX_RESULT} bytes; write large results as files"
    try:
        found = json.loads(data)
    except ValueError as error:
        return None, f"result.json is not JSON: {error}"
    except RecursionError:
        return None, f"result.json is nested deeper than {MAX_DEPTH} levels"
    if not isinstance(found, dict):
        return None, "result.json holds no mapping of names to values"
    if _too_deep(found, MAX_DEPTH):
        return None, f"result.json is nested deeper than {MAX_DEPTH} levels"
    return found, None


def _too_deep(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return left == 0 or any(_too_deep(item, left - 1) for item in value)
