"""Changes of bytes, of JSON and of YAML, drawn from a seeded generator."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

HUGE = "9" * 5000
"""More digits than Python turns into an integer."""


def nested(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 2**31, 2**63, -(2**63), 2**64, 10**400, 1e308),
    *(5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "\n", "\x00", "a\x00b", "\ud800", "\u202e", "\x1b[2J", "\ufeff", "é" * 300),
    *("a" * 100_000, "NaN", "true", "null", "auto", "none", "never", "-", "5e-6", HUGE),
    *("..", "../../outside", "/", "/dev/zero", "/dev/null", "~", "~nobody", "$HOME", ".", "home"),
    *("<script>alert(1)</script>", "{{ 7 * 7 }}", "{% for %}", "=1+1", "hf_" + "a" * 30),
    *([], {}, [[]], [None], [0, 1], ["a"], {"": None}, {"a": {"b": {"c": []}}}, [{}], nested(60)),
    *(nested(900), {"role": "user", "content": "x"}, [{"role": "user", "content": 3}]),
)
"""Values that a reader may not expect where they stand."""


def any_value(rng: Random) -> Any:
    """One of `VALUES`, which later changes do not change."""
    return json.loads(json.dumps(rng.choice(VALUES)))


BYTES = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"\r\n", b"\r", b"\n\n"),
    *(b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"#", b"\t", b"%", b"!", b"&", b"*"),
    *(b"NaN", b"-Infinity", b"1e999", HUGE.encode(), b"[" * 3000, b'{"a":' * 3000, b"0x1F"),
    *(b"\\ud800", b"\\u0000", b"null", b"true", b"\xe2\x80\xa8", b"\x85", b"a" * 70_000),
)
"""What is put into bytes."""


def changed_bytes(rng: Random, data: bytes) -> bytes:
    """One to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_BYTE_CHANGES)(rng, data)
    return data


def _flip(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 40)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 10, 100, 10_000)))


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _remove(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def _repeat(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    times = min(rng.choice((2, 3, 50, 1000)), 1 + 200_000 // max(1, stop - start))
    return data[:start] + data[start:stop] * times + data[stop:]


def _insert(rng: Random, data: bytes) -> bytes:
    at = rng.choice((0, len(data), rng.randint(0, len(data))))
    return data[:at] + rng.choice(BYTES) + data[at:]


def _overwrite(rng: Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


def _number(rng: Random, data: bytes) -> bytes:
    """Another number in the place of one."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    one = rng.choice(found)
    new = rng.choice((b"-1", b"0", b"1e400", b"NaN", HUGE.encode(), b"18446744073709551616", b""))
    return data[: one.start()] + new + data[one.end() :]


def _encoding(rng: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32")))


_BYTE_CHANGES: Sequence[Callable[[Random, bytes], bytes]] = (
    *(_flip, _flip, _cut, _remove, _repeat, _insert, _insert, _overwrite, _number, _encoding),
)


def changed_json(rng: Random, value: Any) -> bytes:
    """A JSON text with one to three changed values, keys or levels."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(rng, value)
    with _deep():
        text = json.dumps(value)
    if rng.random() < 0.05:
        text = re.sub(r'"(\w+)":', r'"\1": 0, "\1":', text, count=1)  # a repeated key
    return text.encode("utf-8", "surrogatepass")


def _changed(rng: Random, value: Any) -> Any:
    holders = list(_holders(value))
    if not holders or rng.random() < 0.03:
        return any_value(rng)
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = rng.random()
    if kind < 0.6:
        holder[key] = any_value(rng)
    elif kind < 0.75:
        del holder[key]
    elif kind < 0.85:
        other = rng.choice(holders)
        with _deep():
            holder[key] = json.loads(json.dumps(rng.choice(_values(other))))
    elif kind < 0.9:
        holder[key] = [holder[key]]
    elif isinstance(holder, dict):
        holder[str(any_value(rng))[:50]] = holder.pop(key)
    else:
        holder.insert(key, any_value(rng))
    return value


@contextmanager
def _deep() -> Iterator[None]:
    """For json: two of the deepest values may come to stand in one another."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _holders(value: Any) -> list[Any]:
    """All lists and objects in a value that hold something."""
    found, inside = [], [value]
    while inside:
        each = inside.pop()
        if isinstance(each, list | dict) and each:
            found.append(each)
            inside += _values(each)
    return found


def _values(holder: Any) -> list[Any]:
    return list(holder.values()) if isinstance(holder, dict) else list(holder)


def changed_lines(rng: Random, lines: Sequence[Any]) -> bytes:
    """JSON Lines with a few changed rows."""
    texts = [json.dumps(line).encode() for line in lines]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(texts))
        texts[place] = changed_json(rng, lines[place])
    return rng.choice((b"\n", b"\n", b"\r\n")).join(texts) + rng.choice((b"\n", b""))


def laughs(levels: int) -> str:
    """Aliases of aliases: nine to the power of ``levels`` values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines) + "\n"


def merges(levels: int) -> str:
    """Merge keys of merge keys."""
    lines = ["m0: &m0 {a: 1}"]
    for level in range(1, levels):
        lines.append(f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 9)}]}}")
    return "\n".join(lines) + "\n"


