"""PanNet: the network sees high-pass bands only, and the upsampled bands bring the colours.

Yang et al., "PanNet: a deep network architecture for pan-sharpening", ICCV 2017. Without low frequencies in its input
a network cannot learn the brightness of a scene, so it carries over to other ones: with every input raised by a
constant, the answer is raised by that constant. Adapted: the 10 m bands in place of the panchromatic one, and bilinear
upsampling in place of a transposed convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, conv, last_interpolated, upsampled


@dataclass(frozen=True, kw_only=True)
class PannetConfig(DirectConfig):
    """Shape of a `PannetGenerator`."""

    features: int = 32
    blocks: int = 4
    #: Constant that scales every residual.
    scaling: float = 1.0
    #: Of the low-pass box, in pixels of the band it is taken of; 2 is the paper's 5 x 5 box.
    radius: int = 2


def high_pass(band: Tensor, radius: int) -> Tensor:
    """Take from every pixel the mean of the box around it; what lies beyond the edge takes no part."""
    side = 2 * radius + 1
    return band - functional.avg_pool2d(band, side, stride=1, padding=radius, count_include_pad=False)


class PannetGenerator(DirectGenerator):
    """A head, four residual blocks, a tail, on the high-pass bands."""

    kind = "pannet"
    config: PannetConfig

    def __init__(self, config: PannetConfig) -> None:
        super().__init__(config)
        blocks = (ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.trunk = nn.Sequential(conv(self.inputs, config.features), nn.ReLU(), *blocks)
        self.tail = conv(config.features, config.targets)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """One pixel by the head, two by every block, one by the tail."""
        return pixel + 2 + 2 * self.config.blocks

    def last_read(self, pixel: int) -> int:
        """The low-pass box of the coarse bands reads on by its radius, in coarse pixels."""
        s = self.config.factor
        return (last_interpolated(self.last_seen(pixel), s) + self.config.radius + 1) * s - 1

    def joined(self, fine: Tensor, coarse: Tensor, middle: Tensor | None, up: Tensor) -> Tensor:
        """Join the high-pass bands, each taken at the resolution of its band."""
        radius = self.config.radius
        bands = [high_pass(fine, radius), upsampled(high_pass(coarse, radius), self.config.factor)]
        if middle is not None:
            bands.insert(1, upsampled(high_pass(middle, radius), 2))
        return torch.cat(bands, dim=1)
