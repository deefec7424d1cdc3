"""PKU XMediaNet, its pictures and texts: 40,000 pairs in 200 classes (Peng et al.)."""

from __future__ import annotations

from typing import ClassVar

from xshot_bench.datasets._xmedia import XMediaDataset


class XMediaNet(XMediaDataset):
    """40,000 pictures and texts, 200 classes (--root DIR: DADN's dump, XMediaNetFeatures.mat, or metadata.csv).

    DADN's dump is a folder of text files, ``img_train_fea.txt`` and so on. How the raw set lies on disk differs, so a
    metadata.csv says it: file_name, text_file (or text), label, split.
    """

    name = "xmedianet"
    class_count: ClassVar = 200
    sizes: ClassVar = (32000, 8000)
    expected: ClassVar = "DADN's img_train_fea.txt … , XMediaNetFeatures.mat, or metadata.csv with the pictures"
