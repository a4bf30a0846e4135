"""Torch only: tensors in, tensors out. Nothing here knows xarray or dask."""
