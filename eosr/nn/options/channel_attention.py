"""Channel attention, the idea of "Sen2CA": DSen2's trunk with residual channel attention blocks.

Built from a description (Zhu et al. 2019: a residual net for Sentinel-2 with channel attention in each block) and
from RCAN's block; the six blocks of 128 features are DSen2's. Adapted: the original pools over the whole image, so its
answer depends on the tile. Here a pixel's channels are weighed by their means in its block of 6 x 6 pixels and a margin
(`eosr.nn.options.windows`), and the answer does not depend on tiles. ``pooling="tile"`` is the original, for
comparisons on equal tiles only.

References
----------
[1] Zhu, Xu, Wei, "Super-resolution of Sentinel-2 images based on deep channel-attention residual network", IGARSS 2019.
[2] Zhang et al., "Image super-resolution using very deep residual channel attention networks", ECCV 2018 (RCAB).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from eosr.errors import WeightsError
from eosr.nn.options.attention import BLOCK
from eosr.nn.options.direct import DirectConfig, DirectGenerator, conv
from eosr.nn.options.windows import Gate, check_margin, check_reduction, last_in_window, window_mean


@dataclass(frozen=True, kw_only=True)
class ChannelAttentionConfig(DirectConfig):
    """Shape of a `ChannelAttentionGenerator`."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"pooling": ("window", "tile")}

    features: int = 128
    blocks: int = 6
    #: Constant that scales every residual.
    scaling: float = 0.1
    #: Features per channel of the bottleneck.
    reduction: int = 16
    #: Pixels around a block that its means include; a multiple of 6.
    margin: int = 6
    #: ``"window"``, or ``"tile"`` as published, which makes the answer depend on the tile.
    pooling: str = "window"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_margin(self.margin)
        check_reduction(self.features, self.reduction)


class ChannelAttentionBlock(nn.Module):
    """``z + scaling * gate(conv(ReLU(conv(z))))``: a residual block whose residual's channels are weighed."""

    def __init__(self, config: ChannelAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.first = conv(config.features, config.features)
        self.second = conv(config.features, config.features)
        self.gate = Gate(config.features, config.reduction)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        residual = self.second(functional.relu(self.first(z)))
        whole = self.config.pooling == "tile"
        means = residual.mean(dim=(2, 3), keepdim=True) if whole else window_mean(residual, self.config.margin)
        return z + self.config.scaling * self.gate(residual, means)


class ChannelAttentionGenerator(DirectGenerator):
    """A head, residual channel attention blocks, a tail."""

    kind = "channel_attention"
    block = BLOCK
    config: ChannelAttentionConfig

    def __init__(self, config: ChannelAttentionConfig) -> None:
        super().__init__(config)
        blocks = (ChannelAttentionBlock(config) for _ in range(config.blocks))
        self.trunk = nn.Sequential(conv(self.inputs, config.features), nn.ReLU(), *blocks)
        self.tail = conv(config.features, config.targets)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """One pixel by the tail; per block the window's end and two convolutions; one by the head.

        Raises
        ------
        WeightsError
            With ``pooling="tile"``: every pixel of a tile changes every other one, so no overlap is enough.
        """
        if self.config.pooling == "tile":
            raise WeightsError(
                "a generator with pooling='tile' sees the whole tile, so its answer depends on the chunking. "
                "Retrain it with pooling='window'."
            )
        last = pixel + 1
        for _ in range(self.config.blocks):
            last = last_in_window(last, self.config.margin) + 2
        return last + 1
