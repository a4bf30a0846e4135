"""Small SAFE products with the metadata of real ones, for tests."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from eosr.bands import BANDS, bands_of

GRANULE = "GRANULE/{level}_T32TQM_A041234_20230601T101559"
PRODUCT = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{short}_User_Product xmlns:n1="urn:psd-{psd}:Level-{short}">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2023-06-01T10:15:59.024Z</PRODUCT_START_TIME>
      <PRODUCT_URI>{name}</PRODUCT_URI>
      <PRODUCT_TYPE>{kind}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake><SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME></Datatake>
      <Product_Organisation><Granule_List><Granule>{images}</Granule></Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>{offsets}</Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{short}_User_Product>
"""
TILE = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level_Tile_ID xmlns:n1="urn:psd:tile">
  <n1:General_Info><SENSING_TIME metadataLevel="Standard">2023-06-01T10:16:04.581767Z</SENSING_TIME></n1:General_Info>
  <n1:Geometric_Info><Tile_Geocoding>
    <HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>{grids}
  </Tile_Geocoding></n1:Geometric_Info>
</n1:Level_Tile_ID>
"""
LEFT, TOP = 699960, 5000040


def write_safe(folder: Path, *, level="L2A", size=144, baseline="05.09", psd="15", offset=-1000) -> tuple[Path, dict]:
    """Write a product of ``size`` 10 m pixels; return its folder and its pixels by band."""
    name = f"S2B_MSI{level}_20230601T101559_N{baseline.replace('.', '')}_R065_T32TQM_20230601T121212.SAFE"
    root, granule = folder / name, GRANULE.format(level=level)
    pixels, files = {}, []
    for number, band in enumerate(bands_of(level)):
        gsd = BANDS[band].gsd
        copies = [gsd] if level == "L1C" else [one for one in (10, 20, 60) if one >= gsd]
        for resolution in copies:
            side = size * 10 // resolution
            rng = np.random.default_rng([number, resolution])
            image = rng.integers(1, 9000, (side, side)).astype(np.uint16)
            inner = f"IMG_DATA/T32TQM_20230601T101559_{band}"
            if level == "L2A":
                inner = f"IMG_DATA/R{resolution}m/T32TQM_20230601T101559_{band}_{resolution}m"
            write_jp2(root / granule / f"{inner}.jp2", image, resolution)
            files.append(f"{granule}/{inner}")
            if resolution == gsd:
                pixels[band] = image
    if level == "L2A":
        inner = "IMG_DATA/R20m/T32TQM_20230601T101559_SCL_20m"
        classes = np.random.default_rng(9).integers(0, 12, (size // 2, size // 2)).astype(np.uint8)
        write_jp2(root / granule / f"{inner}.jp2", classes, 20)
        files += [f"{granule}/{inner}", f"{granule}/IMG_DATA/R10m/T32TQM_20230601T101559_TCI_10m"]
        pixels["SCL"] = classes
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    stated = "" if offset is None else "".join(f'<{tag} band_id="{k}">{offset}</{tag}>' for k in range(13))
    short = level.removeprefix("L")
    (root / f"MTD_MSI{level}.xml").write_text(
        PRODUCT.format(
            short=short, psd=psd, name=name, kind=f"S2MSI{short}", baseline=baseline, offsets=stated,
            images="".join(f"<IMAGE_FILE>{file}</IMAGE_FILE>" for file in files),
        )
    )  # fmt: skip
    grids = "".join(
        f'<Size resolution="{g}"><NROWS>{size * 10 // g}</NROWS><NCOLS>{size * 10 // g}</NCOLS></Size>'
        f'<Geoposition resolution="{g}"><ULX>{LEFT}</ULX><ULY>{TOP}</ULY></Geoposition>'
        for g in (10, 20, 60)
    )
    (root / granule / "MTD_TL.xml").write_text(TILE.format(grids=grids))
    return root, pixels


def write_jp2(path: Path, image: np.ndarray, gsd: int) -> None:
    """Write a lossless JPEG 2000 file, as the products hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"width": image.shape[1], "height": image.shape[0], "count": 1, "dtype": image.dtype, "crs": "EPSG:32632"}
    options = {"QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", transform=Affine(gsd, 0, LEFT, 0, -gsd, TOP), **profile, **options
    ) as file:
        file.write(image, 1)
