"""DSen2 and VDSen2 (Lanaras et al., "Super-resolution of Sentinel-2 images", ISPRS Journal 146, 2018).

All bands are brought to the 10 m grid and joined; one residual trunk answers what bilinear interpolation lacks. Written
from the published description; `eosr.nn.dsen2_files` reads the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, conv

#: The 10 m bands in the order in which the published weights expect them, and their digital numbers per unit [DN].
FINE_BANDS: Final = ("B04", "B03", "B02", "B08")
SCALE: Final = 2000.0
#: Rows that are worked on at once without gradients, at least: 128 features of a whole tile would fill the memory.
ROWS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Dsen2Config(DirectConfig):
    """Shape of a `Dsen2Generator`: 20 m by default; 60 m: ``factor=6, targets=2, middle_guides=6``.

    VDSen2 has ``features=256, blocks=32``.
    """

    features: int = 128
    blocks: int = 6
    #: Constant that scales every residual.
    scaling: float = 0.1


class Dsen2Generator(DirectGenerator):
    """DSen2 (20 m -> 10 m or 60 m -> 10 m), everything on the 10 m grid."""

    kind = "dsen2"
    config: Dsen2Config

    def __init__(self, config: Dsen2Config) -> None:
        super().__init__(config)
        self.enter = conv(self.inputs, config.features)
        self.blocks = nn.ModuleList(ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.leave = conv(config.features, config.targets)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    @property
    def radius(self) -> int:
        """Pixels of the 10 m grid on each side that the convolutions see."""
        return 2 * self.config.blocks + 2

    def last_seen(self, pixel: int) -> int:
        """Last pixel of the joined bands that counts for output pixel ``pixel`` of a row [fine pixels]."""
        return pixel + self.radius

    def correction(self, joined: Tensor) -> Tensor:
        """Map the joined bands to what is added to the upsampled ones, (B, targets, H, W).

        The convolutions continue a tile with zeros, so the answer is valid from `reach` pixels inwards.
        """
        return self._trunk(joined) if torch.is_grad_enabled() else self._by_rows(joined)

    def _trunk(self, joined: Tensor) -> Tensor:
        z = functional.relu(self.enter(joined))
        for block in self.blocks:
            z = block(z)
        residual: Tensor = self.leave(z)
        return residual

    def _by_rows(self, joined: Tensor) -> Tensor:
        """Strip by strip, each with all the rows that count for it: the same answer in less memory."""
        rows, height = max(ROWS, 8 * self.radius), joined.shape[2]
        strips = []
        for top in range(0, height, rows):
            first, last = max(top - self.radius, 0), min(top + rows + self.radius, height)
            strips.append(self._trunk(joined[:, :, first:last])[:, :, top - first :][:, :, :rows])
        return torch.cat(strips, dim=2)
