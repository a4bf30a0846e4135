"""One exhibit -> what the script of the page draws: pictures, error maps, points, spectra and power spectra."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from eosr.cube.bands import BANDS
from eosr.score.report.page.exhibit import Exhibit
from eosr.score.report.page.figures import figure, rounded
from eosr.score.report.page.maps import COMPOSITES, Composite, compose, error_limit, error_shades, limits_of, palette
from eosr.score.report.page.png import data_uri, encode_png
from eosr.score.report.page.points import choose_points
from eosr.score.report.page.power import noise_from, radial_power

Pixels = npt.NDArray[Any]
Json = dict[str, Any]

#: Names of the two images that are no method's.
GIVEN, MEASURED = "as given", "as measured"


class Album:
    """Pictures by the sum of their bytes: the same picture is carried once, however often it is shown."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}

    def add(self, file: bytes) -> str:
        """Keep a PNG and return its key."""
        key = hashlib.sha256(file).hexdigest()[:12]
        self.pictures.setdefault(key, data_uri(file))
        return key


def show(exhibit: Exhibit, album: Album) -> Json:
    """Return one exhibit as JSON knows it; its pictures go into the album."""
    images = {GIVEN: exhibit.before, **exhibit.after}
    if exhibit.truth:
        images[MEASURED] = exhibit.truth
    # What nobody sharpened comes last: it looks the same on both sides.
    wanted = sorted(COMPOSITES, key=lambda composite: not set(composite.bands) & set(exhibit.made))
    return {
        "scene": exhibit.scene,
        "title": exhibit.title,
        "gsd": exhibit.gsd,
        "factor": exhibit.factor,
        "shape": exhibit.shape,
        "native": not exhibit.truth,
        "methods": list(exhibit.after),
        "composites": [found for one in wanted if (found := _composite(exhibit, one, images, album)) is not None],
        "maps": _maps(exhibit, album),
        "spectra": _spectra(exhibit, images),
        "power": [found for name in exhibit.made if (found := _power(exhibit, name)) is not None],
    }


def _composite(exhibit: Exhibit, composite: Composite, images: Mapping[str, Any], album: Album) -> Json | None:
    """The same bands of every image that has them, stretched alike by what was measured (or given)."""
    reference = {**exhibit.before, **exhibit.truth}
    if not all(name in reference for name in composite.bands):
        return None
    made = set(exhibit.made)
    limits = [limits_of(reference[name]) for name in composite.bands]
    shown = {}
    for label, bands in images.items():
        # A method delivers the bands it was not asked to sharpen as they were given; it must have made the others.
        channels = [bands.get(name, None if name in made else reference[name]) for name in composite.bands]
        if all(channel is not None for channel in channels):
            shown[label] = album.add(encode_png(compose(channels, limits)))
    stretch = ", ".join(
        f"{name} {figure(low)} to {figure(high)} DN" for name, (low, high) in zip(composite.bands, limits, strict=True)
    )
    return {
        "name": composite.name,
        "bands": composite.bands,
        "note": composite.note,
        "stretch": stretch,
        "images": shown,
    }


def _maps(exhibit: Exhibit, album: Album) -> list[Json]:
    """Error maps, band by band, and the measured band beside them."""
    found = []
    for name in exhibit.made:
        if name not in exhibit.truth:
            continue
        truth = np.asarray(exhibit.truth[name], np.float64)
        errors = {method: bands[name] - truth for method, bands in exhibit.after.items() if name in bands}
        limit = error_limit(errors)
        methods = []
        for method, error in errors.items():
            picture = encode_png(error_shades(error, limit), palette())
            valid = error[np.isfinite(error)]
            size = float(np.sqrt(np.mean(valid**2))) if valid.size else float("nan")
            methods.append({"method": method, "picture": album.add(picture), "rmse": figure(size)})
        grey = album.add(encode_png(compose([truth], [limits_of(truth)])))
        found.append({"band": name, "limit": limit, "measured": grey, "methods": methods})
    return found


def _spectra(exhibit: Exhibit, images: Mapping[str, Any]) -> Json:
    points = choose_points(exhibit)
    shown = {name for bands in images.values() for name in bands}
    bands = sorted(shown, key=lambda name: BANDS[name].wavelength)
    series = {
        label: [
            [rounded(float(given[name][point.row, point.column])) if name in given else None for name in bands]
            for point in points
        ]
        for label, given in images.items()
    }
    return {
        "bands": bands,
        "wavelengths": [BANDS[name].wavelength for name in bands],
        "points": [{"label": point.label, "row": point.row, "column": point.column} for point in points],
        "series": series,
    }


def _power(exhibit: Exhibit, name: str) -> Json | None:
    """Power of one band in every image and of every error; None where the window is too small or too empty."""
    made = {method: np.asarray(bands[name], np.float64) for method, bands in exhibit.after.items() if name in bands}
    images = {label: np.asarray(bands[name], np.float64) for label, bands in
              ((GIVEN, exhibit.before), (MEASURED, exhibit.truth)) if name in bands}  # fmt: skip
    images |= made
    measured = np.all([np.isfinite(image) for image in images.values()], axis=0)
    spectra = {label: radial_power(image, measured) for label, image in images.items()}
    frequency = next(iter(spectra.values()))[0]
    if not frequency.size:
        return None
    errors, noise = {}, {}
    if name in exhibit.truth:
        for method, image in made.items():
            errors[method] = radial_power(image - images[MEASURED], measured)[1]
            noise[method] = noise_from(frequency, spectra[MEASURED][1], errors[method])
    per_km = 1000 / exhibit.gsd
    return {
        "band": name,
        # [cycles / km]; a pixel of the given band cannot hold more than half a cycle.
        "frequency": [rounded(value * per_km) for value in frequency.tolist()],
        "given_nyquist": rounded(500 / exhibit.given_gsd(name)),
        "power": {label: _short(power) for label, (_, power) in spectra.items()},
        "error": {method: _short(power) for method, power in errors.items()},
        "noise_from": {method: rounded(value * per_km) for method, value in noise.items()},
    }


def _short(power: npt.NDArray[np.float64]) -> list[float]:
    """Four digits; zero has no place on a logarithmic axis."""
    return [float(f"{max(value, 1e-12):.4g}") for value in power.tolist()]
