"""The table of an evaluation, printed: Markdown, LaTeX, CSV, JSON, one HTML page."""
