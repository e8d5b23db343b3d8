"""Bring in what is new: one connection, only the bytes that are new, safe to be cut off."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import IO

from clusterkit.errors import CommandFailed, TransportError
from clusterkit.node import wire
from clusterkit.records import Experiment
from clusterkit.store import JournalNews, Store
from clusterkit.transport import Connection, Local


def follow(
    store: Store, connection: Connection, experiment: Experiment, *, forever: bool
) -> Generator[int, None, None]:
    """Harvest, yielding the number of new records after every pass over the journals.

    Without `forever` there is one pass. With it, a pass comes whenever there is news and at least
    every few seconds, until the caller leaves. Raises TransportError when the connection breaks or
    the experiment's folder is gone.
    """
    program = f"{experiment.lib}/clusterkit/node/__main__.py"
    argv = [connection.python, "-I", "-S", program, "collect", experiment.root]
    packed = not isinstance(connection.transport, Local)
    argv.append(json.dumps({"follow": forever, "packed": packed}))
    offsets = json.dumps(store.offsets(experiment.id)).encode() + b"\n"
    try:
        with connection.transport.stream(argv, input=offsets, env=connection.env) as stream:
            for news in _passes(wire.unpacked(stream)):
                yield store.apply(experiment.id, news) if news else 0
    except CommandFailed as error:
        raise TransportError(
            f"the files of experiment {experiment.id} cannot be read on {experiment.cluster}: "
            f"{error.stderr.strip() or error}"
        ) from error


def once(store: Store, connection: Connection, experiment: Experiment) -> int:
    """Harvest what is new; how many records that were."""
    return sum(follow(store, connection, experiment, forever=False))


def _passes(stream: IO[bytes]) -> Iterator[list[JournalNews]]:
    news: list[JournalNews] = []
    while line := stream.readline():
        header = json.loads(line)
        if "mark" in header:
            yield news
            news = []
            continue
        data = stream.read(header["size"])
        if len(data) != header["size"]:
            raise TransportError("the connection broke in the middle of a journal; harvest again")
        news.append(JournalNews(header["name"], header["offset"], data))
