"""XMedia, its pictures and texts: 5,000 pairs in 20 classes, the older of PKU's two sets (Peng et al.)."""

from __future__ import annotations

from typing import ClassVar

from xshot_bench.datasets._xmedia import XMediaDataset


class XMedia(XMediaDataset):
    """5,000 pictures and texts, 20 classes (--root DIR: XMediaFeatures.mat, or metadata.csv with the pictures)."""

    name = "xmedia"
    class_count: ClassVar = 20
    sizes: ClassVar = (4000, 1000)
    expected: ClassVar = "XMediaFeatures.mat, or metadata.csv with the pictures"
