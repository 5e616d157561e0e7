"""Valid files made a little wrong: bytes cut, copied and changed; values of another kind.

Everything comes from one `random.Random`, so that a seed gives the same inputs again.
"""

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

SPLICES = (
    *(b"", b"\0", b"\n", b"\r\n", b"\r", b" ", b"\t", b",", b";", b":", b"{", b"}", b"[", b"]"),
    *(b'"', b"'", b"\\", b"#", b"---\n", b"&a ", b"*a", b"<<: *a\n", b"!!python/none", b"- "),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(b"\\ud83d", b"\\u0000", b"1e999", b"-1e999", b"NaN", b"Infinity", b"0123", b"no", b"~"),
    *(b"9" * 400, b"-1", b"null", b"true", b"../../x", b"/etc/passwd", b"[" * 3000, b'{"a":' * 900),
)
"""Bytes that a reader may trip over."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e308, 10**30, 2**63, -(2**63), float("nan")),
    *(float("inf"), "", " ", "x", "0", "1.5", "None", "a" * 5000, "\u2028", "\ud83d", "\0", "é"),
    *("../../x", "/etc/passwd", "2026-11-29", "http://[", "finished", "test", "text"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "x", None], ["x", "x"]),
)
"""Values of every kind."""


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """A few places cut, doubled, swapped, overwritten or filled with something."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 64)), len(data) - start)
        how = rng.randrange(6)
        if how == 0:
            del data[start : start + length]
        elif how == 1:
            data[start:start] = data[start : start + length]
        elif how == 2:
            data[start : start + length] = rng.choice(SPLICES)
        elif how == 3:
            data[start:start] = rng.choice(SPLICES)
        elif how == 4 and start < len(data):
            data[start] = rng.choice((0, 255, data[start] ^ (1 << rng.randrange(8))))
        elif how == 5 and rng.random() < 0.3:
            del data[start:]
    return bytes(data)


def mutated_lines(content: bytes, rng: random.Random) -> bytes:
    """A line left out, doubled, moved or emptied."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        del lines[place]
    elif how == 1:
        lines.insert(place, lines[place])
    elif how == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(place))
    else:
        lines[place] = b""
    return b"\n".join(lines)


def mutated_data(data: Any, rng: random.Random) -> Any:
    """A value at any depth replaced, removed, renamed, doubled or moved."""
    data = json.loads(json.dumps(data))
    holders = list(_holders(data))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder = rng.choice(holders)
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not places:
            continue
        place = rng.choice(places)
        how = rng.randrange(5)
        if how <= 1:
            holder[place] = rng.choice(VALUES)
        elif how == 2:
            del holder[place]
        elif how == 3 and isinstance(holder, dict):
            holder[rng.choice(("x", place.upper(), place + "s", ""))] = holder.pop(place)
        elif isinstance(holder, list):
            holder.append(holder[place])
        elif isinstance(holder[place], int | float) and not isinstance(holder[place], bool):
            holder[place] *= rng.choice((2, -1, 0.5, 1000))
    return data


def mutated_json(content: bytes, rng: random.Random) -> bytes:
    """JSON with mutated values."""
    mutated = mutated_data(json.loads(content), rng)
    return json.dumps(mutated, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def mutated_json_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON Lines with a mutated line."""
    lines = content.rstrip(b"\n").split(b"\n")
    place = rng.randrange(len(lines))
    with contextlib.suppress(ValueError):  # a damaged line
        lines[place] = mutated_json(lines[place], rng)
    return b"\n".join(lines) + b"\n"


Mutation = Callable[[bytes, random.Random], bytes]


def mutated(content: bytes, mutations: tuple[Mutation, ...], rng: random.Random) -> bytes:
    """The content as it is, in a tenth of the cases, else after one mutation."""
    if rng.random() < 0.1:
        return content
    return rng.choice((*mutations, mutated_lines, mutated_bytes))(content, rng)


def _holders(data: Any) -> Any:
    """Every list and mapping in the data."""
    if isinstance(data, dict | list):
        yield data
        for value in data.values() if isinstance(data, dict) else data:
            yield from _holders(value)
