"""An evaluation as one HTML file that needs no network: tables, bars, error maps, spectra, and before beside after."""

from __future__ import annotations

from eosr.report.exhibit import Exhibit
from eosr.report.write import write_report

__all__ = ["Exhibit", "write_report"]
