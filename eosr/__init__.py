"""Sharpen Sentinel-2: every band at 10 m."""
__version__ = "0.1.0"
