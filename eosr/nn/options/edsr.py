"""EDSR: the trunk of SRResNet without batch norm, on the fine grid or on the coarse one.

Sixteen blocks of 64 features are SRResNet's and EDSR's baseline; the scaled residuals are those of the large EDSR.
Adapted: ``grid="fine"`` runs at 10 m on the joined bands, as VDSen2 does. ``grid="coarse"`` runs on the pixels of the
target bands, as the papers do: the finer bands are folded into channels (space to depth), and one pixel shuffle unfolds
the answer: 4 times (at 20 m) or 36 times (at 60 m) cheaper per layer, and every layer sees farther.

References
----------
[1] Ledig et al., "Photo-realistic single image super-resolution using a GAN", CVPR 2017 (SRResNet).
[2] Lim, Son, Kim, Nah, Lee, "Enhanced deep residual networks for single image super-resolution", CVPRW 2017.
[3] Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel CNN", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, Skip, conv


@dataclass(frozen=True, kw_only=True)
class EdsrConfig(DirectConfig):
    """Shape of an `EdsrGenerator`."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"grid": ("fine", "coarse")}

    features: int = 64
    blocks: int = 16
    #: Constant that scales every residual.
    scaling: float = 0.1
    #: Where the trunk runs: ``"fine"`` (10 m) or ``"coarse"`` (the pixels of the target bands).
    grid: str = "fine"


class EdsrGenerator(DirectGenerator):
    """A head, residual blocks inside one long skip, and a tail that may unfold coarse pixels."""

    kind = "edsr"
    config: EdsrConfig

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__(config)
        blocks = (ResidualBlock(config.features, config.scaling) for _ in range(config.blocks))
        body = Skip(*blocks, conv(config.features, config.features))
        self.trunk = nn.Sequential(conv(self.inputs, config.features), body)
        self.tail = conv(config.features, config.targets * self.fold**2)
        self.start()

    @property
    def fold(self) -> int:
        """Fine pixels in a row of one pixel of the trunk."""
        return self.config.factor if self.config.grid == "coarse" else 1

    @property
    def inputs(self) -> int:
        """Number of channels that `joined` joins: a folded band has one per fine pixel."""
        if self.fold == 1:
            return super().inputs
        config = self.config
        return self.fold**2 * config.fine_guides + (self.fold // 2) ** 2 * config.middle_guides + config.targets

    def last_seen(self, pixel: int) -> int:
        """One pixel of the trunk by the head, every convolution of a block, the end of the body and the tail."""
        return pixel + 3 + 2 * self.config.blocks

    def last_read(self, pixel: int) -> int:
        """As ever on the fine grid; on the coarse one nothing in the trunk is interpolated."""
        if self.fold == 1:
            return super().last_read(pixel)
        return (self.last_seen(pixel // self.fold) + 1) * self.fold - 1

    def joined(self, fine: Tensor, coarse: Tensor, middle: Tensor | None, up: Tensor) -> Tensor:
        """Join what the trunk sees, on its grid."""
        if self.fold == 1:
            return super().joined(fine, coarse, middle, up)
        bands = [functional.pixel_unshuffle(fine, self.fold), coarse]
        if middle is not None:
            bands.insert(1, functional.pixel_unshuffle(middle, self.fold // 2))
        return torch.cat(bands, dim=1)

    def correction(self, joined: Tensor) -> Tensor:
        """Unfold the answer of the tail."""
        return functional.pixel_shuffle(super().correction(joined), self.fold)
