"""Gather the files that tasks left in CLUSTERKIT_OUT."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from clusterkit.errors import ClusterkitError, CommandFailed, TransportError
from clusterkit.node import wire
from clusterkit.records import Experiment
from clusterkit.transport import Connection, Local


def gather(
    connection: Connection, experiment: Experiment, pattern: str, target: Path
) -> tuple[int, int]:
    """Bring files that fit `pattern` to `target/<task>/<path>`: how many were new, and are there.

    `pattern` is for the path inside a task's folder; a leading `out/` may stand before it. Files
    that are there already with the same size and time are not sent again; one appears whole or not
    at all. Raises TransportError, and ClusterkitError when `target` cannot be written.
    """
    pattern = pattern.removeprefix("out/")
    known = {
        file.relative_to(target).as_posix(): [file.stat().st_size, file.stat().st_mtime_ns]
        for file in target.rglob("*")
        if file.is_file()
    }
    program = f"{experiment.lib}/clusterkit/node/__main__.py"
    argv = [connection.python, "-I", "-S", program, "files", experiment.root]
    packed = not isinstance(connection.transport, Local)
    argv.append(json.dumps({"pattern": pattern, "packed": packed}))
    new = 0
    try:
        with connection.transport.stream(
            argv, input=json.dumps(known).encode() + b"\n", env=connection.env
        ) as stream:
            source = wire.unpacked(stream)
            if source.peek(1):  # else the command failed, and will tell why
                with tarfile.open(fileobj=source, mode="r|") as archive:
                    for member in archive:
                        place(archive, member, target)
                        new += 1
            source.read()  # the padding behind the archive's end
    except CommandFailed as error:
        raise TransportError(
            f"the files of experiment {experiment.id} cannot be read on {experiment.cluster}: "
            f"{error.stderr.strip() or error}"
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise TransportError(f"the connection broke in the middle ({error}); repeat it") from error
    except OSError as error:
        raise ClusterkitError(f"{target}: cannot be written: {error.strerror}") from error
    return new, sum(1 for file in target.rglob("*") if file.is_file())


def place(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
    seen: Callable[[bytes], object] = lambda _: None,
) -> int:
    """Write one file, inside `target` only, whatever the archive says; its size in bytes.

    `seen` gets its content. The file appears whole, with its time of change, or not at all.
    """
    name = PurePosixPath(member.name)
    content = archive.extractfile(member)
    if content is None or name.is_absolute() or ".." in name.parts:
        raise TransportError(f"the cluster sent something that is no file of a task: {member.name}")
    file = target / name
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with part.open("wb") as opened:
        while block := content.read(1 << 20):
            seen(block)
            opened.write(block)
        size = opened.tell()
    seconds = member.pax_headers.get("mtime", str(member.mtime))
    whole, _, fraction = seconds.partition(".")
    stamp = int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    os.utime(part, ns=(stamp, stamp))
    part.replace(file)
    return size
