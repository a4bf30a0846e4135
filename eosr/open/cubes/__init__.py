"""Datasets of other libraries, adopted as those of `eosr.open_stac`."""
