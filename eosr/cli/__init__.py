"""The commands `eosr` and `eosr-train`."""
