"""Memory that oneDNN's products of many numbers of rows take, with and without our limit.

    python benchmarks/product_cache.py

Each line is a process of its own: one frozen layer (576 -> 1536), multiplied by 1 to 1,600 rows in
random order. What is free is given back to the system before memory is read.
"""

import ctypes
import os
import random
import subprocess
import sys
import time

import psutil

from remote_trainer.onednn import CAPACITIES

SIZES_IO = 576, 1536
NUMBERS_OF_ROWS = 1600
SHOWN = 100, 200, 400, 800, 1600
LIBRARIES_OWN = {"LRU_CACHE_CAPACITY": "1024", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}


def main() -> None:
    print("| entries kept | " + " | ".join(f"MB after {n}" for n in SHOWN) + " | seconds |")
    print("| --- |" + " --- |" * (len(SHOWN) + 1))
    for capacities in LIBRARIES_OWN, CAPACITIES:
        command = [sys.executable, __file__, "measure"]
        subprocess.run(command, env=os.environ | capacities, check=True)


def measure() -> None:
    import torch

    from remote_trainer.cpu.prepacked_linear import OrderedLinear

    torch.set_num_threads(1)
    inputs, outputs = SIZES_IO
    layer = OrderedLinear(torch.randn(outputs, inputs), None)
    x_MI = torch.randn(NUMBERS_OF_ROWS, inputs)
    layer(x_MI)
    numbers = list(range(1, NUMBERS_OF_ROWS + 1))
    random.Random(0).shuffle(numbers)
    start, begun = held(), time.perf_counter()
    shown = []
    for done, rows in enumerate(numbers, 1):
        layer(x_MI[:rows])
        if done in SHOWN:
            shown.append(f"{(held() - start) / 1e6:.0f}")
    seconds = time.perf_counter() - begun
    kept = "/".join(os.environ[name] for name in CAPACITIES)
    print(f"| {kept} | {' | '.join(shown)} | {seconds:.1f} |", flush=True)


def held() -> int:
    """Bytes of memory of this process that are in use."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    held_bytes: int = psutil.Process().memory_info().rss
    return held_bytes


if __name__ == "__main__":
    measure() if "measure" in sys.argv else main()
