"""RRDB: the trunk of ESRGAN, residual-in-residual dense blocks (Wang et al., "ESRGAN", ECCVW 2018).

Adapted: the bands are joined at 10 m, so there is no upsampling layer. The default has 4 blocks; the paper's 23 are
``blocks=23``. The initial weights are a tenth of He's, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, Skip, conv

#: Convolutions of a dense block, and dense blocks of a residual-in-residual one.
CONVOLUTIONS, DENSE = 5, 3
#: Slope of the LeakyReLU.
SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class RrdbConfig(DirectConfig):
    """Shape of an `RrdbGenerator`."""

    features: int = 64
    #: Channels that every convolution of a dense block adds.
    growth: int = 32
    #: Residual-in-residual dense blocks of 15 convolutions each.
    blocks: int = 4
    #: Constant that scales every residual, inner and outer.
    scaling: float = 0.2


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the block's input and what all earlier ones made; a scaled skip."""

    def __init__(self, features: int, growth: int, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.grow = nn.ModuleList(conv(features + i * growth, growth) for i in range(CONVOLUTIONS - 1))
        self.shrink = conv(features + (CONVOLUTIONS - 1) * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        seen = x
        for layer in self.grow:
            seen = torch.cat([seen, functional.leaky_relu(layer(seen), SLOPE)], dim=1)
        return x + self.scaling * self.shrink(seen)


class RrdbGenerator(DirectGenerator):
    """A head, residual-in-residual dense blocks inside one long skip, two convolutions at the end."""

    kind = "rrdb"
    config: RrdbConfig

    def __init__(self, config: RrdbConfig) -> None:
        super().__init__(config)
        width, scaling = config.features, config.scaling
        blocks = (
            Skip(*(DenseBlock(width, config.growth, scaling) for _ in range(DENSE)), scaling=scaling)
            for _ in range(config.blocks)
        )
        body = Skip(*blocks, conv(width, width))
        self.trunk = nn.Sequential(conv(self.inputs, width), body, conv(width, width), nn.LeakyReLU(SLOPE))
        self.tail = conv(width, config.targets)
        self.start(0.1)

    def last_seen(self, pixel: int) -> int:
        """One pixel by every convolution: those of the blocks, the head, the end of the body, and two at the end."""
        return pixel + 4 + self.config.blocks * DENSE * CONVOLUTIONS
