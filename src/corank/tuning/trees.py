"""Gradient-boosted regression trees: xgboost's, or scikit-learn's where that is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from corank.errors import ConfigError

__all__ = ["Predict", "fitted_trees"]

Numbers = NDArray[np.float64]
Predict = Callable[[Numbers], Numbers]

_ROUNDS = 100
# Of Quantune's public scripts, which use 300 rounds with an early stop on a part that small studies cannot spare.
_RATE, _DEPTH, _SUBSAMPLE, _COLUMNS, _ALPHA = 0.1, 6, 0.79, 0.9, 0.01


def fitted_trees(rows: Numbers, targets: Numbers, weights: Numbers, seed: int) -> Predict:
    """Trees fitted to the squared error.

    Args:
        rows: ``(N, F)``.
        targets, weights: ``(N,)``.
        seed: draws the rows and columns of each tree.

    Raises:
        ConfigError: where neither package is installed.
    """
    if importlib.util.find_spec("xgboost") is not None:
        from xgboost import XGBRegressor

        model = XGBRegressor(
            n_estimators=_ROUNDS, learning_rate=_RATE, max_depth=_DEPTH, subsample=_SUBSAMPLE,
            colsample_bytree=_COLUMNS, reg_alpha=_ALPHA, tree_method="exact", random_state=seed, n_jobs=1,
        )  # fmt: skip
    elif importlib.util.find_spec("sklearn") is not None:
        from sklearn.ensemble import GradientBoostingRegressor

        model = GradientBoostingRegressor(
            n_estimators=_ROUNDS, learning_rate=_RATE, max_depth=_DEPTH, subsample=_SUBSAMPLE,
            max_features=_COLUMNS, random_state=seed,
        )  # fmt: skip
    else:
        raise ConfigError("boosted trees need xgboost (or scikit-learn): pip install 'corank[tune]'")
    model.fit(rows, targets, sample_weight=weights)
    return lambda given: np.asarray(model.predict(given), dtype=np.float64)
