"""EOPF products: Zarr."""
