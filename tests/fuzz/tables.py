"""Parquet files that are valid, with columns of types and values that a reader may not expect."""

import io
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

ROWS = 6


def _columns(rng: Random) -> Mapping[str, Callable[[], Any]]:
    import pyarrow as pa

    number = rng.choice((0, 1, -1, 10**15, -(10**15), 2**50))
    texts = [rng.choice(("a", "", "What?", "\x00", "\u202e", "x" * 10_000)) for _ in range(ROWS)]
    message = {"role": rng.choice(("user", "x", None)), "content": rng.choice(("a", None))}
    return {
        "text": lambda: pa.array(texts),
        "large text": lambda: pa.array(texts, pa.large_string()),
        "view": lambda: pa.array(texts, pa.string_view()),
        "dictionary": lambda: pa.array(texts).dictionary_encode(),
        "nulls": lambda: pa.nulls(ROWS),
        "no text": lambda: pa.array([b"caf\xe9"] * ROWS).view(pa.string()),
        "bytes": lambda: pa.array([b"\xff\x00"] * ROWS),
        "bool": lambda: pa.array([True, None] * (ROWS // 2)),
        "integer": lambda: pa.array([number] * ROWS),
        "float": lambda: pa.array([float("nan"), float("inf"), -0.0, None, 1e308, 0.5]),
        "half": lambda: pa.array([0.5] * ROWS, pa.float32()).cast(pa.float16()),
        "seconds": lambda: pa.array([number] * ROWS, pa.timestamp("s")),
        "nanoseconds": lambda: pa.array([number] * ROWS, pa.timestamp("ns", tz="UTC")),
        "zone": lambda: pa.array([0] * ROWS, pa.timestamp("us", tz="Nowhere/Zone")),
        "date": lambda: pa.array([number % 2**31] * ROWS, pa.date32()),
        "time": lambda: pa.array([number % 86_400] * ROWS, pa.time32("s")),
        "duration": lambda: pa.array([number] * ROWS, pa.duration("ns")),
        "decimal": lambda: pa.array([None] * ROWS, pa.decimal128(38, 10)),
        "list": lambda: pa.array([["a"], [], None, [None], ["b", ""], ["c"]]),
        "messages": lambda: pa.array([[message]] * ROWS),
        "struct": lambda: pa.array([{"a": {"b": [1, None]}}] * ROWS),
        "map": lambda: pa.array([[("a", 1), ("a", 2)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "no rows": lambda: pa.array(texts),
    }


def strange_table(rng: Random) -> bytes:
    """A file with one to five columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _columns(rng)
    names = ("prompt", "answer", "messages", "question", "tools", "kind", "", "\x00")
    chosen = {name: rng.choice(list(columns)) for name in rng.sample(names, rng.randint(1, 5))}
    if rng.random() < 0.7:
        chosen["prompt"] = rng.choice(("text", "dictionary", "messages"))
    arrays, titles = [columns[kind]() for kind in chosen.values()], list(chosen)
    if rng.random() < 0.05:
        titles[-1] = titles[0]
    table = pa.table(arrays, names=titles)
    if "no rows" in chosen.values():
        table = table.slice(0, 0)
    file = io.BytesIO()
    pq.write_table(table, file, compression=rng.choice(("none", "snappy", "zstd", "gzip")))
    return file.getvalue()
