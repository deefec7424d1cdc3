"""How many threads a process computes with."""

from __future__ import annotations


def one_thread() -> None:
    """From now on this process computes with one thread."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
