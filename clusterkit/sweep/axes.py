"""One parameter of a grid to the values it takes: scalars, lists, `range`, `linspace`, ..."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction

from clusterkit.records import Value
from clusterkit.sweep import grid_yaml
from clusterkit.sweep.grid_yaml import Document, Node, Scalar, dotted

LATER = "not supported yet in this version"
_FORMS = ("value", "values", "range", "linspace", "logspace")
_LATER_FORMS = ("uniform", "loguniform", "randint", "choice")


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter and how many values it takes; `values` makes them, which may be too many."""

    name: str
    line: int
    key: str
    count: int
    values: Callable[[], list[Value]]


def parameter(document: Document, name: str, line: int, node: Node) -> Axis | None:
    """An entry of `params:`; None after telling what is wrong with it."""
    if not name or name.startswith("-") or re.search(r"[=\s]", name):
        document.tell(
            line,
            f"params.{json.dumps(name, ensure_ascii=False)}",
            "a name has no spaces, no = and no leading -, and is not empty",
        )
        return None
    key = f"params.{name}"
    if isinstance(node, grid_yaml.Mapping):
        form = _form(document, key, line, node)
        if form is None:
            return None
        key, value = f"{key}.{form}", plain(document, node.entries[form][1], f"{key}.{form}")
    else:
        form = "values" if isinstance(node, grid_yaml.Sequence) else "value"
        value = plain(document, node, key)
        if isinstance(node, grid_yaml.Sequence):
            _no_forms(document, key, node)
    if document.spoilt(node):
        return None
    try:
        return Axis(name, line, key, *_SPANS[form](value))
    except ValueError as error:
        document.tell(node.line, key, str(error))
        return None


def seeds(document: Document, line: int, node: Node) -> Axis | None:
    """`seeds: 5` is 0..4, a list is taken as it is; None after telling what is wrong with it."""
    value = plain(document, node, "seeds")
    if document.spoilt(node):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Axis("seed", line, "seeds", value, lambda: list(range(value)))
    if isinstance(value, list) and value and all(type(seed) is int for seed in value):
        return Axis("seed", line, "seeds", len(value), lambda: value)
    document.tell(line, "seeds", "expected how many (5 makes 0 to 4) or a list of whole numbers")
    return None


def plain(document: Document, node: Node, key: str) -> Value:
    """A node as the value it stands for. Every place in it without a value is told."""
    if isinstance(node, Scalar):
        if node.empty and not node.bad:
            document.tell(node.line, key, 'has no value; write null, or "" for an empty text')
            node.bad = True
        return node.value
    if isinstance(node, grid_yaml.Sequence):
        return [
            item.value
            if isinstance(item, Scalar) and not item.empty
            else plain(document, item, f"{key}[{at}]")
            for at, item in enumerate(node.items)
        ]
    return {
        name: plain(document, item, dotted(key, name)) for name, (_, item) in node.entries.items()
    }


def unknown(key: str, allowed: Sequence[str]) -> str:
    """What to say of a key that is not there."""
    near = difflib.get_close_matches(key, allowed, n=1)
    meant = f"unknown; did you mean {near[0]}? Allowed" if near else "unknown; allowed"
    return f"{meant}: {', '.join(allowed)}"


def either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _form(document: Document, key: str, line: int, node: grid_yaml.Mapping) -> str | None:
    """The one form that a mapping names."""
    if len(node.entries) != 1:
        if not node.bad:
            document.tell(
                line,
                key,
                f"expected one form, {either(_FORMS)}; for a mapping as a constant write "
                "{value: {...}}",
            )
        return None
    (form, (form_line, _)), *_ = node.entries.items()
    if form in _FORMS:
        return form
    message = LATER if form in _LATER_FORMS else unknown(form, _FORMS)
    document.tell(form_line, dotted(key, form), message)
    return None


def _no_forms(document: Document, key: str, node: grid_yaml.Sequence) -> None:
    for at, item in enumerate(node.items):
        if isinstance(item, grid_yaml.Mapping) and set(item.entries) & {*_FORMS, *_LATER_FORMS}:
            document.tell(
                item.line,
                f"{key}[{at}]",
                "a form stands alone, not in a list; for this mapping as a value write "
                "{values: [...]}",
            )
            item.bad = True


# --- a form's values: how many, and how to make them


