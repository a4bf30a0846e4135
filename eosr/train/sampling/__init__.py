"""Places on earth to train on: tiles of all climates and seasons."""
