"""Reconstruction losses: a mean per sample first, then over samples.

So the loss of a batch is the mean of the losses of its halves, and two ranks with half the windows each move the
weights as one rank with all of them. (One mean over all pixels would weigh ranks by how many of theirs count.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def l1(estimate: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error where ``weight`` counts [units of the network].

    Parameters
    ----------
    estimate, target : Tensor, shape (B, C, H, W)
    weight : Tensor, shape (B, 1, H, W)
        0 or more; every sample has some.

    Notes
    -----
    The study prints it without the sum over pixels and bands.
    """
    return _weighted((estimate - target).abs(), weight)


def charbonnier(estimate: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Mean of sqrt(e^2 + eps^2) - eps: square for small errors, absolute for large ones; 0 for a perfect estimate.

    Parameters
    ----------
    estimate, target : Tensor, shape (B, C, H, W)
    weight : Tensor, shape (B, 1, H, W)
        0 or more; every sample has some.
    eps : float
        Error at which it turns from square to absolute [units of the network].

    References
    ----------
    [1] Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging", 1994.
    """
    return _weighted(torch.sqrt((estimate - target) ** 2 + eps**2) - eps, weight)


def _weighted(loss: Tensor, weight: Tensor) -> Tensor:
    totals = (loss * weight).flatten(1).sum(dim=1)
    return (totals / (weight.flatten(1).sum(dim=1) * loss.shape[1])).mean()
