"""YAML as a tree that remembers its lines, read without YAML 1.1's surprises.

PyYAML gives the events; the tree and the meaning of plain scalars are made here, because its own
loader reads `1e-5` as text, `no` as False, `1:2` as 62 and `010` as 8, keeps the last of two equal
keys without a word, and overflows the stack on deep nesting. Plain scalars follow the core schema
of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema); what somebody may have meant otherwise
(`010`, `1_000`, `.nan`, a key without a value) is a problem and not a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from clusterkit.errors import FileProblems, Problem, UsageError

#: Bounds that no file written by hand meets, and that keep a hostile one from filling the memory.
MAX_BYTES: Final = 16 * 2**20
MAX_DEPTH: Final = 50
MAX_NODES: Final = 1_000_000  # with every alias counted as what it stands for
MAX_DIGITS: Final = 4_000  # int() and str() refuse more than 4,300 (sys.set_int_max_str_digits)


@dataclass(slots=True)
class Scalar:
    """One value. `bad`: a problem was told about it already. `empty`: nothing was written."""

    line: int
    value: bool | int | float | str | None
    bad: bool = False
    empty: bool = False
    size: int = 1


@dataclass(slots=True)
class Sequence:
    line: int
    items: list[Node] = field(default_factory=list)
    size: int = 1
    bad: bool = False


@dataclass(slots=True)
class Mapping:
    """`entries` are key -> (line of the key, value), in file order."""

    line: int
    entries: dict[str, tuple[int, Node]] = field(default_factory=dict)
    size: int = 1
    bad: bool = False


Node = Scalar | Sequence | Mapping


@dataclass(slots=True)
class Document:
    """A file's tree and the problems found so far; whoever reads the tree on adds theirs."""

    file: Path
    text: str
    root: Node
    problems: list[Problem]

    def tell(self, line: int | None, key: str, message: str) -> None:
        self.problems.append(Problem(message, line, key))

    def spoilt(self, node: Node) -> bool:
        """Whether a problem was told about something in `node`, so that it has no value."""
        if isinstance(node, Scalar) or node.bad:
            return node.bad
        if isinstance(node, Sequence):
            return any(map(self.spoilt, node.items))
        return any(self.spoilt(item) for _, item in node.entries.values())

    def refuse(self) -> None:
        """Raise FileProblems with every problem told so far, in file order; none: nothing."""
        if self.problems:
            raise FileProblems(self.file, sorted(self.problems, key=lambda found: found.line or 0))


