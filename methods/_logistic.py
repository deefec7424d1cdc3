"""Multinomial logistic regression by scikit-learn, as tensors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


def train(x: np.ndarray, label: np.ndarray, strength: float) -> LogisticRegression:
    """The fitted classifier of ``x [n,d]``; ``strength`` is scikit-learn's C, larger for less regularisation."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # one shot a class is what was asked for
        return LogisticRegression(C=strength, max_iter=1000).fit(x, label)


def coefficients(model: LogisticRegression, candidates: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[C,d]`` and biases ``[C]`` of the candidate classes, of the dtype and device of ``like``."""
    weight, bias = model.coef_, model.intercept_
    if len(bias) == 1:  # scikit-learn keeps one row of the two
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    column = np.searchsorted(model.classes_, candidates.cpu().numpy())
    return torch.from_numpy(weight[column]).to(like), torch.from_numpy(bias[column]).to(like)
