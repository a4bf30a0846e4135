"""Statistics of the surroundings of a pixel that do not depend on the tile it is computed in.

Channel attention pools over the whole image: an answer then depends on the size of the tile. Here, as in
`eosr.nn.options.attention`, the scene is cut into blocks of 6 x 6 pixels of 10 m, aligned to the 60 m grid as every
tile is, and the pixels of a block share the statistics of the block and a fixed margin of whole blocks around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.attention import BLOCK


def check_margin(margin: int) -> None:
    """Refuse a margin that is not a whole number of blocks.

    Raises
    ------
    ValueError
        With the nearest margin that would do.
    """
    if margin % BLOCK:
        raise ValueError(
            f"margin = {margin} cannot work; give a multiple of {BLOCK} pixels, e.g. {-(-margin // BLOCK) * BLOCK}"
        )


def window_mean(x: Tensor, margin: int) -> Tensor:
    """Mean of every block and its margin, (B, C, H, W) to (B, C, ceil(H / 6), ceil(W / 6)).

    What lies beyond the edge of the tile takes no part.
    """
    return widened(functional.avg_pool2d(x, BLOCK, ceil_mode=True), margin)


def widened(blocks: Tensor, margin: int) -> Tensor:
    """Mean over a value per block (B, C, r, c) and those within the margin, same shape."""
    m = margin // BLOCK
    return functional.avg_pool2d(blocks, 2 * m + 1, stride=1, padding=m, count_include_pad=False) if m else blocks


def window_covariance(x: Tensor, margin: int) -> Tensor:
    """Covariance between channels in every block and its margin, (B, C, H, W) to (B, r, c, C, C).

    The mean of the covariances of the blocks plus the covariance of their means: a sum of squares, so nothing cancels
    and it stays positive semi-definite in float32. The outermost pixels are repeated outwards.
    """
    batch, channels, height, width = x.shape
    rows, columns, m = -(-height // BLOCK), -(-width // BLOCK), margin // BLOCK
    x = functional.pad(x, (0, columns * BLOCK - width, 0, rows * BLOCK - height), mode="replicate")
    cut = x.reshape(batch, channels, rows, BLOCK, columns, BLOCK).permute(0, 2, 4, 1, 3, 5).flatten(4)
    means = cut.mean(dim=4, keepdim=True)
    inside = _scatter(cut - means)
    if not m:
        return inside
    padded = functional.pad(means[..., 0].permute(0, 3, 1, 2), (m,) * 4, mode="replicate")
    around = padded.unfold(2, 2 * m + 1, 1).unfold(3, 2 * m + 1, 1).flatten(4).permute(0, 2, 3, 1, 4)
    between = _scatter(around - around.mean(dim=4, keepdim=True))
    flat = functional.pad(inside.flatten(3).permute(0, 3, 1, 2), (m,) * 4, mode="replicate")
    mean = functional.avg_pool2d(flat, 2 * m + 1, stride=1).permute(0, 2, 3, 1)
    return mean.reshape(inside.shape) + between


def _scatter(centred: Tensor) -> Tensor:
    """Mean outer product over the last axis: (..., C, n) to (..., C, C)."""
    return centred @ centred.transpose(-1, -2) / centred.shape[-1]


def last_in_window(pixel: int, margin: int) -> int:
    """Last pixel of a row whose value counts in the window of ``pixel``; row 0 starts a block."""
    return pixel // BLOCK * BLOCK + BLOCK - 1 + margin


class Gate(nn.Module):
    """Squeeze and excitation: a value per block and channel -> a factor in (0, 1) for the channel's pixels there.

    Two 1 x 1 convolutions with a ReLU between and a sigmoid after (Hu et al., CVPR 2018).
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(features, features // reduction, 1)
        self.excite = nn.Conv2d(features // reduction, features, 1)

    def forward(self, x: Tensor, blocks: Tensor) -> Tensor:
        """Scale (B, C, H, W) by statistics (B, C, r, c) of its blocks, or by one per tile if r = c = 1 < H."""
        factors = torch.sigmoid(self.excite(functional.relu(self.squeeze(blocks))))
        if blocks.shape[2:] != (1, 1):
            factors = factors.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
            factors = factors[..., : x.shape[2], : x.shape[3]]
        return x * factors


def check_reduction(features: int, reduction: int) -> None:
    """Refuse a bottleneck that is no whole number of channels.

    Raises
    ------
    ValueError
        With both numbers.
    """
    if features % reduction:
        raise ValueError(f"features = {features} cannot work with reduction = {reduction}; give a multiple of it")
