"""DRCN: one convolution applied sixteen times.

Kim, Lee, Lee, "Deeply-recursive convolutional network for image super-resolution", CVPR 2016.

The image after every recursion is an estimate; the answer is their weighted mean, with learned weights. A trainer may
supervise each of them: `DrcnGenerator.estimates`. It saves parameters, not time. Adapted: all bands enter; the weights
are a softmax, so that they sum to one; 64 features instead of 256. As in the paper the shared convolution starts as the
identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.options.direct import DirectConfig, DirectGenerator, conv, upsampled


@dataclass(frozen=True, kw_only=True)
class DrcnConfig(DirectConfig):
    """Shape of a `DrcnGenerator`."""

    features: int = 64
    recursions: int = 16


class DrcnGenerator(DirectGenerator):
    """Two convolutions in, one applied again and again, two out of every recursion, and the weighted mean."""

    kind = "drcn"
    config: DrcnConfig

    def __init__(self, config: DrcnConfig) -> None:
        super().__init__(config)
        width = config.features
        self.trunk = nn.Sequential(conv(self.inputs, width), nn.ReLU(), conv(width, width), nn.ReLU())
        self.shared = conv(width, width)
        self.rebuild = conv(width, width)
        self.tail = conv(width, config.targets)
        #: Logarithms of the weights of the recursions, up to a constant.
        self.logits = nn.Parameter(torch.zeros(config.recursions))
        self.start()
        nn.init.dirac_(self.shared.weight)

    def last_seen(self, pixel: int) -> int:
        """One pixel by each of the two convolutions in, every recursion, and the two out."""
        return pixel + 4 + self.config.recursions

    def correction(self, joined: Tensor) -> Tensor:
        """Return the weighted mean of what the recursions add to the upsampled bands."""
        weights = torch.softmax(self.logits, dim=0)
        # Summed as they come: sixteen estimates of a large tile need not be in memory at once.
        parts = (weight * step for weight, step in zip(weights, self._corrections(joined), strict=True))
        return reduce(torch.add, parts)

    def estimates(self, fine: Tensor, coarse: Tensor, middle: Tensor | None = None) -> Tensor:
        """Return the estimate after every recursion, (recursions, B, targets, H, W), for a loss on each."""
        up = upsampled(coarse, self.config.factor)
        return torch.stack([up + step for step in self._corrections(self.joined(fine, coarse, middle, up))])

    def _corrections(self, joined: Tensor) -> Iterator[Tensor]:
        z = self.trunk(joined)
        for _ in range(self.config.recursions):
            z = functional.relu(self.shared(z))
            yield self.tail(functional.relu(self.rebuild(z)))
