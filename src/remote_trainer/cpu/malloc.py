"""What the C library does with memory that torch gives back."""

import ctypes
import platform

# From glibc's malloc.h, and the largest block it takes from the heap at all.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20
_MOST_KEPT = 2**31 - 1


def why_not_kept() -> str | None:
    """Why `keep_freed_memory` does nothing here; None: it can do its work."""
    return None if platform.libc_ver()[0] == "glibc" else "the C library is not glibc"


def keep_freed_memory() -> bool:
    """Let freed blocks up to ``LARGEST_KEPT`` bytes be used again in place of going back.

    An update frees and asks for the same gigabyte again and again; every page that went back to the
    system costs a fault, which took up to 10 microseconds on the machines we measured, a second an
    update. False where the C library is not glibc.
    """
    if why_not_kept() is not None:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
