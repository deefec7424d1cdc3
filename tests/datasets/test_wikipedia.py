"""Wikipedia: its official features."""

from pathlib import Path

import numpy as np
import pytest

from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.wikipedia import Wikipedia

REAL = Path(__file__).resolve().parents[3] / "shared/data/wikipedia"
COUNTS = {"art": (138, 34), "biology": (272, 88), "geography": (244, 96), "history": (248, 85), "literature": (202, 65),
          "media": (178, 58), "music": (186, 51), "royalty": (144, 41), "sport": (214, 71), "warfare": (347, 104)}  # fmt: skip


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/wikipedia")
def test_the_official_features_and_lists_come_out_as_published():
    from scipy.io import loadmat

    data = Wikipedia.open(DatasetOptions(REAL))
    features, raw = data.features(), loadmat(REAL / "raw_features.mat")
    assert (features.image.dtype, features.joint, features.class_text.shape) == (np.float32, False, (10, 0))
    assert np.array_equal(features.image, np.vstack([raw["I_tr"], raw["I_te"]]).astype(np.float32))
    assert np.array_equal(features.text, np.vstack([raw["T_tr"], raw["T_te"]]).astype(np.float32))
    lines = [line.split() for f in ("train", "test") for line in (REAL / f"{f}set_txt_img_cat.list").open()]
    assert features.ids == tuple(text for text, _, _ in lines)
    assert features.label.tolist() == [int(category) - 1 for _, _, category in lines]
    split = data.split()
    assert {c: (len(split.train[c]), len(split.test[c])) for c in data.classes} == COUNTS
    assert data.notes == ()
