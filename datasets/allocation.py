"""Memory that a tower frees is kept for its next pass, for whoever runs one on the CPU."""

from __future__ import annotations

import ctypes
import platform

MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD = -3, -2, -1  # glibc's malloc.h
LARGEST = 2**25  # glibc takes no higher threshold for blocks that come from the system one by one


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks in place of giving each back to the system; elsewhere do nothing.

    A tower frees and takes tens of megabytes at every layer. Each block given back has to be cleared and mapped again,
    page by page, which takes a small tower as long as its arithmetic. The process keeps up to 256 MB more.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, 2**28), (TOP_PAD, 2**26)):
        libc.mallopt(option, value)
