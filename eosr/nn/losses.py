"""Losses: of reconstruction, of adversaries, the gradient penalty, and how strong one pulls next to another.

Reconstruction losses: a mean per sample first, then over samples.

So the loss of a batch is the mean of the losses of its halves, and two ranks with half the windows each move the
weights as one rank with all of them. (One mean over all pixels would weigh ranks by how many of theirs count.)

Adversarial losses work on logits: ``C(x)`` is the discriminator's logit of a measured image, ``C(y)`` that of a made
one; no sigmoid is inside the network. The reference study prints several of these with errors (no sigmoid in the
relativistic ones, ``lambda`` twice in WGAN-GP, sums from 0 to N); here they stand as their papers have them.

References
----------
[1] Goodfellow et al., "Generative adversarial nets", 2014: ``vanilla``, non-saturating as in its section 3.
[2] Lim, Ye, "Geometric GAN", 2017; Zhang et al., "Self-attention GAN", 2018: ``hinge``.
[3] Jolicoeur-Martineau, "The relativistic discriminator", 2018: ``relativistic``, ``relativistic_average``.
[4] Arjovsky et al., "Wasserstein GAN", 2017: ``wgan``, with clipped weights.
[5] Gulrajani et al., "Improved training of Wasserstein GANs", 2017: ``wgan_gp``.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus


def l1(estimate: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error where ``weight`` counts [units of the network].

    Parameters
    ----------
    estimate, target : Tensor, shape (B, C, H, W)
    weight : Tensor, shape (B, 1, H, W)
        0 or more; every sample has some.

    Notes
    -----
    The study prints it without the sum over pixels and bands.
    """
    return _weighted((estimate - target).abs(), weight)


