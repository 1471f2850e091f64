"""The products that oneDNN keeps do not fill the memory of a run."""

import os
import subprocess
import sys

import pytest

from remote_trainer.models.hardware import has_ordered_products
from remote_trainer.onednn import CAPACITIES, limit_product_caches

# MB that 600 numbers of rows add, above what the first product took.
ADDED = """
import remote_trainer, ctypes, psutil, torch
from remote_trainer.cpu.prepacked_linear import OrderedLinear
def held():
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6
torch.set_num_threads(1)
layer = OrderedLinear(torch.randn(64, 64), None)
x_MI = torch.randn(600, 64)
layer(x_MI)
before = held()
for rows in range(1, 600):
    layer(x_MI[:rows])
print(held() - before)
"""


def added(**variables: str) -> float:
    bare = {name: value for name, value in os.environ.items() if name not in CAPACITIES}
    command = [sys.executable, "-c", ADDED]
    done = subprocess.run(command, env=bare | variables, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back through glibc")
@pytest.mark.skipif(not has_ordered_products(), reason="this torch has no products of oneDNN")
def test_the_package_keeps_a_fraction_of_the_products_in_memory() -> None:
    libraries_own = dict.fromkeys(CAPACITIES, "1024")
    assert added() < 0.5 * added(**libraries_own)


def test_a_value_of_the_user_stays() -> None:
    environment = {"LRU_CACHE_CAPACITY": "7"}
    limit_product_caches(environment)
    assert environment == {"LRU_CACHE_CAPACITY": "7", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
