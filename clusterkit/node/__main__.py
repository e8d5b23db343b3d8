"""The programs of a node: `slot`, `collect`, `files`, `keep`, `log`, `build`, `code`.

Run by path, with `python -I -S`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def main(argv: list[str]) -> int:
    """`argv`: the program's name, the experiment's folder, its arguments as JSON.

    For a slot also the number of its array's first element and the array's size.
    """
    program, root, text, *rest = argv
    arguments = json.loads(text)
    if program == "slot":
        from clusterkit.node import slot, worker

        offset, size = int(rest[0]), int(rest[1])
        index = int(os.environ["SLURM_ARRAY_TASK_ID"])
        element = worker.Element(
            root=root,
            number=offset + index,
            last=offset + size - 1,
            index=index,
            **arguments,
        )
        return slot.main(root, element)
    from clusterkit.node import collect

    if program == "collect":
        offsets = json.loads(sys.stdin.readline() or "{}")
        with _out(arguments.get("packed", False)) as out:
            collect.send(root, offsets, arguments["follow"], out)
        return 0
    if program == "files":
        from clusterkit.node import files, wire

        known = json.loads(sys.stdin.readline() or "{}")
        found = files.paths(root, arguments["pattern"])
        with _out(arguments.get("packed", False) and wire.pays(found)) as out:
            files.send(root, arguments["pattern"], known, out)
        return 0
    if program == "keep":
        from clusterkit.node import keep, wire

        if arguments.get("list"):
            print(json.dumps(keep.inventory(root)))
            return 0
        known = json.loads(sys.stdin.readline() or "{}")
        with _out(arguments["packed"] and wire.pays(keep.paths(root))) as out:
            keep.send(root, known, out)
        return 0
    if program == "code":
        from clusterkit.node import code

        question = json.loads(sys.stdin.readline())
        if "folders" in question:
            print(json.dumps(code.have(question["folders"], question["wanted"])))
        else:
            target = os.path.join(root, "code")
            print(json.dumps(code.fill(target, question["source"], question["wanted"])))
        return 0
    if program == "build":
        from clusterkit.node import build

        return build.main(root, arguments)
    if program == "log":
        try:
            collect.print_log(root, out=sys.stdout.buffer, **arguments)
        except LookupError as error:
            print(error.args[0], file=sys.stderr)
            return 1
        return 0
    print(f"unknown program {program!r}", file=sys.stderr)
    return 2


@contextmanager
def _out(packed: bool) -> "Iterator[Any]":
    """Standard output, compressed or as it is."""
    if not packed:
        yield sys.stdout.buffer
        return
    from clusterkit.node import wire

    out = wire.Packed(sys.stdout.buffer)
    yield out
    out.close()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FileNotFoundError as error:
        if sys.argv[1:2] == ["slot"]:
            raise  # its traceback is kept in the slot's own output
        sys.exit(f"{error.filename}: not found")
    except BrokenPipeError:
        os._exit(141)  # the reader left
