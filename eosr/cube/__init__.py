"""What an image is: bands, grids, digital numbers, the blur and its inverse. No files, no network."""

from eosr.cube.bands import BANDS
from eosr.cube.consistency import project
from eosr.cube.degradation import degrade
from eosr.cube.grid import at, crop_to_multiple, from_arrays
from eosr.cube.masks import mask_like
from eosr.cube.radiometry import to_digital_numbers, to_reflectance

__all__ = [
    "BANDS", "at", "crop_to_multiple", "degrade", "from_arrays", "mask_like", "project", "to_digital_numbers",
    "to_reflectance",
]  # fmt: skip
