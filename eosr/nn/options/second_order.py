"""Second-order attention, the idea of SAN: channels are weighed by how they vary together, not by their means.

Dai et al., "Second-order attention network for single image super-resolution", CVPR 2019: the covariance of the
features, its square root by five Newton-Schulz iterations, the mean of its rows through a bottleneck; groups of
residual blocks with a share-source skip (what the head made is added to every group by one learned factor that starts
at zero). Adapted: the covariance is taken in fixed blocks and their margin (`eosr.nn.options.windows`), not over the
image, so the answer does not depend on tiles; the default has 4 groups of 2 blocks; the paper's region-level non-local
layers are left out (windowed self-attention is in `eosr.nn.options.study`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eosr.nn.options.attention import BLOCK
from eosr.nn.options.direct import DirectConfig, DirectGenerator, ResidualBlock, conv
from eosr.nn.options.windows import Gate, check_margin, check_reduction, last_in_window, window_covariance


@dataclass(frozen=True, kw_only=True)
class SecondOrderConfig(DirectConfig):
    """Shape of a `SecondOrderGenerator`."""

    features: int = 64
    groups: int = 4
    #: Residual blocks per group.
    blocks: int = 2
    #: Constant that scales the residual of every block.
    scaling: float = 0.1
    #: Features per channel of the bottleneck.
    reduction: int = 16
    #: Pixels around a block that its covariance includes; a multiple of 6.
    margin: int = 6
    #: Newton-Schulz iterations.
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_margin(self.margin)
        check_reduction(self.features, self.reduction)


def matrix_sqrt(matrix: Tensor, iterations: int) -> Tensor:
    """Square root of positive semi-definite matrices (..., C, C) by coupled Newton-Schulz iterations.

    Divided by the trace first, without which they diverge, and multiplied by its root afterwards; small eigenvalues
    need more iterations (Li et al., "Towards faster training of global covariance pooling networks", CVPR 2018).
    """
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp_min(1e-12)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    root, inverse = matrix / trace, identity.expand_as(matrix)
    for _ in range(iterations):
        step = 0.5 * (3 * identity - inverse @ root)
        root, inverse = root @ step, step @ inverse
    return root * trace.sqrt()


class SecondOrderGroup(nn.Module):
    """``z + conv(attention(residual blocks(z)))``."""

    def __init__(self, config: SecondOrderConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.Sequential(*(ResidualBlock(config.features, config.scaling) for _ in range(config.blocks)))
        self.gate = Gate(config.features, config.reduction)
        self.last = conv(config.features, config.features)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        residual = self.blocks(z)
        # A covariance and its root need more than the 8 bits of bfloat16.
        with torch.autocast(residual.device.type, enabled=False):
            exact = residual.to(torch.promote_types(residual.dtype, torch.float32))
            root = matrix_sqrt(window_covariance(exact, self.config.margin), self.config.iterations)
        return z + self.last(self.gate(residual, root.mean(dim=4).permute(0, 3, 1, 2)))


class SharedSource(nn.Module):
    """Groups in a row, each given the source times one shared factor; one convolution and a long skip at the end."""

    def __init__(self, config: SecondOrderConfig) -> None:
        super().__init__()
        self.groups = nn.ModuleList(SecondOrderGroup(config) for _ in range(config.groups))
        self.share = nn.Parameter(torch.zeros(1))
        self.last = conv(config.features, config.features)

    def forward(self, source: Tensor) -> Tensor:
        """Map (B, F, H, W) to the same shape."""
        z = source
        for group in self.groups:
            z = group(z) + self.share * source
        return source + self.last(z)


class SecondOrderGenerator(DirectGenerator):
    """A head, groups with second-order attention and a share-source skip, a tail."""

    kind = "second_order"
    block = BLOCK
    config: SecondOrderConfig

    def __init__(self, config: SecondOrderConfig) -> None:
        super().__init__(config)
        self.trunk = nn.Sequential(conv(self.inputs, config.features), SharedSource(config))
        self.tail = conv(config.features, config.targets)
        self.start()

    def last_seen(self, pixel: int) -> int:
        """Two pixels by the last convolutions; per group one, the window's end, two per block; one by the head."""
        last = pixel + 2
        for _ in range(self.config.groups):
            last = last_in_window(last + 1, self.config.margin) + 2 * self.config.blocks
        return last + 1