YAML = (
    *(laughs(9), laughs(3), merges(9), merges(2), "a: &a [*a]\n", "a: &a {b: *a}\n", "a: *none\n"),
    *("a: !!python/object/apply:os.system ['touch ../outside/mark']\n", "a: !!python/name:os.x\n"),
    *(
        "a: !!binary 'x'\n",
        "a: !!timestamp x\n",
        "a: !!timestamp 2020-99-99\n",
        "a: !!set {a, b}\n",
    ),
    *("a: !!float x\n", "a: !!float ''\n", "a: !!int ''\n", "a: !!bool x\n", "a: !!omap [a]\n"),
    *("a: !!null x\n", "!!map [a]\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n", "<<: 1\n", "<<: [1]\n"),
    *("---\na: 1\n---\nb: 2\n", "%YAML 9.9\n---\n", "%TAG ! x\n---\n", "a: |9\n x\n", "a: 'b\n"),
    *("[" * 60 + "]" * 60 + "\n", "[" * 3000, "a: {" * 100, "- " * 3000 + "x\n", "\t a: 1\n"),
    *(
        "a: 1\na: 2\n",
        "=: 1\n",
        "null: 1\n",
        "1: 1\n",
        "1.5: 1\n",
        "true: 1\n",
        "? \n: \n",
        "a: ,\n",
    ),
    *("model: &m {name: model}\nlora: *m\n", "training: {<<: {seed: 1}, seed: 2}\n", "@\n", "`\n"),
    *(f"training: {{seed: {HUGE}}}\n", f"training: {{learning_rate: {HUGE}}}\n", "a: !<tag> 1\n"),
    *("training: {seed: 0x" + "f" * 500 + "}\n", "training: {learning_rate: .nan}\n", "a: !x 1\n"),
    *("training: {max_steps: .inf}\n", "training: {max_steps: 1e999}\n", "data: {train: .nan}\n"),
    *(
        "reward: {type: regex, pattern: '(((((((((('}\n",
        "reward: {type: regex, pattern: '(a+)+$'}\n",
    ),
    *("reward: {function: 'os:system'}\n", "reward: {function: '../x:y'}\n", "reward: [[[]]]\n"),
    *("a" * 100_000 + ": 1\n", "a: '" + "\\ud800" + "'\n", 'a: "\\ud800"\n', 'a: "\\x00"\n'),
)
"""Documents, or parts of one."""


def changed_yaml(rng: Random, text: str) -> bytes:
    """A config with a value changed, with a strange part, or with changed bytes."""
    lines = text.splitlines(keepends=True)
    kind = rng.random()
    if kind < 0.25:
        at = rng.choice((0, len(lines), rng.randint(0, len(lines))))
        lines.insert(at, rng.choice(YAML))
    elif kind < 0.3:
        lines = [rng.choice(YAML)]
    elif kind < 0.7:
        place = rng.randrange(len(lines))
        value = any_value(rng)
        written = json.dumps(value) if rng.random() < 0.8 else str(value)[:200]
        lines[place] = re.sub(
            r"(?<=: )[^,{}\[\]\n]+", lambda found: written, lines[place], count=rng.choice((1, 2))
        )
    data = "".join(lines).encode("utf-8", "surrogatepass")
    return changed_bytes(rng, data) if kind >= 0.7 or rng.random() < 0.1 else data