_Span = tuple[int, Callable[[], list[Value]]]


def _value(value: Value) -> _Span:
    return 1, lambda: [value]


def _values(value: Value) -> _Span:
    if not isinstance(value, list):
        raise ValueError("expected a list of values")  # noqa: TRY004 - the user's value, not a type
    if not value:
        raise ValueError("an empty axis; give at least one value, or take it out")
    return len(value), lambda: value


def _range(value: Value) -> _Span:
    """[stop], [start, stop] or [start, stop, step]; half-open, like Python's, but for floats too.

    Floats are computed from the decimals as they were written and rounded once, so that
    `range: [0, 1, 0.1]` holds 0.3 and not 0.30000000000000004, and never its stop.
    """
    numbers = _numbers(value)
    if not 1 <= len(numbers) <= 3:
        raise ValueError("expected [stop], [start, stop] or [start, stop, step], all numbers")
    if len(numbers) == 1:
        numbers = [0, *numbers]
    start, stop, step = map(_exact, [*numbers, 1][:3])
    if step == 0:
        raise ValueError("a step of 0 never arrives")
    count = math.ceil((stop - start) / step)
    if count <= 0:
        side = "below" if step > 0 else "above"
        raise ValueError(f"an empty axis: {numbers[0]} is not {side} {numbers[1]}")
    whole = all(isinstance(number, int) for number in numbers)
    return count, lambda: _steps(start, step, count, whole=whole)


def _linspace(value: Value) -> _Span:
    """[first, last, n], both ends included, as floats; exact like `_range`."""
    first, last, count = _ends(value)
    return count, lambda: _steps(first, (last - first) / (count - 1), count, whole=False)


def _logspace(value: Value) -> _Span:
    """[first, last, n], both ends included (values, not exponents), in equal ratios, as floats."""
    first, last, count = _ends(value)
    if first <= 0 or last <= 0:
        raise ValueError("both ends must be above 0; they are values, not exponents")

    def values() -> list[Value]:
        # 60 digits: after a million multiplications the rounding to a float is still the right
        # one, so [0.0001, 0.1, 4] holds 0.001, and the ends are what was written.
        with localcontext(Context(prec=60)):
            low = Decimal(first.numerator) / first.denominator
            high = Decimal(last.numerator) / last.denominator
            ratio = ((high / low).ln() / (count - 1)).exp()
            steps = itertools.repeat(ratio, count - 2)
            inner = itertools.accumulate(steps, operator.mul, initial=low)
            return [*map(float, inner), float(last)]

    return count, values


_SPANS: Mapping[str, Callable[[Value], _Span]] = {
    "value": _value,
    "values": _values,
    "range": _range,
    "linspace": _linspace,
    "logspace": _logspace,
}


def _numbers(value: Value) -> list[int | float]:
    """The numbers of a list; none when it is no list of numbers."""
    if not isinstance(value, list):
        return []
    numbers = [each for each in value if isinstance(each, int | float) and type(each) is not bool]
    if any(isinstance(number, float) for number in numbers):
        _check_size(numbers)
    return numbers if len(numbers) == len(value) else []


def _check_size(numbers: Sequence[float]) -> None:
    try:
        for number in numbers:
            float(number)
    except OverflowError:
        raise ValueError("a number is too large for floating point") from None


def _exact(number: float) -> Fraction:
    """A number as its shortest decimal says it: 0.1 is 1/10."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _ends(value: Value) -> tuple[Fraction, Fraction, int]:
    numbers = _numbers(value)
    if len(numbers) != 3:
        raise ValueError("expected [first, last, how many], all numbers")
    first, last, count = numbers
    if not isinstance(count, int) or count < 2:
        raise ValueError("how many: a whole number from 2; for one value write {value: ...}")
    if first == last:
        raise ValueError("the two ends are equal; for one value write {value: ...}")
    _check_size((first, last))
    return _exact(first), _exact(last), count


def _steps(start: Fraction, step: Fraction, count: int, *, whole: bool) -> list[Value]:
    if whole:
        return [int(start) + int(step) * at for at in range(count)]
    # Whole numerators over one denominator: Python's int / int is rounded correctly, and fast.
    bottom = math.lcm(start.denominator, step.denominator)
    top, rise = int(start * bottom), int(step * bottom)
    return [(top + rise * at) / bottom for at in range(count)]
