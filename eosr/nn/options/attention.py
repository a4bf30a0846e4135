"""Self-attention after SAGAN, in windows: memory grows with the area of a tile, not with its square.

SAGAN lets every pixel attend to every other one, so an answer depends on the size of the tile it was computed in. Here
the scene is cut into blocks of 6 x 6 pixels of 10 m, aligned to the 60 m grid as every chunk is, and the pixels of a
block attend to the block and a fixed margin around it: the answer does not depend on the chunking.

References
----------
[1] Zhang, Goodfellow, Metaxas, Odena, "Self-attention generative adversarial networks", ICML 2019.
[2] Vaswani et al., "Scaling local self-attention for parameter efficient visual backbones", CVPR 2021: windows
    around blocks of queries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Side of a block of queries [pixels of 10 m]: the 60 m pixel, to which every chunk is aligned.
BLOCK = 6


class WindowAttention(nn.Module):
    """SAGAN's attention block with keys and values from a window around each block of queries.

    ``theta`` has C / 8 channels, ``phi`` C / 8 and ``g`` C / 2 after 2 x 2 max pooling; the logits are not scaled; the
    answer is ``x + gamma * o`` with ``gamma`` zero at the start. 20,705 parameters for C = 128.

    Parameters
    ----------
    features : int
        Channels C; a multiple of 8.
    margin : int
        Pixels around a block that its queries see; even.
    """

    def __init__(self, features: int, margin: int = 6) -> None:
        super().__init__()
        self.margin = margin
        self.theta = nn.Conv2d(features, features // 8, 1)
        self.phi = nn.Conv2d(features, features // 8, 1)
        self.g = nn.Conv2d(features, features // 2, 1)
        self.o = nn.Conv2d(features // 2, features, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    @property
    def reach(self) -> int:
        """Pixels on each side that can change one output pixel: the rest of its block and the margin."""
        return BLOCK - 1 + self.margin

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows; (B, C, H, W) to the same shape, H and W multiples of 6."""
        batch, _, height, width = x.shape
        rows, columns = height // BLOCK, width // BLOCK
        query = _blocks(self.theta(x), BLOCK)
        key = self._windows(functional.max_pool2d(self.phi(x), 2))
        value = self._windows(functional.max_pool2d(self.g(x), 2))
        # scaled_dot_product_attention never holds all weights at once; scale=1 because SAGAN does not divide.
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=self._inside(x), scale=1.0)
        seen = seen.reshape(batch, rows, columns, BLOCK, BLOCK, -1).permute(0, 5, 1, 3, 2, 4)
        return x + self.gamma * self.o(seen.reshape(batch, -1, height, width))

    def _windows(self, pooled: Tensor) -> Tensor:
        side, margin = (BLOCK + 2 * self.margin) // 2, self.margin // 2
        patches = functional.unfold(pooled, side, padding=margin, stride=BLOCK // 2)
        batch, _, count = patches.shape
        return patches.reshape(batch, pooled.shape[1], side * side, count).permute(0, 3, 2, 1)

    def _inside(self, x: Tensor) -> Tensor:
        """Keys beyond the edge of the tile do not exist; they must not take part as zeros."""
        ones = x.new_ones((1, 1, x.shape[2] // 2, x.shape[3] // 2))
        return (self._windows(ones) > 0).permute(0, 1, 3, 2)


def _blocks(x: Tensor, side: int) -> Tensor:
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side, channels)
