"""PSGAN's generator: a stream per resolution, strided encoders, fusion of features, and a decoder with skips.

Liu, Wang, Liu, "PSGAN: a generative adversarial network for remote sensing image pan-sharpening", ICIP 2018.
Adapted: the 10 m bands in place of the panchromatic one, a third stream of the 20 m bands for 60 m, pixel shuffles
in place of transposed convolutions, and the upsampled bands are added. The second stride is 3 instead of 2: pixels of
20 m and of 60 m, to whose grid every tile is aligned, where a grid of 40 m would depend on the tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, conv

#: Strides of the two levels of the encoder; their product is the side of a block.
STRIDES = (2, 3)
#: Slope of the LeakyReLU.
SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class PsganConfig(DirectConfig):
    """Shape of a `PsganGenerator`."""

    #: Width of a stream; the levels below are two, four and eight times as wide.
    features: int = 32


class Streams(nn.Module):
    """Joined bands (B, inputs, H, W) -> features (B, 2 F, H, W)."""

    def __init__(self, config: PsganConfig) -> None:
        super().__init__()
        width = config.features
        self.widths = [n for n in (config.fine_guides, config.middle_guides, config.targets) if n]
        count, (first, second) = len(self.widths), STRIDES
        self.enter = nn.ModuleList(_leaky(conv(n, width), conv(width, width)) for n in self.widths)
        self.down = nn.ModuleList(_leaky(nn.Conv2d(width, 2 * width, first, first)) for _ in self.widths)
        self.fuse = _leaky(conv(2 * count * width, 4 * width), conv(4 * width, 4 * width))
        self.deep = _leaky(
            nn.Conv2d(4 * width, 8 * width, second, second),
            conv(8 * width, 8 * width),
            nn.Conv2d(8 * width, 4 * width * second**2, 1),
        )
        self.middle = _leaky(conv(8 * width, 4 * width), nn.Conv2d(4 * width, 2 * width * first**2, 1))
        self.leave = _leaky(conv((2 + count) * width, 2 * width))

    def forward(self, joined: Tensor) -> Tensor:
        """Encode, fuse, decode; H and W need not be multiples of 6."""
        height, width = joined.shape[2:]
        block = STRIDES[0] * STRIDES[1]
        joined = functional.pad(joined, (0, -width % block, 0, -height % block), mode="replicate")
        streams = [enter(band) for enter, band in zip(self.enter, joined.split(self.widths, dim=1), strict=True)]
        fused = self.fuse(torch.cat([down(stream) for down, stream in zip(self.down, streams, strict=True)], dim=1))
        decoded = functional.pixel_shuffle(self.deep(fused), STRIDES[1])
        decoded = functional.pixel_shuffle(self.middle(torch.cat([decoded, fused], dim=1)), STRIDES[0])
        answer: Tensor = self.leave(torch.cat([decoded, *streams], dim=1))
        return answer[..., :height, :width]


def _leaky(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(SLOPE))))


class PsganGenerator(DirectGenerator):
    """Two streams, or three with 20 m guides; a U-shaped decoder; a tail."""

    kind = "psgan"
    block = STRIDES[0] * STRIDES[1]
    config: PsganConfig

    def __init__(self, config: PsganConfig) -> None:
        super().__init__(config)
        self.trunk = Streams(config)
        self.tail = conv(2 * config.features, config.targets)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """Down to the coarsest level and up again: there one convolution, between two and one, at 10 m two and two."""
        first, second = STRIDES
        coarsest = ((pixel + 2) // first + 1) // second + 1
        between = coarsest * second + second - 1 + 2
        return between * first + first - 1 + 2
