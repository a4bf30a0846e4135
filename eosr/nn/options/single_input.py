"""A residual net that sees nothing but the bands it sharpens: what is lost without the 10 m bands.

After Pouliot, Latifovic, Pasher, Duffe, "Landsat super-resolution enhancement using convolution neural networks and
Sentinel-2 for training", Remote Sensing 2018, whose deep residual net makes 10 m from 30 m of another sensor alone.
Adapted: one group of bands of the same sensor in and out, bilinear input, trained as every generator here; the number
of blocks is ours. The finer bands are taken and not used, so it runs wherever the others do: an ablation, no rival.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, conv


@dataclass(frozen=True, kw_only=True)
class SingleInputConfig(DirectConfig):
    """Shape of a `SingleInputGenerator`."""

    features: int = 64
    blocks: int = 6
    #: Constant that scales every residual.
    scaling: float = 0.1


class SingleInputGenerator(DirectGenerator):
    """A head, residual blocks, a tail, on the upsampled target bands alone."""

    kind = "single_input"
    config: SingleInputConfig

    def __init__(self, config: SingleInputConfig) -> None:
        super().__init__(config)
        blocks = (ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.trunk = nn.Sequential(conv(self.inputs, config.features), nn.ReLU(), *blocks)
        self.tail = conv(config.features, config.targets)
        self.start()

    @property
    def inputs(self) -> int:
        """Number of bands that the trunk sees: the target bands."""
        return self.config.targets

    def last_seen(self, pixel: int) -> int:
        """One pixel by the head, two by every block, one by the tail."""
        return pixel + 2 + 2 * self.config.blocks

    def joined(self, fine: Tensor, coarse: Tensor, middle: Tensor | None, up: Tensor) -> Tensor:
        """Return the upsampled target bands alone."""
        return up
