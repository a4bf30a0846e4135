"""What can sharpen: a generator from a weights file or a classical method; what each needs and how far it sees."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M, check_bands
from eosr.baselines.bicubic import SUPPORT, bicubic_tile
from eosr.errors import BandError, DegradationError, RadiometryError, WeightsError

Floats = npt.NDArray[np.float32]

#: Methods that need no weights, by name.
METHODS: Final = ("bicubic",)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to sharpen one group of bands; small and picklable, so that it can stand in a graph."""

    name: str
    #: Pixel-size ratio between the targets and 10 m.
    factor: int
    targets: tuple[str, ...]
    fine_bands: tuple[str, ...]
    middle_bands: tuple[str, ...]
    #: Fine pixels on each side that can change one output pixel.
    reach: int
    levels: tuple[str, ...]
    #: Operators it may be told; empty where it does not care.
    degradations: tuple[str, ...]
    #: Weights file and its SHA-256; empty for classical methods.
    path: str = ""
    checksum: str = ""
    device: str = "auto"

    def __call__(self, fine: Floats, middle: Floats | None, coarse: Floats, sigma: Sequence[float]) -> Floats:
        """Sharpen one tile without gaps: (4, H, W), (6, H / 2, W / 2) or None, (C, h, w) -> (C, H, W) [DN]."""
        if not self.path:
            return bicubic_tile(coarse, self.factor).astype(np.float32)
        # Imported in the worker: `import eosr` and a scheduler need no torch.
        from eosr.nn.tile import sharpen

        return sharpen(
            self.path, self.checksum, fine, middle, coarse, sigma, device=self.device, trim=self.reach
        )  # fmt: skip

    def check(self, *, level: str, degradation: str) -> None:
        """Refuse a level or an operator that the method was not made for.

        Raises
        ------
        RadiometryError, DegradationError
        """
        if level and self.levels and level not in self.levels:
            raise RadiometryError(
                f"{self.name} serves {' and '.join(self.levels)}, the Dataset is {level!r}. Choose other weights, or "
                "set ds.attrs['level'] if it is wrong."
            )
        if self.degradations and degradation not in self.degradations and not degradation.startswith("sigma="):
            raise DegradationError(
                f"{self.name} was trained to invert {', '.join(self.degradations)}, not {degradation!r}. "
                f"Use degradation={self.degradations[0]!r}, or other weights."
            )


def choose_methods(
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    method: str | None,
    bands: Sequence[str] | None,
    available: Sequence[str],
    device: str,
) -> list[Method]:
    """Methods that together deliver the bands asked for, from the bands that are there.

    Raises
    ------
    WeightsError
        If weights and method are both given, two weights sharpen one band, or a file cannot be used.
    BandError
        If a band asked for cannot be sharpened by them, or a guide band is missing.
    """
    if not (isinstance(device, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", device)):
        raise WeightsError(f"device {device!r} is not one eosr knows. Use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    if method is not None:
        if weights is not None:
            raise WeightsError(f"method={method!r} and weights={weights!r} exclude each other. Give one of them.")
        if method not in METHODS:
            raise WeightsError(
                f"{method!r} is not a method eosr knows. Use one of {', '.join(map(repr, METHODS))}; weights are named "
                f"with weights={method!r}."
            )
        candidates = [_bicubic(2, BANDS_20M), _bicubic(6, BANDS_60M)]
    else:
        candidates = _from_weights(weights, device)
    chosen = []
    for candidate in candidates:
        present = [band for band in candidate.targets if band in available]
        # A generator takes all its targets at once; a classical method takes every band for itself.
        all_there = candidate.targets if candidate.path else present
        wanted = [
            band for band in (all_there if bands is None else candidate.targets) if bands is None or band in bands
        ]
        if not wanted or (bands is None and not present):
            continue
        _check_inputs(candidate, wanted, available)
        chosen.append(candidate if candidate.path else replace(candidate, targets=tuple(wanted)))
    _check_wanted(bands, candidates, chosen, available)
    return chosen


def _bicubic(factor: int, targets: tuple[str, ...]) -> Method:
    return Method(
        name="bicubic", factor=factor, targets=targets, fine_bands=(), middle_bands=(), reach=factor * (SUPPORT + 1),
        levels=(), degradations=(),
    )  # fmt: skip


def _from_weights(
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None, device: str
) -> list[Method]:
    # Imported here: `import eosr` must not import torch.
    from eosr.nn.weights import SHIPPED, load_weights, weights_path

    if weights is None:
        sources: Sequence[str | os.PathLike[str]] = SHIPPED
    else:
        sources = [weights] if isinstance(weights, str | os.PathLike) else _listed(weights)
    methods: list[Method] = []
    for source in sources:
        loaded = load_weights(source)
        norm = loaded.normalization
        for other in methods:
            twice = sorted(set(other.targets) & set(norm.target_bands))
            if twice:
                raise WeightsError(
                    f"{loaded.name} and {other.name} both sharpen {', '.join(twice)}. Give one of them for a band."
                )
        methods.append(
            Method(
                name=loaded.name,
                factor=loaded.factor,
                targets=norm.target_bands,
                fine_bands=norm.fine_bands,
                middle_bands=norm.middle_bands,
                reach=loaded.generator.reach,
                levels=loaded.levels,
                degradations=loaded.degradations,
                path=str(weights_path(source).resolve()),
                checksum=loaded.checksum,
                device=device,
            )
        )
    return methods


def _listed(weights: Any) -> list[str | os.PathLike[str]]:
    sources = list(weights) if isinstance(weights, list | tuple) else []
    if not sources or not all(isinstance(source, str | os.PathLike) for source in sources):
        raise WeightsError(f"weights={weights!r} names no weights. Give a name, a path or a list of them: 's2sr-20m'.")
    return sources


def _check_inputs(method: Method, wanted: Sequence[str], available: Sequence[str]) -> None:
    # A generator takes all its targets at once, whichever of them are asked for.
    needed = [*method.fine_bands, *method.middle_bands, *(method.targets if method.path else wanted)]
    missing = [band for band in needed if band not in available]
    if missing:
        raise BandError(
            f"{method.name} needs {', '.join(needed)}; the Dataset lacks {', '.join(missing)}. "
            "Open it with all bands, e.g. eosr.open_stac(source) without bands=..."
        )


def _check_wanted(
    bands: Sequence[str] | None, candidates: Sequence[Method], chosen: Sequence[Method], available: Sequence[str]
) -> None:
    deliverable = {band for method in candidates for band in method.targets}
    if bands is not None:
        check_bands(bands)
        native = {band for band in available if band not in BANDS_20M + BANDS_60M and band != "B10"}
        absent = [band for band in bands if band in BANDS_10M and band not in available]
        if absent:
            raise BandError(
                f"the Dataset lacks {', '.join(absent)}, which is asked for. It holds {', '.join(available)}; open the "
                "band too, or leave it out of bands."
            )
        stray = [band for band in bands if band not in deliverable and band not in native]
        if stray:
            raise BandError(
                f"{', '.join(stray)} cannot be sharpened by {', '.join(m.name for m in candidates)}. "
                f"They deliver {', '.join(sorted(deliverable))}: name some of these with bands=..., or add weights."
            )
    elif not chosen:
        raise BandError(
            f"the Dataset holds {', '.join(available) or 'no bands'}: nothing that "
            f"{', '.join(m.name for m in candidates)} could sharpen. Open the 20 m or 60 m bands too."
        )
