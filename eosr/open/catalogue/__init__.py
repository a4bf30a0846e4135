"""From an address or path to STAC items: APIs, catalogues, files."""
