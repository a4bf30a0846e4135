"""SAFE products: a folder or a zip archive."""
