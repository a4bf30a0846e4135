"""Discriminators: is this band set measured or made? Logits out, no batch norm, any size of image.

Batch norm mixes the samples of a batch, which neither the gradient penalty nor ranks allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

#: Kinds of discriminators.
DISCRIMINATORS: Final = ("vgg", "patch")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Shape of a `Discriminator`."""

    #: ``vgg``: one logit per image, after SRGAN (Ledig et al. 2017); ``patch``: one per place, after pix2pix (Isola et
    #: al. 2017).
    kind: str = "vgg"
    #: Bands that are judged.
    bands: int = 6
    #: 10 m bands they are judged beside; 0: none.
    condition: int = 4
    #: Channels after the first layer; doubled per halving, up to four times.
    features: int = 48
    #: Halvings of the image.
    stages: int = 3
    #: Divide every layer's weights by their largest singular value (Miyato et al. 2018).
    spectral_norm: bool = False


def least_side(kind: str, stages: int) -> int:
    """Smallest image a discriminator takes [pixels]: ``vgg`` has a pixel left after the halvings, ``patch`` a logit."""
    return int(2**stages) if kind == "vgg" else 3 * int(2**stages)


class Discriminator(nn.Module):
    """Judge of band sets.

    ``vgg``: a layer at full size, then per halving a layer of stride 2 and one of stride 1, 3 x 3 pixels each with
    LeakyReLU 0.2; the mean over what is left; one linear layer without bias. ``patch``: layers of 4 x 4 pixels and
    stride 2, one of stride 1, and a last one that gives a logit per place.

    With the default of three stages a logit of ``patch`` sees 70 pixels, and what ``vgg`` takes the mean of 45
    (`receptive_field`).

    The last layer has no bias: shifting all logits changes neither a Wasserstein loss nor its penalty, so nothing
    would hold it.

    With spectral norm the state holds, per layer, the weights before the division (`parametrizations.weight.original`)
    and the vectors of the power iteration. These move in training mode only, by one iteration per forward pass, and
    depend on the weights alone: ranks with the same weights keep the same vectors, and in evaluation mode a state
    always gives the same logits. `eosr.nn.losses.clip_weights` would clip what is divided afterwards: choose one
    of the two bounds.

    Parameters
    ----------
    config : DiscriminatorConfig

    Raises
    ------
    ValueError
        If the kind is unknown, or there are no bands, features or stages.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.kind not in DISCRIMINATORS:
            raise ValueError(
                f"unknown kind of discriminator {config.kind!r}; this eosr knows {', '.join(DISCRIMINATORS)}"
            )
        least = {"bands": config.bands, "features": config.features, "stages": config.stages}
        for key, value in least.items():
            if value < 1:
                raise ValueError(f"a discriminator with {key} = {value} cannot be built; give 1 or more")
        self.config = config
        widths = [config.features * min(2**k, 4) for k in range(config.stages + 1)]
        entering = config.bands + config.condition
        layers: list[nn.Module] = []
        if config.kind == "vgg":
            layers += [self._layer(entering, widths[0], 3, 1), _leak()]
            for before, after in pairwise(widths):
                layers += [self._layer(before, after, 3, 2), _leak(), self._layer(after, after, 3, 1), _leak()]
            self.last = self._normed(nn.Linear(widths[-1], 1, bias=False))
        else:
            for before, after in zip([entering, *widths], widths[:-1], strict=False):
                layers += [self._layer(before, after, 4, 2), _leak()]
            layers += [self._layer(widths[-2], widths[-1], 4, 1), _leak()]
            self.last = self._normed(nn.Conv2d(widths[-1], 1, 4, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)

    @property
    def parameters_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def receptive_field(self) -> int:
        """Side of the square that one logit of ``patch``, or one pixel of the mean of ``vgg``, sees [pixels]."""
        halved = int(2**self.config.stages)
        return 6 * halved - 3 if self.config.kind == "vgg" else 9 * halved - 2

    def forward(self, bands: Tensor, condition: Tensor | None) -> Tensor:
        """Judge.

        Parameters
        ----------
        bands : Tensor, shape (B, C, H, W)
            Measured or made, in units of the network.
        condition : Tensor, shape (B, K, H, W), or None
            10 m bands of the same places.

        Returns
        -------
        Tensor
            Logits, (B,) for ``vgg``, (B, 1, h, w) for ``patch``: large for what seems measured.

        Raises
        ------
        ValueError
            If the image is smaller than `least_side`, has other bands, or a condition is missing or not wanted.
        """
        if (condition is None) != (self.config.condition == 0):
            wanted = f"{self.config.condition} bands" if self.config.condition else "nothing"
            raise ValueError(f"this discriminator judges beside {wanted}; give it that as its condition")
        given = (bands.shape[1], 0 if condition is None else condition.shape[1])
        if given != (self.config.bands, self.config.condition):
            raise ValueError(
                f"this discriminator judges {self.config.bands} bands beside {self.config.condition}; "
                f"it was given {given[0]} beside {given[1]}"
            )
        least = least_side(self.config.kind, self.config.stages)
        if min(bands.shape[-2:]) < least:
            raise ValueError(
                f"an image of {tuple(bands.shape[-2:])} pixels is too small for {self.config.stages} stages; "
                f"give {least}"
            )
        features = self.layers(bands if condition is None else torch.cat([bands, condition], dim=1))
        if self.config.kind == "vgg":
            return self.last(features.mean(dim=(2, 3)))[:, 0]
        return self.last(features)

    def _layer(self, entering: int, leaving: int, side: int, stride: int) -> nn.Module:
        return self._normed(nn.Conv2d(entering, leaving, side, stride=stride, padding=1))

    def _normed(self, layer: nn.Module) -> nn.Module:
        return parametrizations.spectral_norm(layer) if self.config.spectral_norm else layer


def _leak() -> nn.Module:
    return nn.LeakyReLU(0.2)


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """Build an untrained discriminator.

    Raises
    ------
    ValueError
        If its kind is unknown, or there are no bands, features or stages.
    """
    return Discriminator(config)
