"""DSen2 and VDSen2 (Lanaras et al., "Super-resolution of Sentinel-2 images", ISPRS Journal 146, 2018).

All bands are brought to the 10 m grid and joined; one residual trunk answers what bilinear interpolation lacks. Written
from the published description; `eosr.nn.dsen2_files` reads the published weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.study import ResidualBlock

#: The 10 m bands in the order in which the published weights expect them, and their digital numbers per unit [DN].
FINE_BANDS: Final = ("B04", "B03", "B02", "B08")
SCALE: Final = 2000.0
#: Rows that are worked on at once without gradients, at least: 128 features of a whole tile would fill the memory.
ROWS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Dsen2Config:
    """Shape of a `Dsen2Generator`: 20 m by default; 60 m: ``factor=6, targets=2, middle_guides=6``.

    VDSen2 has ``features=256, blocks=32``.
    """

    factor: int = 2
    targets: int = 6
    fine_guides: int = 4
    middle_guides: int = 0
    features: int = 128
    blocks: int = 6
    #: Constant that scales every residual.
    scaling: float = 0.1


class Dsen2Generator(nn.Module):
    """DSen2 (20 m -> 10 m or 60 m -> 10 m), everything on the 10 m grid."""

    #: Name in the weights file.
    kind = "dsen2"
    #: Whether it is told the blur that it must invert.
    told = False

    def __init__(self, config: Dsen2Config) -> None:
        super().__init__()
        self.config = config
        inputs = config.fine_guides + config.middle_guides + config.targets
        self.enter = nn.Conv2d(inputs, config.features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.leave = nn.Conv2d(config.features, config.targets, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    @property
    def radius(self) -> int:
        """Pixels of the 10 m grid on each side that the convolutions see."""
        return 2 * self.config.blocks + 2

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one output pixel: the overlap a tile needs."""
        farthest = 0
        # Followed to the right from every place in a coarse pixel; to the left it is the mirror image.
        for phase in range(self.config.factor):
            last = phase + self.radius
            for s in {self.config.factor, 2 if self.config.middle_guides else 1}:
                # The second half of a coarse pixel is interpolated with the next one.
                coarse = last // s + (s > 1 and last % s >= s // 2)
                farthest = max(farthest, coarse * s + s - 1 - phase)
        return farthest

    def settings(self) -> dict[str, Any]:
        """Return the configuration as plain values, for the weights file."""
        return asdict(self.config)

    def forward(
        self, fine: Tensor, coarse: Tensor, sigma: Tensor, middle: Tensor | None = None, *, trim: int = 0
    ) -> Tensor:
        """Sharpen; shapes as in `BackProjectionGenerator.forward`. ``sigma`` and ``trim`` are taken and not used.

        The convolutions continue a tile with zeros, so the answer is valid from `reach` pixels inwards.
        """
        up = functional.interpolate(coarse, scale_factor=self.config.factor, mode="bilinear", align_corners=False)
        inputs = [fine, up]
        if middle is not None:
            inputs.insert(1, functional.interpolate(middle, scale_factor=2, mode="bilinear", align_corners=False))
        joined = torch.cat(inputs, dim=1)
        return up + (self._trunk(joined) if torch.is_grad_enabled() else self._by_rows(joined))

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