def charbonnier(estimate: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Mean of sqrt(e^2 + eps^2) - eps: square for small errors, absolute for large ones; 0 for a perfect estimate.

    Parameters
    ----------
    estimate, target : Tensor, shape (B, C, H, W)
    weight : Tensor, shape (B, 1, H, W)
        0 or more; every sample has some.
    eps : float
        Error at which it turns from square to absolute [units of the network].

    References
    ----------
    [1] Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging", 1994.
    """
    return _weighted(torch.sqrt((estimate - target) ** 2 + eps**2) - eps, weight)


def _weighted(loss: Tensor, weight: Tensor) -> Tensor:
    totals = (loss * weight).flatten(1).sum(dim=1)
    return (totals / (weight.flatten(1).sum(dim=1) * loss.shape[1])).mean()


#: The adversarial losses, by name.
ADVERSARIAL: Final[tuple[str, ...]] = (
    "vanilla", "hinge", "relativistic", "relativistic_average", "wgan", "wgan_gp",
)  # fmt: skip


class Judge(Protocol):
    """A discriminator: bands, and what they are judged beside -> logits."""

    def __call__(self, bands: Tensor, condition: Tensor | None) -> Tensor:
        """Return logits, (B,) or (B, 1, h, w)."""
        ...


def discriminator_loss(kind: str, real: Tensor, made: Tensor) -> Tensor:
    """Loss that the discriminator lowers [1], without the penalty of ``wgan_gp``.

    Parameters
    ----------
    kind : str
        One of `ADVERSARIAL`.
    real, made : Tensor, shape (B,) or (B, 1, h, w)
        Logits of measured and of made images; sample ``i`` of both is of the same place.

    Raises
    ------
    ValueError
        If the kind is unknown.

    Notes
    -----
    A mean over samples: that of a batch is the mean of those of its halves. Not so ``relativistic_average``, which
    holds every logit against the mean of the other kind; there the mean is that of the rank's own samples.
    """
    if kind == "vanilla":
        return (softplus(-real) + softplus(made)).mean()
    if kind == "hinge":
        return (relu(1 - real) + relu(1 + made)).mean()
    if kind == "relativistic":
        return softplus(-(real - made)).mean()
    if kind == "relativistic_average":
        return (softplus(-(real - made.mean())) + softplus(made - real.mean())).mean()
    _check_wasserstein(kind)
    return made.mean() - real.mean()


def generator_loss(kind: str, real: Tensor, made: Tensor, *, saturating: bool = False) -> Tensor:
    """Loss that the generator lowers [1].

    Parameters
    ----------
    kind : str
        One of `ADVERSARIAL`.
    real, made : Tensor, shape (B,) or (B, 1, h, w)
        Logits; ``real`` counts only where `needs_real` says so.
    saturating : bool
        ``vanilla``: log(1 - D) as the study has it, instead of -log D, whose gradient does not vanish while the
        discriminator wins.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind == "vanilla":
        return -softplus(made).mean() if saturating else softplus(-made).mean()
    if kind == "relativistic":
        return softplus(-(made - real)).mean()
    if kind == "relativistic_average":
        return (softplus(-(made - real.mean())) + softplus(real - made.mean())).mean()
    if kind != "hinge":
        _check_wasserstein(kind)
    return -made.mean()


def needs_real(kind: str) -> bool:
    """Whether the generator's loss looks at logits of measured images."""
    return kind in ("relativistic", "relativistic_average")


def _check_wasserstein(kind: str) -> None:
    if kind not in ("wgan", "wgan_gp"):
        raise ValueError(f"unknown adversarial loss {kind!r}; this eosr knows {', '.join(ADVERSARIAL)}")


def gradient_penalty(judge: Judge, real: Tensor, made: Tensor, condition: Tensor | None, t: Tensor) -> Tensor:
    """Mean over samples of (norm of the critic's gradient - 1)^2 between a measured and a made image [1].

    Parameters
    ----------
    judge : callable
        The critic. It must not mix samples: no batch norm.
    real, made : Tensor, shape (B, C, H, W)
    condition : Tensor or None
        What both are judged beside; the gradient is not taken with respect to it.
    t : Tensor, shape (B, 1, 1, 1)
        Where between them the gradient is taken: ``t * real + (1 - t) * made``, uniform in [0, 1].

    Returns
    -------
    Tensor
        Differentiable with respect to the critic's weights. To be multiplied by ``lambda`` (10), once: the study's
        formulas have it twice.

    Notes
    -----
    The 2-norm is over bands and pixels of each sample. The logits of a patch discriminator are averaged per sample
    first: it is that mean whose difference the Wasserstein loss takes, so it is that mean which must be 1-Lipschitz.
    """
    between = (t * real + (1 - t) * made).detach().requires_grad_(True)
    logits = judge(between, condition)
    per_sample = logits.flatten(1).mean(dim=1) if logits.ndim > 1 else logits
    (gradient,) = torch.autograd.grad(per_sample.sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def clip_weights(network: nn.Module, limit: float) -> None:
    """Clip every weight to [-limit, limit], in place: the Lipschitz bound of ``wgan``."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.clamp_(-limit, limit)


def gradient_squares(reconstruction: Tensor, adversarial: Tensor, at: Tensor) -> Tensor:
    """Squared norms of the gradients of two losses at a tensor, shape (2,); both graphs stay usable.

    The same weight is not the same strength for different losses: hinge and Wasserstein pull the same however sure the
    discriminator is, vanilla and relativistic ones do not. Their gradients at the estimate can be compared. Squares,
    because those of ranks add up to that of the whole batch, and norms do not.
    """
    pulls = [torch.autograd.grad(loss, at, retain_graph=True)[0] for loss in (reconstruction, adversarial)]
    return torch.stack([pull.double().square().sum() for pull in pulls])


def gradient_ratio(reconstruction: Tensor, adversarial: Tensor, at: Tensor) -> float:
    """Norm of the gradient of the adversarial loss at a tensor, over that of the reconstruction loss [1]."""
    return ratio_of(gradient_squares(reconstruction, adversarial, at))


def ratio_of(squares: Tensor) -> float:
    """Ratio of norms from `gradient_squares`."""
    of_reconstruction, of_adversarial = squares.sqrt().tolist()
    return float(of_adversarial / max(of_reconstruction, 1e-300))
