"""The picture of docs/images: the page of an evaluation of the sample scene, in headless Chromium.

    .venv/bin/python benchmarks/report_picture.py [PICTURE.png]

Needs the extras ``demo`` and ``dev``, Chromium and its driver. The scene is the block of the sample scene that no
training has seen; the methods are three that need no weights and eosr's own. Takes a minute on two cores.
"""

import sys
import tempfile
from pathlib import Path

import eosr
from eosr.cube.bands import BANDS_20M
from eosr.open.sample import write_catalog
from eosr.score import write_report
from eosr.score.report.exhibits import exhibits
from eosr.train.data.scenes import SAMPLE_WINDOW, VALIDATION_BLOCK

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["bicubic", "detail_injection", "superres_like", "eosr"]
#: Side of what is shown [pixels]: less than a page has by itself, for a picture of less than 600 kB.
WINDOW = 156


def main(picture: Path) -> None:
    # The browser of the tests: the same page, the same light.
    sys.path.insert(0, str(ROOT / "tests"))
    from score.test_report_browser import chromium, photograph

    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as driver:
        photograph(driver, page(Path(folder)), picture)
    print(f"written: {picture}, {picture.stat().st_size / 1000:.0f} kB")


def page(folder: Path) -> Path:
    """Evaluate the 20 m bands of the block, and write the page."""
    left, _, _, top = SAMPLE_WINDOW
    rows, columns = VALIDATION_BLOCK
    box = (left + 10 * columns.start, top - 10 * rows.stop, left + 10 * columns.stop, top - 10 * rows.start)
    # For 60 m bands, eosr needs a scene larger than the block once it is degraded.
    ds = eosr.open_stac(write_catalog(folder), bbox=box, bbox_crs="item")
    table = eosr.evaluate(ds, METHODS, bands=BANDS_20M, progress=True)
    shown = exhibits(ds, METHODS, bands=BANDS_20M, window=WINDOW)
    return write_report(table, folder / "report.html", exhibits=shown)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "report.png")
