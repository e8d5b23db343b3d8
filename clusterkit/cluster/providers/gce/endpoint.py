"""Another Compute Engine than Google's, which may know a small part of it. Pure, but for `plain`.

Google itself has every call that clusterkit makes; elsewhere "404" may be said of a thing that is
not there, or of a call that nobody has written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

#: Methods that ask for one thing, or end it: what is not found may be the thing.
_OF_A_THING = ("get", "get_from_family", "delete", "patch")


def root(address: str) -> str:
    """Where the paths begin that the SDKs add: "http://host/prefix" of "http://host/prefix/", and
    of what gcloud would be told, "http://host/prefix/compute/v1/".
    """
    return address.strip().rstrip("/").removesuffix("/compute/v1").rstrip("/")


def unheard_of(status: int, said: str, method: str, path: str, names: Iterable[str]) -> bool:
    """Whether an endpoint seems not to have a call at all, rather than what it is about.

    `said` are its words, `path` is the path that was asked, from "projects/" on; `names` are those
    in it: whoever names the thing that is not there knows the call. Of one thing (`get`, `delete`)
    a bare "Not Found" leaves it open: then it is True as well.
    """
    if status in (405, 501):
        return True
    if status != 404:
        return False
    of_a_thing = method in _OF_A_THING
    resource = re.search(r"resource '(?:[^']*/)?(projects/[^']*)'", said)
    if resource is not None:  # as Google says it; others say it of any path
        return not of_a_thing and resource[1] == path
    if path and path in said:
        return not of_a_thing or f"/{path}" in said
    return not any(re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", said) for one in names)


def plain(response: Any, *_: object, **__: object) -> None:
    """A hook of requests: errors get the shape that the SDK reads; no body is one without words."""
    if response.status_code < 400:
        if not response.content.strip():
            response._content = b"{}"  # noqa: SLF001 - an answer can be changed in no other way
        return
    try:
        said = response.json()
    except ValueError:
        return  # the SDK takes the text itself
    error = said.get("error") if isinstance(said, dict) else None
    whole = error if isinstance(error, dict) else {}
    told = error if isinstance(error, str) else whole.get("message")
    made: dict[str, Any] = {"message": told if isinstance(told, str) else response.text}
    for key in ("errors", "details"):
        listed = whole.get(key)
        made[key] = [one for one in listed if isinstance(one, dict)] if listed else []
    response._content = json.dumps({"error": made}).encode()  # noqa: SLF001
