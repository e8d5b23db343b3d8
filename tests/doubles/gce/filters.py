"""Google's `filter`, `orderBy` and pages. cloud.google.com/compute/docs/reference/rest: "filter".

labels.team=red        labels.team:*        name:web-*        -status=RUNNING
(a=b) AND (c!=d)       a=b OR c=d           NOT a=b           size>10      name eq 'web-.*'
"""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from doubles.gce.wire import GoogleError

Thing = Mapping[str, Any]
Test = Callable[[Thing], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()])|(?P<sign>!=|<=|>=|=|<|>|:)|"(?P<double>(?:[^"\\]|\\.)*)"
    |'(?P<single>(?:[^'\\]|\\.)*)'|(?P<word>[^\s()=<>:!"']+))""",
    re.VERBOSE,
)
_WORDS = ("eq", "ne")


def chosen(
    things: Sequence[Any], params: Mapping[str, Any], known: Callable[[str], bool]
) -> list[Any]:
    """Those that `filter` selects, in order. `known`: whether such a field exists.

    Raises GoogleError.
    """
    wanted = params.get("filter", "")
    test = _Parser(wanted, known).parse() if wanted.strip() else lambda _: True
    order = params.get("orderBy", "")
    if order not in ("", "name", "creationTimestamp desc"):
        words = f"Invalid value for field 'orderBy': '{order}'. Only name and creationTimestamp"
        raise GoogleError(400, f"{words} desc are supported.")
    key, back = order.partition(" ")[0] or "name", order.endswith(" desc")
    return sorted((one for one in things if test(one)), key=lambda one: str(one[key]), reverse=back)


def page(
    things: Sequence[Any], params: Mapping[str, Any], size: str = "maxResults", most: int = 500
) -> tuple[list[Any], str]:
    """One page, and the token of the next or ""."""
    token, count = params.get("pageToken", ""), params.get(size, most)
    if not 0 <= count <= most:
        words = f"Invalid value for field '{size}': '{count}'. Values must be between 0 and {most}"
        raise GoogleError(400, words)
    try:
        begin = int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        words = f"Invalid value for field 'pageToken': '{token}'. Invalid page token."
        raise GoogleError(400, words) from None
    end = begin + (count or most)
    more = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(things) else ""
    return list(things[begin:end]), more


class _Parser:
    """A filter becomes a test of one thing."""

    def __init__(self, text: str, known: Callable[[str], bool]) -> None:
        self.text, self.known, self.at = text, known, 0
        self.tokens: list[tuple[str, str]] = []
        end = 0
        while end < len(text.rstrip()):
            match = _TOKEN.match(text, end)
            if match is None:
                raise self._wrong()
            kind = str(match.lastgroup)
            self.tokens.append(("text" if kind in ("double", "single") else kind, match[kind]))
            end = match.end()

    def parse(self) -> Test:
        test = self._either()
        if self.at < len(self.tokens):
            raise self._wrong()
        return test

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("word", "OR"):
            tests.append(self._both())
        return lambda thing: any(test(thing) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self.at < len(self.tokens) and self._peek() not in (("mark", ")"), ("word", "OR")):
            self._take("word", "AND")
            tests.append(self._one())
        return lambda thing: all(test(thing) for test in tests)

    def _one(self) -> Test:
        if self._take("word", "NOT"):
            inner = self._one()
            return lambda thing: not inner(thing)
        if self._take("mark", "("):
            inner = self._either()
            if not self._take("mark", ")"):
                raise self._wrong()
            return inner
        return self._compared()

    def _compared(self) -> Test:
        kind, field = self._next()
        minus = kind == "word" and field.startswith("-")
        field = field.removeprefix("-") if minus else field
        sign_kind, sign = self._next()
        value_kind, value = self._next()
        if kind != "word" or value_kind not in ("word", "text"):
            raise self._wrong()
        if sign_kind != "sign" and sign not in _WORDS:
            raise self._wrong()
        if not self.known(field):
            raise self._wrong()
        test = _comparison(field.split("."), sign, value)
        return (lambda thing: not test(thing)) if minus else test

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def _next(self) -> tuple[str, str]:
        found = self._peek()
        self.at += 1
        return found

    def _take(self, *token: str) -> bool:
        found = self._peek() == token
        self.at += found
        return found

    def _wrong(self) -> GoogleError:
        words = f"Invalid value for field 'filter': '{self.text}'. Invalid list filter expression."
        return GoogleError(400, words)


def _comparison(path: Sequence[str], sign: str, value: str) -> Test:
    def test(thing: Thing) -> bool:
        found = list(_values(thing, path))
        if sign == ":":
            return any(_has(one, value) for one in found)
        if sign in ("=", "!="):
            return any(one == value for one in found) == (sign == "=")
        if sign in _WORDS:
            return any(re.fullmatch(value, one) for one in found) == (sign == "eq")
        return any(_compares(one, sign, value) for one in found)

    return test


def _has(one: str, value: str) -> bool:
    if "*" in value:
        return fnmatch.fnmatchcase(one.lower(), value.lower().replace("[", "[[]"))
    return value.lower() in re.split(r"[^a-z0-9_]+", one.lower()) or value.lower() == one.lower()


def _compares(one: str, sign: str, value: str) -> bool:
    try:
        left: Any = float(one)
        right: Any = float(value)
    except ValueError:
        left, right = one, value
    return bool(
        {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[sign]
    )


def _values(thing: Any, path: Sequence[str]) -> Iterator[str]:
    if isinstance(thing, list):
        for one in thing:
            yield from _values(one, path)
    elif isinstance(thing, dict):
        if path and path[0] in thing:
            yield from _values(thing[path[0]], path[1:])
    elif not path:
        yield str(thing).lower() if isinstance(thing, bool) else str(thing)
