"""Dataset -> Zarr, COGs, and the STAC item that describes them. Nothing unfinished ever looks finished.

The three work together: ``store = to_zarr(ds, "scene.zarr"); paths = to_cog(store, "scene"); to_stac_item(ds, paths)``.
"""

from __future__ import annotations

from eosr.product import to_stac_item, to_stac_items
from eosr.write_cog import to_cog
from eosr.write_delivery import Delivery, deliver
from eosr.write_layout import Progress
from eosr.write_zarr import to_zarr

__all__ = ["Delivery", "Progress", "deliver", "to_cog", "to_stac_item", "to_stac_items", "to_zarr"]
