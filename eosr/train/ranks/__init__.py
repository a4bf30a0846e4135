"""Several processes of one run: how they meet, average, and are measured."""
