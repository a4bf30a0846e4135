"""What the networks of the related work share: joined bands, one trunk, its answer added to the upsampled bands.

Their papers sharpen one image alone, or join a panchromatic band to a few others. Here the 10 m bands, the upsampled
20 m bands (for 60 m) and the upsampled bands to sharpen are joined. Two things differ from every paper: there is no
batch norm (it ties a pixel to its batch), and the last convolution starts near zero, so that an untrained generator is
bilinear interpolation; with a He-uniform tail it starts at an RMSE of thousands of digital numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Settings that may be zero; every other number is at least one, or more than zero if it is a fraction.
_MAY_BE_ZERO: Final = ("middle_guides", "margin")


@dataclass(frozen=True, kw_only=True)
class DirectConfig:
    """Bands of a `DirectGenerator`; its kinds add their widths and depths.

    Raises
    ------
    ValueError
        If a number cannot be a width, a depth or a factor, or a word is not one of its choices.
    """

    #: Words that a setting may be, by setting.
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    #: Pixel-size ratio between the target bands and 10 m: 2 or 6.
    factor: int = 2
    #: Number of target bands.
    targets: int = 6
    #: Number of 10 m guide bands.
    fine_guides: int = 4
    #: Number of 20 m guide bands (0 for a 20 m -> 10 m generator).
    middle_guides: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in self.choices:
                if value not in self.choices[name]:
                    raise ValueError(f"{name} {value!r} is not one of {', '.join(map(repr, self.choices[name]))}")
                continue
            whole = isinstance(type(self).__dataclass_fields__[name].default, int)
            wanted = (int,) if whole else (int, float)
            least = 0 if name in _MAY_BE_ZERO else 1 if whole else math.ulp(0.0)
            if isinstance(value, bool) or not isinstance(value, wanted) or not least <= value < math.inf:
                bound = f"a whole number of {least} or more" if whole else "a number of more than 0"
                raise ValueError(f"{name} = {value!r} cannot work; give {bound}")
        if self.factor not in (2, 6):
            raise ValueError(f"factor = {self.factor} cannot work; give 2 (20 m -> 10 m) or 6 (60 m -> 10 m)")


class DirectGenerator(nn.Module):
    """``upsampled targets + tail(trunk(joined bands))``; a kind gives `trunk`, `tail` and how far they see."""

    #: Name in the weights file.
    kind: ClassVar[str]
    #: Whether the answer depends on the blur it is told.
    told: ClassVar[bool] = False
    #: Side of the fixed blocks that the network works in [fine pixels]; tiles must start at multiples of it.
    block: ClassVar[int] = 1
    config: DirectConfig
    trunk: nn.Module
    tail: nn.Module

    def __init__(self, config: DirectConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def inputs(self) -> int:
        """Number of bands that `joined` joins."""
        return self.config.fine_guides + self.config.middle_guides + self.config.targets

    def start(self, spread: float = 1.0) -> None:
        """Set the initial weights: He-uniform times ``spread``, biases zero, the tail within 1e-3 of zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                module.weight.data.mul_(spread)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.uniform_(self.tail.weight, -1e-3, 1e-3)  # type: ignore[arg-type]  # a convolution in every kind

    def settings(self) -> dict[str, Any]:
        """Return the configuration as plain values, for the weights file."""
        return asdict(self.config)

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one output pixel, rounded up to whole blocks and coarse pixels."""
        step = math.lcm(self.block, self.config.factor)
        # Followed to the right from every place in a block; to the left it is the mirror image. Exact: a test finds by
        # gradients the farthest pixel that counts.
        farthest = max(self.last_read(pixel) - pixel for pixel in range(step))
        return -(-farthest // step) * step

    def last_seen(self, pixel: int) -> int:
        """Last pixel of the joined bands that counts for output pixel ``pixel`` of a row [fine pixels]."""
        raise NotImplementedError

    def last_read(self, pixel: int) -> int:
        """Last fine pixel of the inputs that counts for output pixel ``pixel`` of a row.

        Of the inputs the coarse one is read farthest: 20 m pixels nest in 60 m ones, fine ones in both.
        """
        s = self.config.factor
        return (last_interpolated(self.last_seen(pixel), s) + 1) * s - 1

    def joined(self, fine: Tensor, coarse: Tensor, middle: Tensor | None, up: Tensor) -> Tensor:
        """Join what the trunk sees, (B, inputs, H, W); ``up`` is ``coarse`` at 10 m."""
        return torch.cat([fine, up] if middle is None else [fine, upsampled(middle, 2), up], dim=1)

    def correction(self, joined: Tensor) -> Tensor:
        """Map the joined bands to what is added to the upsampled ones, (B, targets, H, W)."""
        answer: Tensor = self.tail(self.trunk(joined))
        return answer

    def forward(
        self, fine: Tensor, coarse: Tensor, sigma: Tensor, middle: Tensor | None = None, *, trim: int = 0
    ) -> Tensor:
        """Sharpen; shapes as in `BackProjectionGenerator.forward`. ``sigma`` and ``trim`` are taken and not used."""
        up = upsampled(coarse, self.config.factor)
        return up + self.correction(self.joined(fine, coarse, middle, up))


class Skip(nn.Sequential):
    """``x + scaling * (the layers in a row)(x)``."""

    def __init__(self, *layers: nn.Module, scaling: float = 1.0) -> None:
        super().__init__(*layers)
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        return x + self.scaling * super().forward(x)


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


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution that keeps the size of its input; ``kernel`` is odd."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def upsampled(band: Tensor, factor: int) -> Tensor:
    """Bilinear interpolation between pixel centres, (B, C, h, w) to (B, C, h * factor, w * factor)."""
    return functional.interpolate(band, scale_factor=factor, mode="bilinear", align_corners=False)


def last_interpolated(pixel: int, factor: int) -> int:
    """Last coarse pixel that `upsampled` reads for fine pixel ``pixel``: its own, in its second half the next one."""
    return pixel // factor + (pixel % factor >= factor // 2)
