"""Copies of a tensor as a contender: a lower bound on the memory traffic of batch norm."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import numpy as np


def copies(size: int, dtype: str, times: int, threads: int) -> Callable[[], list]:
    """A function without arguments that copies a tensor several times, on several threads.

    Args:
        size: Number of elements.
        dtype: "float32" or "bfloat16".
        times: Number of copies per call.
        threads: Number of threads.
    """
    # Both arrays are written to, because untouched pages share one page of zeros in the cache.
    source = np.arange(size).astype({"float32": np.uint32, "bfloat16": np.uint16}[dtype])
    target = np.zeros_like(source) + source
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def copy(part):
        for _ in range(times):
            np.copyto(part[1], part[0])

    return lambda: list(pool.map(copy, parts))
