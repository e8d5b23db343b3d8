"""One tar stream: a folder that appears whole on the far side, a tree that comes or goes."""

from __future__ import annotations

import gzip
import io
import secrets
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clusterkit.transport.base import Content

#: What UNPACK and EXTRACT end with where gzip is missing; nothing was changed.
NO_GZIP = 93
#: zlib's fastest level: sources become a third at 60 MB/s (measured; level 6: 0.28 at 20 MB/s),
#: which pays on any network below 1 Gbit/s.
_LEVEL = 1
_SMALL = 64 * 1024
_SAMPLE = 16 * 1024

# It unpacks into a folder of a unique name beside the target and renames that. A stream that broke
# off has no "end" in it, whatever tar thinks of it. Two at once: the later `mv` moves *into* the
# folder that is there by then, where the unique name finds it again. PIPE: a connection that broke
# hears no complaint, and tidying up comes after the complaint.
_UNPACK = """
target=$1 parent=$2 name=$3 packed=$4
part=$parent/$name
[ -e "$target" ] && exit 0
[ -z "$packed" ] || command -v gzip >/dev/null 2>&1 || exit 93
trap 'rm -rf -- "$part"' EXIT
trap 'exit 1' HUP INT TERM
trap '' PIPE
mkdir -p -- "$parent" && mkdir -- "$part" || exit 1
if [ -n "$packed" ]; then gzip -dc | tar -xpof - -C "$part"; else tar -xpof - -C "$part"; fi
[ -e "$part/end" ] || { echo "the stream broke off" >&2; exit 1; }
[ -e "$target" ] && exit 0
mv -- "$part/$name" "$target" || exit 1
rm -rf -- "$target/$name"
"""

_EXTRACT = """
target=$1 packed=$2
[ -z "$packed" ] || command -v gzip >/dev/null 2>&1 || exit 93
mkdir -p -- "$target" || exit 1
if [ -n "$packed" ]; then gzip -dc | tar -xpof - -C "$target"; else tar -xpof - -C "$target"; fi
"""


def unique(folder: str) -> str:
    """A name for what is not finished yet, beside `folder`."""
    return f".{PurePosixPath(folder).name}.{secrets.token_hex(6)}"


def unpack(folder: str, name: str, packed: bool) -> list[str]:
    """The command that makes `folder` of a `write` stream, all or nothing: sh and tar."""
    target = PurePosixPath(folder)
    words = [str(target), str(target.parent), name, "z" if packed else ""]
    return ["sh", "-c", _UNPACK.strip(), "sh", *words]


def extract(folder: str, packed: bool) -> list[str]:
    """The command that unpacks a stream into `folder`, over what is there."""
    return ["sh", "-c", _EXTRACT.strip(), "sh", folder, "z" if packed else ""]


def give(folder: str, name: str) -> list[str]:
    """The command that writes `name` of `folder` as a stream; a link of that name is followed."""
    follow = "" if name == "." else "h"
    return ["sh", "-c", f'tar -c{follow}f - -C "$1" -- "$2" | gzip -1', "sh", folder, name]


def write(stream: IO[bytes], files: Mapping[str, Content], name: str, packed: bool) -> None:
    """The stream for `unpack`: the files in a folder `name`, and a last member that proves the end.

    Raises OSError when a file cannot be read or the stream not written.
    """
    with _opened(stream, packed) as archive:
        folders = {PurePosixPath(name)}
        for file in files:
            folders.update(parent for parent in PurePosixPath(name, file).parents if parent.name)
        for folder in sorted(folders):
            archive.addfile(_folder(str(folder)))
        for file, content in files.items():
            _add(archive, f"{name}/{file}", content)
        archive.addfile(tarfile.TarInfo("end"))


def write_tree(stream: IO[bytes], source: Path, name: str, packed: bool) -> None:
    """A file or folder as the member `name` ("." for a folder's content). Raises OSError."""
    with _opened(stream, packed) as archive:
        archive.add(source, arcname=name, filter=_nobodys)


def pays(files: Sequence[Content]) -> bool:
    """Whether the stream is worth compressing: enough of it, and it gets smaller.

    Judged by the beginning of the largest file; zlib costs less than 1 ms for it.
    """
    sizes = [len(one) if isinstance(one, bytes) else _size(one) for one in files]
    if sum(sizes) < _SMALL:
        return False
    largest = files[sizes.index(max(sizes))]
    sample = largest[:_SAMPLE] if isinstance(largest, bytes) else _beginning(largest)
    return len(zlib.compress(sample, _LEVEL)) < 0.8 * len(sample)


class _Sink(io.RawIOBase):
    """The stream, until it is given up: then what the writers above still hold is dropped.

    They flush when they are collected, which could make half a stream look like a whole one.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream: IO[bytes] | None = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.stream is not None:
            self.stream.write(data)
        return len(data)


@contextmanager
def _opened(stream: IO[bytes], packed: bool) -> Iterator[tarfile.TarFile]:
    """A tar archive that goes to `stream`, through gzip where it is `packed`."""
    sink = _Sink(stream)
    target = gzip.GzipFile("", "wb", _LEVEL, sink, mtime=0) if packed else sink
    archive = tarfile.open(  # noqa: SIM115 - after an error it must not be closed
        fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18
    )
    try:
        yield archive
        archive.close()
        target.close()
    except BaseException:
        sink.stream = None
        raise


def _add(archive: tarfile.TarFile, name: str, content: Content) -> None:
    if isinstance(content, bytes):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    else:
        archive.add(content, arcname=name, recursive=False, filter=_nobodys)


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    member.mode = 0o755
    return member


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files, folders and links, without an owner; sockets and the like are left out."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0  # writing the stream will say why


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_SAMPLE)
    except OSError:
        return b""
