"""Between two trainings of one network: a weighted mean of their tensors.

The cheap knob between fidelity and texture. It has a meaning where the second generator was trained on from the first,
as an adversarial stage is; two trainings from different initial weights have nothing useful between them.

References
----------
[1] Wang et al., "ESRGAN: Enhanced super-resolution generative adversarial networks", 2018, section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eosr._version import __version__
from eosr.errors import WeightsError
from eosr.nn.kinds import Generator, build_generator
from eosr.nn.weights import Provenance, Weights


def interpolate(first: Weights, second: Weights, share: float) -> Weights:
    """Weights between two: ``(1 - share) * first + share * second``, tensor by tensor.

    Parameters
    ----------
    first, second : Weights
        Of the same kind, configuration and normalisation; e.g. before and after an adversarial stage.
    share : float
        0: the tensors of the first, exactly; 1: those of the second.

    Returns
    -------
    Weights
        On the CPU, ready to run, named after the second and the share. The provenance names both with their checksums
        and holds the data of both; seed and steps are the second's. Levels and operators are those that both serve.
        Scores are empty and ``bfloat16_error`` is infinite: nothing has been measured of this generator.

    Raises
    ------
    WeightsError
        If the share is outside [0, 1], or the two are not of one network; in one sentence.

    Notes
    -----
    Sums are taken in float64 and rounded once. Neither of the two is changed.

    Examples
    --------
    >>> from eosr.nn.weights import load_weights
    >>> weights = load_weights("s2sr-20m")
    >>> interpolate(weights, weights, 0.25).name
    's2sr-20m-0.25'
    """
    if not 0 <= share <= 1:
        raise WeightsError(f"share {share!r} does not lie between two weights files. Give a number from 0 to 1.")
    _check_alike(first, second)
    shares = f"{1 - share:g} of {_named(first)} and {share:g} of {_named(second)}"
    return Weights(
        name=f"{second.name}-{share:g}", generator=_between(first.generator, second.generator, share),
        normalization=second.normalization,
        provenance=Provenance(
            software=f"eosr {__version__}, {shares}", data=_data_of_both(first, second),
            seed=second.provenance.seed, steps=second.provenance.steps, scores={},
        ),
        levels=_common("levels", first, second), degradations=_common("degradations", first, second),
    )  # fmt: skip


def _between(first: Generator, second: Generator, share: float) -> Generator:
    tensors = second.state_dict()
    mixed = {name: _mixed(tensor, tensors[name], share) for name, tensor in first.state_dict().items()}
    generator = build_generator(first.kind, first.settings())
    generator.load_state_dict(mixed)
    return generator.eval().requires_grad_(False)


def _mixed(first: Tensor, second: Tensor, share: float) -> Tensor:
    both = [tensor.detach().cpu().to(torch.float64) for tensor in (first, second)]
    return ((1 - share) * both[0] + share * both[1]).to(first.dtype)


def _check_alike(first: Weights, second: Weights) -> None:
    """Refuse two generators that are not trainings of one network."""
    one, other = first.generator, second.generator
    where = f"{first.name!r} and {second.name!r} cannot be interpolated"
    remedy = "Give two trainings of one network, e.g. before and after an adversarial stage."
    if one.kind != other.kind:
        raise WeightsError(f"{where}: the one is a {one.kind}, the other a {other.kind}. {remedy}")
    for what, ours, theirs in (
        ("configuration", one.settings(), other.settings()),
        ("normalisation", vars(first.normalization), vars(second.normalization)),
    ):
        key = _differs(ours, theirs)
        if key:
            raise WeightsError(
                f"{where}: in their {what}, {key} is {ours.get(key)!r} and {theirs.get(key)!r}. {remedy}"
            )


def _differs(first: Mapping[str, object], second: Mapping[str, object]) -> str:
    """Name the first key whose values differ; empty if none does."""
    return next((key for key in {**first, **second} if first.get(key) != second.get(key)), "")


def _common(what: str, first: Weights, second: Weights) -> tuple[str, ...]:
    """What both serve; one that does not say (an empty tuple) leaves it to the other."""
    one, other = getattr(first, what), getattr(second, what)
    both = tuple(name for name in one if name in other) if one and other else one or other
    if not both and one and other:
        raise WeightsError(
            f"{first.name!r} and {second.name!r} cannot be interpolated: their {what} are {', '.join(one)} and "
            f"{', '.join(other)}. Give two that have one in common."
        )
    return both


def _data_of_both(first: Weights, second: Weights) -> dict[str, str]:
    data = dict(first.provenance.data)
    for name, checksum in second.provenance.data.items():
        data[name if data.get(name, checksum) == checksum else f"{name} ({second.name})"] = checksum
    return data


def _named(weights: Weights) -> str:
    return f"{weights.name} ({weights.checksum or 'never written'})"
