"""What comes from scikit-learn: small data sets, and the models that a table is compared with.

The only file that knows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from esper.training.preparation import Category, Column, Number, Preparation, Table

Floats = npt.NDArray[Any]


def references(preparation: Preparation, table: Table, *, fit: Column, test: Column) -> dict[str, float]:
    """Accuracy, or R², on rows ``test`` of a linear and a gradient-boosted model fitted to rows ``fit``.

    Both get all rows that the network saw in any role. The linear model reads the network's inputs; the
    boosted one reads numbers with their gaps and categories as categories, which suits it better.
    """
    classify = preparation.target.kind == "classification"
    targets = preparation.target.encode(table[preparation.target.name])
    targets = targets if classify else targets[:, 0]
    encoded = preparation.encode(table)
    linear = LogisticRegression(max_iter=1_000) if classify else Ridge()
    raw, categorical = _raw(preparation, table)
    booster = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
    boosted = booster(categorical_features=categorical, random_state=0)
    return {
        "linear": float(linear.fit(encoded[fit], targets[fit]).score(encoded[test], targets[test])),
        "gradient-boosted": float(boosted.fit(raw[fit], targets[fit]).score(raw[test], targets[test])),
    }


def _raw(preparation: Preparation, table: Table) -> tuple[Floats, list[int]]:
    """Columns as they are, categories as numbers, and which columns those are."""
    columns = []
    for column in preparation.columns:
        match column:
            case Number():
                values = table[column.name]
                columns.append(np.where(np.isfinite(values), values, np.nan))
            case Category():
                columns.append(column.codes(table[column.name]).astype(np.float64))
    categorical = [index for index, column in enumerate(preparation.columns) if isinstance(column, Category)]
    return np.stack(columns, axis=1), categorical


def digits() -> tuple[Floats, Floats]:
    """1,797 images of 8 × 8 grey values in [0, 16], and their digits."""
    bunch = datasets.load_digits()
    return bunch.images, bunch.target


def breast_cancer() -> Table:
    """569 rows of 30 measurements of cell nuclei, and column ``diagnosis``."""
    bunch = datasets.load_breast_cancer()
    return _table(bunch, "diagnosis", bunch.target_names[bunch.target].astype(object))


def diabetes() -> Table:
    """442 rows of 10 measurements of patients, and column ``progression``, a number."""
    bunch = datasets.load_diabetes()
    return _table(bunch, "progression", bunch.target.astype(np.float64))


def _table(bunch: Any, target: str, values: Column) -> Table:
    columns = {str(name): bunch.data[:, index] for index, name in enumerate(bunch.feature_names)}
    return {**columns, target: values}
