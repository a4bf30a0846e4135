"""From sources to a store of training patches: `eosr-train prepare`."""
