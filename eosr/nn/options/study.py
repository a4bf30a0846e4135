"""The generators of the reference study, S2x and S6x (Zhang, Cavallaro, Jitsev, IGARSS 2020).

The study's code is not public. What its slides state is followed (one branch per resolution, band fusion, six residual
blocks with constant scaling and no batch norm, self-attention after SAGAN, mean shift, residual learning); the widths
are the reconstruction that keeps its claim of a model as complex as DSen2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.errors import WeightsError
from eosr.nn.options.attention import BLOCK, WindowAttention
from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, conv


@dataclass(frozen=True, kw_only=True)
class StudyConfig(DirectConfig):
    """Shape of a `StudyGenerator`: the defaults are S2x; ``factor=6, targets=2, middle_guides=6`` is S6x."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"mean_shift": ("fixed", "patch", "none")}

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


class StudyGenerator(DirectGenerator):
    """S2x (20 m -> 10 m) or S6x (60 m -> 10 m), everything on the 10 m grid."""

    kind = "study"
    block = BLOCK
    config: StudyConfig

    def __init__(self, config: StudyConfig) -> None:
        super().__init__(config)
        widths = [config.fine_guides, config.middle_guides, config.targets]
        self.branches = nn.ModuleList(conv(width, config.features) for width in widths if width)
        self.fusion = conv(len(self.branches) * config.features, config.features, config.fusion)
        self.blocks = nn.ModuleList(ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        self.attention = WindowAttention(config.features, config.margin)
        self.tail = conv(config.features, config.targets)
        self.start()
        fixed = config.mean_shift == "fixed"
        self.means = nn.ParameterList(
            nn.Parameter(torch.ones(width), requires_grad=fixed) for width in widths if width and fixed
        )

    @property
    def reach(self) -> int:
        """As of `DirectGenerator`.

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
        return super().reach

    def last_seen(self, pixel: int) -> int:
        """Last pixel of the joined bands that counts for output pixel ``pixel`` of a row [fine pixels]."""
        before = 1 + self.config.fusion // 2 + 2 * self.config.blocks
        # One pixel for the tail, to the end of that pixel's block, its margin, then the convolutions before.
        return (pixel + 1) // BLOCK * BLOCK + BLOCK - 1 + self.config.margin + before

    def correction(self, joined: Tensor) -> Tensor:
        """Map the joined bands to what is added to the upsampled ones, (B, targets, H, W)."""
        inputs = joined.split([branch.in_channels for branch in self.branches], dim=1)
        # The skip of `forward` is taken from the unshifted bands, so it puts the mean back.
        shifted = [band - self._mean(band, i) for i, band in enumerate(inputs)]
        heads = [functional.relu(branch(band)) for branch, band in zip(self.branches, shifted, strict=True)]
        z = self.fusion(torch.cat(heads, dim=1))
        for block in self.blocks:
            z = block(z)
        answer: Tensor = self.tail(self.attention(z))
        return answer

    def _mean(self, band: Tensor, index: int) -> Tensor | float:
        if self.config.mean_shift == "patch":
            return band.mean(dim=(2, 3), keepdim=True)
        return self.means[index][None, :, None, None] if self.config.mean_shift == "fixed" else 0.0
