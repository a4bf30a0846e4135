"""The generators of the reference study, S2x and S6x (Zhang, Cavallaro, Jitsev, IGARSS 2020).

The study's code is not public. What its slides state is followed (one branch per resolution, band fusion, six residual
blocks with constant scaling and no batch norm, self-attention after SAGAN, mean shift, residual learning); the widths
are the reconstruction that keeps its claim of a model as complex as DSen2.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.errors import WeightsError
from eosr.nn.options.attention import BLOCK, WindowAttention


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Shape of a `StudyGenerator`: the defaults are S2x; ``factor=6, targets=2, middle_guides=6`` is S6x."""

    factor: int = 2
    targets: int = 6
    fine_guides: int = 4
    middle_guides: int = 0
    features: int = 128
    blocks: int = 6
    #: Kernel of the band fusion: 1 (1.84 M parameters) or 3 (2.11 M).
    fusion: int = 1
    #: Constant that scales every residual.
    scaling: float = 0.1
    #: Pixels around a block that attention sees.
    margin: int = 6
    #: ``"fixed"``: one mean per band, trained with the rest; ``"patch"``: the mean of the tile at hand, as the slides
    #: suggest, which makes the answer depend on the tile; ``"none"``.
    mean_shift: str = "fixed"


class ResidualBlock(nn.Module):
    """``z + scaling * conv(ReLU(conv(z)))``, no batch norm (Lim et al., EDSR, 2017)."""

    def __init__(self, features: int, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        return z + self.scaling * self.second(functional.relu(self.first(z)))


class StudyGenerator(nn.Module):
    """S2x (20 m -> 10 m) or S6x (60 m -> 10 m), everything on the 10 m grid."""

    #: Name in the weights file.
    kind = "study"
    #: Whether it is told the blur that it must invert.
    told = False

    def __init__(self, config: StudyConfig) -> None:
        super().__init__()
        if config.mean_shift not in ("fixed", "patch", "none"):
            raise ValueError(f"mean_shift {config.mean_shift!r} is not one of 'fixed', 'patch', 'none'")
        self.config = config
        widths = [config.fine_guides, config.middle_guides, config.targets]
        self.branches = nn.ModuleList(nn.Conv2d(width, config.features, 3, padding=1) for width in widths if width)
        count = len(self.branches)
        self.fusion = nn.Conv2d(count * config.features, config.features, config.fusion, padding=config.fusion // 2)
        self.blocks = nn.ModuleList(ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.attention = WindowAttention(config.features, config.margin)
        self.tail = nn.Conv2d(config.features, config.targets, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # He-uniform tails start at an RMSE of thousands; the residual starts near zero instead.
        nn.init.uniform_(self.tail.weight, -1e-3, 1e-3)
        fixed = config.mean_shift == "fixed"
        self.means = nn.ParameterList(
            nn.Parameter(torch.ones(width), requires_grad=fixed) for width in widths if width and fixed
        )

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one output pixel.

        Raises
        ------
        WeightsError
            With ``mean_shift="patch"``: every pixel of a tile changes every other one, so no overlap is enough.
        """
        if self.config.mean_shift == "patch":
            raise WeightsError(
                "a generator with mean_shift='patch' sees the whole tile, so its answer depends on the chunking. "
                "Retrain it with mean_shift='fixed'."
            )
        before = 1 + self.config.fusion // 2 + 2 * self.config.blocks
        farthest = 0
        # Followed to the right from every place in a block; to the left it is the mirror image. Exact: a test finds by
        # gradients the farthest pixel that counts.
        for phase in range(BLOCK):
            # One pixel for the tail, to the end of that pixel's block, its margin, then the convolutions before.
            last = (phase + 1) // BLOCK * BLOCK + BLOCK - 1 + self.config.margin + before
            for s in {self.config.factor, 2 if self.config.middle_guides else 1}:
                # The second half of a coarse pixel is interpolated with the next one.
                coarse = last // s + (s > 1 and last % s >= s // 2)
                farthest = max(farthest, coarse * s + s - 1 - phase)
        return -(-farthest // BLOCK) * BLOCK

    def settings(self) -> dict[str, Any]:
        """Return the configuration as plain values, for the weights file."""
        return asdict(self.config)

    def forward(
        self, fine: Tensor, coarse: Tensor, sigma: Tensor, middle: Tensor | None = None, *, trim: int = 0
    ) -> Tensor:
        """Sharpen; shapes as in `BackProjectionGenerator.forward`. ``sigma`` and ``trim`` are taken and not used."""
        up = functional.interpolate(coarse, scale_factor=self.config.factor, mode="bilinear", align_corners=False)
        inputs = [fine, up]
        if middle is not None:
            inputs.insert(1, functional.interpolate(middle, scale_factor=2, mode="bilinear", align_corners=False))
        shifted = [band - self._mean(band, i) for i, band in enumerate(inputs)]
        heads = [functional.relu(branch(band)) for branch, band in zip(self.branches, shifted, strict=True)]
        z = self.fusion(torch.cat(heads, dim=1))
        for block in self.blocks:
            z = block(z)
        # The skip is taken from the unshifted bands, so it puts the mean back.
        return up + self.tail(self.attention(z))

    def _mean(self, band: Tensor, index: int) -> Tensor | float:
        if self.config.mean_shift == "patch":
            return band.mean(dim=(2, 3), keepdim=True)
        return self.means[index][None, :, None, None] if self.config.mean_shift == "fixed" else 0.0
