"""How many compiled products oneDNN keeps in memory.

oneDNN compiles a product anew for each number of rows and each size of layer. torch and oneDNN each
keep the newest 1,024 of them. Texts have other lengths in every update, so these caches fill up
during a run on a CPU: one product takes about 0.6 MB, all of them 500 MB. A quarter of the entries
takes 127 MB (``benchmarks/product_cache.py``) and holds the products of decoding, which come back
in every update; those of an update hardly ever do.

Both libraries read their variables once, when torch is loaded, so importing this package sets them.
"""

from collections.abc import MutableMapping

CAPACITIES = {"LRU_CACHE_CAPACITY": "256", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
"""Entries of torch's cache of descriptions and of oneDNN's cache of code."""


def limit_product_caches(environment: MutableMapping[str, str]) -> None:
    """Set each of `CAPACITIES` that the user has not set; child processes inherit them."""
    for name, entries in CAPACITIES.items():
        environment.setdefault(name, entries)
