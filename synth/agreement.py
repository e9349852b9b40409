"""How far two scores of the same texts agree, beyond what chance would bring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def weighted_kappa(first: Sequence[int] | npt.ArrayLike, second: Sequence[int] | npt.ArrayLike) -> float | None:
    """Cohen's kappa with quadratic weights: 1 where all scores agree, 0 where they do as by chance.

    It is 1 - observed / expected disagreement, where scores i and j disagree by (i - j)² (Cohen 1968, "Weighted kappa",
    Psychological Bulletin 70(4)). Observed is the mean over the texts; expected is the mean over every score of the one
    set with every score of the other, which for squares is the sum of both variances and the squared distance of the
    means.

    Args:
        first: One score of each text, shape (n,), n at least 1.
        second: The other, in the same order.

    Returns:
        At most 1; None where every score is the same, so that chance would agree as well.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    expected = float(one.var() + other.var() + (one.mean() - other.mean()) ** 2)
    return 1 - float(((one - other) ** 2).mean()) / expected if expected else None