def read(file: Path, *, what: str, empty: str) -> Document:
    """The one YAML document of `file`. `what` it should be and what is told of an `empty` one.

    Raises UsageError when it cannot be read, FileProblems when it is no YAML. Problems that leave
    the rest readable (duplicate keys, `010`) are in the result's `problems`.
    """
    text = _text(file, what)
    composer = _Composer(what)
    try:
        for event in yaml.parse(text, Loader=_Events):
            composer.take(event)
    except _FatalError as fatal:
        composer.problems.append(fatal.problem)
    except yaml.MarkedYAMLError as error:
        composer.problems.append(_syntax(error, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        composer.problems.append(
            Problem(f"the character U+{ord(text[error.position]):04X} is not allowed in YAML", line)
        )
    except RecursionError:
        composer.problems.append(Problem("nested too deeply"))
    else:
        if composer.root is not None:
            return Document(file, text, composer.root, composer.problems)
        composer.problems.append(Problem(empty))
    raise FileProblems(file, composer.problems)


# libyaml's scanner is 20 times faster than PyYAML's own; wheels have it, some builds do not.
_Events: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(file: Path, what: str) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{file}: no such file") from error
    except IsADirectoryError as error:
        raise UsageError(f"{file}: a folder, not a file; name the YAML file inside it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{file}: cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file}: larger than {MAX_BYTES // 2**20} MiB; this is no {what}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        raise FileProblems(file, [Problem(message, line)]) from error


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else None
    if "nesting depth" in str(error.problem):  # newer parsers have a bound of their own
        return Problem(f"nested more than {MAX_DEPTH} deep", line)
    message = f"not valid YAML: {error.problem or error.context}"
    if error.problem and error.context:
        message += f", {error.context}"
        began = error.context_mark
        if began is not None and began.line + 1 != line:
            message += f" that begins in line {began.line + 1}"
    lines = text.splitlines()
    words = lines[line - 1] if line is not None and line <= len(lines) else ""
    if re.match(r" *\t", words):
        message += " (indent with spaces, not with tabs)"
    elif re.search(r":\s+[{@%`&*!|>'\"]", words):
        message += " (a text that begins with one of {@%`&*!|> or a quote has to be quoted whole)"
    return Problem(message, line)


class _FatalError(Exception):
    """Nothing after this place can be understood."""

    def __init__(self, message: str, line: int, key: str = "") -> None:
        self.problem = Problem(message, line, key)


def _line(event: Any) -> int:
    """Where an event begins, from 1."""
    line: int = event.start_mark.line
    return line + 1


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end was not seen yet; `key` and `key_line` wait for their value."""

    node: Sequence | Mapping
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    dropped: bool = False  # the value that comes belongs to a key that was refused


class _Composer:
    """Events to a tree. Iterative: the depth of a file is not the depth of a stack."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            if done.node.size > MAX_NODES:
                raise _FatalError(
                    f"stands for more than {MAX_NODES:,} values; use fewer aliases (*name)",
                    done.node.line,
                )
            self._add(done.node, done.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _FatalError(
                f"a second document begins here; a {self.what} is one document without `---` "
                "inside",
                _line(event),
            )

    def _begin(self, event: Any) -> None:
        line = _line(event)
        if len(self._open) == MAX_DEPTH:
            raise _FatalError(f"nested more than {MAX_DEPTH} deep", line, self._path())
        node: Sequence | Mapping = (
            Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)
        )
        if self._tagged(event, line):
            node.bad = True
        self._open.append(_Open(node, event.anchor))

    def _scalar(self, event: Any) -> None:
        line = _line(event)
        text = event.value
        if self._tagged(event, line):
            node = Scalar(line, None, bad=True)
        elif not event.implicit[0]:  # quoted, or a block
            node = Scalar(line, text)
        else:
            value, problem = _plain(text)
            node = Scalar(line, value, bad=problem is not None, empty=text == "")
            if problem is not None:
                self._tell(line, problem)
        if isinstance(node.value, str) and (problem := _unusable(node.value)):
            self._tell(line, problem)
            node.bad = True
        self._add(node, event.anchor, plain_text=text if event.implicit[0] else None)

    def _alias(self, event: Any) -> None:
        line = _line(event)
        name = event.anchor
        if any(opened.anchor == name for opened in self._open):
            raise _FatalError(f"*{name} stands inside what it names", line, self._path())
        if name not in self._anchors:
            self._tell(line, f"*{name} names nothing: no &{name} stands before it")
            self._add(Scalar(line, None, bad=True), None)
        else:
            self._add(self._anchors[name], None)

    def _add(self, node: Node, anchor: str | None, plain_text: str | None = None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.node.size += node.size
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None and not parent.dropped:
            self._key(parent, node, plain_text)
        else:
            if not parent.dropped and parent.key is not None:
                parent.node.entries[parent.key] = (parent.key_line, node)
            parent.key, parent.dropped = None, False

    def _key(self, parent: _Open, node: Node, plain_text: str | None) -> None:
        assert isinstance(parent.node, Mapping)
        parent.dropped = True
        if not isinstance(node, Scalar):
            self._tell(node.line, "a list or mapping cannot be a key")
        elif node.bad:
            parent.node.bad = True
        elif not isinstance(node.value, str):
            written = plain_text or "null"
            self._tell(
                node.line, f'the key {written} is not text; write "{written}" if it is a name'
            )
        elif plain_text == "<<":
            self._tell(node.line, "merge keys (<<) are not supported; write the entries out")
        elif node.value in parent.node.entries:
            first = parent.node.entries[node.value][0]
            self._tell(node.line, f"written twice, first in line {first}", node.value)
        else:
            parent.key, parent.key_line, parent.dropped = node.value, node.line, False

    def _tagged(self, event: Any, line: int) -> bool:
        if event.tag is None:
            return False
        name = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._tell(line, f"tags ({name}) are not supported; quote a value to make it text")
        return True

    def _tell(self, line: int, message: str, key: str | None = None) -> None:
        self.problems.append(Problem(message, line, self._path(key)))

    def _path(self, last: str | None = None) -> str:
        path = ""
        for opened in self._open:
            if isinstance(opened.node, Sequence):
                path += f"[{len(opened.node.items)}]"
            elif opened.key is not None:
                path = dotted(path, opened.key)
        return path if last is None else dotted(path, last)


def dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_PLAIN = re.compile(
    r"""
      (?P<null>    (?:null|Null|NULL|~)?)
    | (?P<true>    true|True|TRUE)
    | (?P<false>   false|False|FALSE)
    | (?P<zero>    [-+]?0[0-9]+)
    | (?P<int>     [-+]?[0-9]+)
    | (?P<octal>   0o[0-7]+)
    | (?P<hex>     0x[0-9a-fA-F]+)
    | (?P<float>   [-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)
    | (?P<infinite>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))
    | (?P<grouped> [-+]?[0-9]{1,3}(?:_[0-9]{3})+)
    """,
    re.VERBOSE,
)

_WORDS: AbstractMapping[str, bool | None] = {"null": None, "true": True, "false": False}


def _plain(text: str) -> tuple[bool | int | float | str | None, str | None]:
    """The value of an unquoted scalar and, instead of it, what is wrong with it."""
    match = _PLAIN.fullmatch(text)
    if match is None:
        return text, None
    kind = match.lastgroup
    value: bool | int | float | str | None = None
    problem: str | None = None
    if kind in ("int", "octal", "hex"):
        if len(text) > MAX_DIGITS:
            problem = f"a number of more than {MAX_DIGITS:,} digits"
        else:
            value = int(text, {"int": 10, "octal": 8, "hex": 16}[kind])
    elif kind == "float":
        value = float(text)
        if math.isinf(value):
            problem = f"{text} is too large for a floating-point number"
    elif kind == "infinite":
        problem = f'{text} is not finite, and JSON cannot hold it; write "{text}" for text'
    elif kind == "zero":
        number = re.sub(r"0+(?=[0-9])", "", text, count=1)
        problem = f'{text} begins with a zero: write {number}, or "{text}" for text'
    elif kind == "grouped":
        number = text.replace("_", "")
        problem = f'{text} is no number in YAML: write {number}, or "{text}" for text'
    elif kind is not None:
        value = _WORDS[kind]
    return value, problem


def _unusable(text: str) -> str | None:
    """What keeps a text from being handed to a process: it cannot be an argument."""
    if text.isascii():
        return "a text cannot hold the character NUL" if "\0" in text else None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text cannot hold half of a surrogate pair (\\ud800 to \\udfff)"
    return "a text cannot hold the character NUL" if "\0" in text else None
