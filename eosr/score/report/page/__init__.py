"""An evaluation as one HTML file that needs no network: tables, bars, error maps, spectra, and before beside after."""
