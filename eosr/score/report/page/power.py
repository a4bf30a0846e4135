"""Radial power spectra: how much detail an image has at every scale, and from which scale on it is error.

References
----------
[1] Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform", Proc. IEEE 66(1), 1978.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

Floats = npt.NDArray[np.float64]

#: Share of the window that must be measured: gaps are filled with the mean, and a spectrum of fillings says nothing.
MEASURED: Final = 0.5
#: Least side [pixels] of a window with a spectrum.
LEAST: Final = 16
#: Rings whose median is compared, because one ring alone is noisy.
RINGS: Final = 5


def radial_power(image: npt.NDArray[Any], measured: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return frequencies [cycles / pixel] and the mean power density [DN² pixel²] in rings of equal width.

    Parameters
    ----------
    image : ndarray, shape (h, w)
        One band, or an error [DN].
    measured : ndarray of bool, shape (h, w)
        Pixels to use, the same for every image that is compared.

    Returns
    -------
    frequency, power : ndarray
        From one cycle per window to 0.5 cycles per pixel; both empty where the window is too small or too empty.

    Notes
    -----
    The mean is taken off, the rest weighted by a Hann window [1] and divided by the sum of its squares, so that white
    noise of variance v has the power v at every frequency.
    """
    side = min(image.shape)
    if side < LEAST or measured.mean() < MEASURED:
        return np.empty(0), np.empty(0)
    # Periodic form of the window: its spectrum is zero beyond the two neighbouring frequencies.
    across, along = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in image.shape)
    weight = np.outer(across, along) * measured
    values = np.where(measured, image, 0.0).astype(np.float64)
    values = (values - (values * weight).sum() / weight.sum()) * weight
    power = np.abs(np.fft.fft2(values)) ** 2 / (weight**2).sum()
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    ring = np.rint(frequency * side).astype(int).ravel()
    count = np.bincount(ring)
    mean = np.bincount(ring, power.ravel()) / np.maximum(count, 1)
    rings = np.arange(1, side // 2 + 1)
    return rings / side, mean[rings]


def noise_from(frequency: Floats, truth: Floats, error: Floats) -> float:
    """Lowest frequency [unit of ``frequency``] at which the error is as strong as the truth; NaN if there is none.

    Both are medians of five neighbouring rings.
    """
    if not frequency.size:
        return float("nan")
    smooth = [median_filter(power, RINGS, mode="nearest") for power in (error, truth)]
    above = np.flatnonzero(smooth[0] >= smooth[1])
    return float(frequency[above[0]]) if above.size else float("nan")
