"""SRCNN: three convolutions, 9-1-5.

Dong, Loy, He, Tang, "Image super-resolution using deep convolutional networks", TPAMI 2016.

Adapted: all bands instead of one luminance, and the upsampled bands are added at the end, which the original does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from eosr.nn.options.direct import DirectConfig, DirectGenerator, conv


@dataclass(frozen=True, kw_only=True)
class SrcnnConfig(DirectConfig):
    """Shape of a `SrcnnGenerator`."""

    #: Channels after the 9 x 9 convolution.
    features: int = 64
    #: Channels after the 1 x 1 convolution.
    mapped: int = 32


class SrcnnGenerator(DirectGenerator):
    """Patches (9 x 9), a mapping between them (1 x 1), their overlay (5 x 5); it sees 13 x 13 pixels."""

    kind = "srcnn"

    def __init__(self, config: SrcnnConfig) -> None:
        super().__init__(config)
        first, second = conv(self.inputs, config.features, 9), conv(config.features, config.mapped, 1)
        self.trunk = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.tail = conv(config.mapped, config.targets, 5)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """Four pixels by the first convolution, two by the last."""
        return pixel + 4 + 2
