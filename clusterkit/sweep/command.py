"""A point to the command line of its task: `flags:` and `run:` of a grid. Pure."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from clusterkit.records import FlagStyle, Value

#: What `run:` may name besides the parameters.
PLACES = ("script", "flags", "python")


def flags_for(params: Mapping[str, Value], style: FlagStyle) -> list[str]:
    """A point as command-line words, in the order of `params`.

    With `--key value`, a value that begins with `-` and is no plain number becomes `--key=value`,
    since argparse would take it for another option (it knows -1 and -0.5, but not -1e-05).
    """
    words: list[str] = []
    for name, value in params.items():
        text = _text(value)
        if style is FlagStyle.SPACE:
            if text.startswith("-") and not _NEGATIVE.fullmatch(text):
                words.append(f"--{name}={text}")
            else:
                words += (f"--{name}", text)
        elif style is FlagStyle.EQUALS:
            words.append(f"--{name}={text}")
        elif style is FlagStyle.HYDRA:
            # Hydra's word for None (https://hydra.cc/docs/advanced/override_grammar/basic/).
            words.append(f"{name}={'null' if value is None else text}")
    return words


def argv_for(
    run: str | None, script: str, params: Mapping[str, Value], style: FlagStyle
) -> list[str]:
    """The command line of one point's task, to be run in the snapshot's folder.

    `script` is a posix path relative to that folder. Without `run`, a *.py is run with `python`
    (whichever the slot's PATH has), anything else by itself, so it has to be executable.
    Raises ValueError for a `run` that `grid.load` would have refused.
    """
    flags = flags_for(params, style)
    if run is None:
        if script.endswith(".py"):
            return ["python", _relative(script), *flags]
        return [f"./{script}", *flags]
    argv: list[str] = []
    for word in template(run):
        if word == (_FLAGS,):
            argv += flags
        else:
            argv.append("".join([_filled(part, script, params) for part in word]))
    return argv


@dataclass(frozen=True, slots=True)
class Place:
    """A placeholder of `run:`, without its braces."""

    name: str


_FLAGS = Place("flags")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@functools.lru_cache(maxsize=16)
def template(run: str) -> tuple[tuple[str | Place, ...], ...]:
    """The words of `run:` as a shell would split them, each in its parts.

    Raises ValueError for unbalanced quotes, a lone brace, {flags} inside a longer word, no word.
    """
    try:
        split = shlex.split(run)
    except ValueError as error:
        raise ValueError(f"{str(error).lower()}: quotes and \\ work as in a shell") from error
    words = tuple(map(_parts, split))
    if not words or not words[0]:
        raise ValueError("names no command; take `run` out for the usual one")
    return words


def _parts(word: str) -> tuple[str | Place, ...]:
    parts: list[str | Place] = []
    end = 0
    for match in _PLACEHOLDER.finditer(word):
        parts.append(word[end : match.start()])
        end = match.end()
        brace = match[0]
        if match[1] is not None:
            parts.append(Place(match[1]))
        elif len(brace) == 2:
            parts.append(brace[0])
        else:
            raise ValueError(f"a lone {brace}; write {brace * 2} for the character itself")
    parts.append(word[end:])
    parts = [part for part in parts if part != ""]
    if _FLAGS in parts and len(parts) > 1:
        raise ValueError("{flags} becomes several words, so it must be a word of its own, unquoted")
    return tuple(parts)


def _filled(part: str | Place, script: str, params: Mapping[str, Value]) -> str:
    if isinstance(part, str):
        return part
    if part.name == "script":
        return _relative(script)
    if part.name == "python":
        return "python"
    if part.name not in params:
        raise ValueError(f"run: {{{part.name}}} is no parameter")
    return _text(params[part.name])


# argparse's own pattern (ArgumentParser._negative_number_matcher) in Python 3.9 to 3.13.
_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return repr(value)  # True, None, 3, 0.1, 1e-05


def _relative(script: str) -> str:
    return f"./{script}" if script.startswith("-") else script
