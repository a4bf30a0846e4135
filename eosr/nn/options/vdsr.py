"""VDSR: twenty 3 x 3 convolutions in a row.

Kim, Lee, Lee, "Accurate image super-resolution using very deep convolutional networks", CVPR 2016.

Adapted: all bands enter, and only the upsampled target bands are added at the end. The original's gradient clipping
belongs to the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from eosr.nn.options.direct import DirectConfig, DirectGenerator, conv


@dataclass(frozen=True, kw_only=True)
class VdsrConfig(DirectConfig):
    """Shape of a `VdsrGenerator`."""

    features: int = 64
    #: Convolutions in all, the first and the last included; two or more.
    depth: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 2:
            raise ValueError(f"depth = {self.depth} cannot work; give 2 or more: one convolution in, one out")


class VdsrGenerator(DirectGenerator):
    """A plain stack of convolutions with one skip around all of it."""

    kind = "vdsr"
    config: VdsrConfig

    def __init__(self, config: VdsrConfig) -> None:
        super().__init__(config)
        widths = [self.inputs, *[config.features] * (config.depth - 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [conv(before, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.tail = conv(config.features, config.targets)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """One pixel by every convolution."""
        return pixel + self.config.depth
