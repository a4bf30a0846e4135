"""How near an estimate is to its reference: maps (per pixel) -> windows (SSIM) -> scores (mean, then formula).

Names of scores are those of the literature in lower case. Read the head of `eosr.metrics.scores` for what is common to
all: what is averaged, what is left out, and why the offset of newer products must come off before scoring.
"""

from eosr.metrics.conventions import CONVENTIONS, Convention, score_table
from eosr.metrics.decibels import bpsnr, psnr, sre
from eosr.metrics.maps import error, spectral_angle
from eosr.metrics.scores import bias, ergas, mae, rmse, sam, ssim, uiq
from eosr.metrics.windows import ssim_map, uiq_map

__all__ = [
    "CONVENTIONS",
    "Convention",
    "bias",
    "bpsnr",
    "ergas",
    "error",
    "mae",
    "psnr",
    "rmse",
    "sam",
    "score_table",
    "spectral_angle",
    "sre",
    "ssim",
    "ssim_map",
    "uiq",
    "uiq_map",
]
