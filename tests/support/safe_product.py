"""Small SAFE products with the metadata of real ones, for tests."""

import hashlib
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from eosr.cube.bands import BANDS, bands_of

LEFT, TOP = 699960, 5000040
NAMESPACES = {"14": "https://psd-14.sentinel2.eo.esa.int", "15": "https://psd-15.sentinel2.eo.esa.int"}
GRANULE = "GRANULE/{level}_T32TQM_A041234_20230601T101559"
PRODUCT = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{short}_User_Product xmlns:n1="{namespace}/PSD/User_Product_Level-{short}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2023-06-01T10:15:59.024Z</PRODUCT_START_TIME>
      <PRODUCT_URI>{name}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{short}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{short}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>2023-06-01T12:12:12.000000Z</GENERATION_TIME>
      <Datatake datatakeIdentifier="GS2B_20230601T101559_032574_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>
        <DATATAKE_SENSING_START>2023-06-01T10:15:59.024Z</DATATAKE_SENSING_START>
      </Datatake>
      <Query_Options completeSingleTile="true"><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
      <Product_Organisation><Granule_List>
        <Granule imageFormat="JPEG2000">{images}</Granule>
      </Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      {quantification}
      {offsets}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{short}_User_Product>
"""
QUANTIFICATION = {
    "L1C": '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>',
    "L2A": """<QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
        <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>""",
}
TILE = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{short}_Tile_ID xmlns:n1="{namespace}/PSD/S2_PDI_Level-{short}_Tile_Metadata.xsd">
  <n1:General_Info><SENSING_TIME metadataLevel="Standard">2023-06-01T10:16:04.581767Z</SENSING_TIME></n1:General_Info>
  <n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
    <HORIZONTAL_CS_NAME>WGS84 / UTM zone 32N</HORIZONTAL_CS_NAME>
    <HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>{grids}
  </Tile_Geocoding></n1:Geometric_Info>
  <n1:Quality_Indicators_Info metadataLevel="Standard"><Pixel_Level_QI>
    <MASK_FILENAME bandId="0" type="MSK_DETFOO">{granule}/QI_DATA/MSK_DETFOO_B01.jp2</MASK_FILENAME>
    <MASK_FILENAME type="{mask}">{granule}/QI_DATA/{mask}_B00.{ending}</MASK_FILENAME>
  </Pixel_Level_QI></n1:Quality_Indicators_Info>
</n1:Level-{short}_Tile_ID>
"""
CLOUDS = """<?xml version="1.0" encoding="UTF-8"?>
<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" xmlns:gml="http://www.opengis.net/gml/3.2" gml:id="MSK_CLOUDS_B00">
  <gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7:32632">
    <gml:lowerCorner>{left} {bottom}</gml:lowerCorner><gml:upperCorner>{right} {top}</gml:upperCorner>
  </gml:Envelope></gml:boundedBy>
  <eop:maskMembers>{members}</eop:maskMembers>
</eop:Mask>
"""
MEMBER = """<eop:MaskFeature gml:id="{kind}.{number}">
  <eop:maskType codeSpace="urn:gs2:S2PDGS:maskType">{kind}</eop:maskType>
  <eop:extentOf><gml:Polygon gml:id="{kind}.{number}_Polygon">{rings}</gml:Polygon></eop:extentOf>
</eop:MaskFeature>"""
RING = """<gml:{side}><gml:LinearRing>
  <gml:posList srsDimension="2">{numbers}</gml:posList>
</gml:LinearRing></gml:{side}>"""
MANIFEST = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" version="esa/safe/sentinel/1.1/sentinel-2/msi/archive_l2a_user_product">
  <dataObjectSection>{objects}</dataObjectSection>
</xfdu:XFDU>
"""
OBJECT = """<dataObject ID="IMG_DATA_Data">
  <byteStream mimeType="application/octet-stream" size="{size}">
    <fileLocation href="./{href}" locatorType="URL"/>
    <checksum checksumName="{checksum}">{digest}</checksum>
  </byteStream>
</dataObject>"""
#: What the pilot products of 2017 (PSD 14.2) call things.
PILOT = (
    ("Product_Info>", "L2A_Product_Info>"), ("Product_Organisation>", "L2A_Product_Organisation>"),
    ("IMAGE_FILE>", "IMAGE_FILE_2A>"), ("PRODUCT_URI>", "PRODUCT_URI_2A>"), ("S2MSI2A<", "S2MSI2Ap<"),
    ("QUANTIFICATION_VALUES_LIST>", "L1C_L2A_Quantification_Values_List>"),
    ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"), ("Level-2A<", "Level-2Ap<"),
)  # fmt: skip


def write_safe(
    folder: Path,
    *,
    level="L2A",
    size=144,
    baseline="05.09",
    psd="15",
    offset=-1000,
    pilot=False,
    tile=None,
    manifest=None,
) -> tuple[Path, dict]:
    """Write a product of ``size`` 10 m pixels; return its folder and its pixels by band.

    ``tile`` is the side of JPEG 2000 tiles by pixel size; ``manifest`` names the checksums of the manifest, without
    which there is none; before baseline 04.00 the cloud mask of L1C is GML.
    """
    name = f"S2B_MSI{level}_20230601T101559_N{baseline.replace('.', '')}_R065_T32TQM_20230601T121212.SAFE"
    root, granule = folder / name, GRANULE.format(level=level)
    pixels, files = {}, []
    prefix = "L2A_T32TQM_20230601T101559" if pilot else "T32TQM_20230601T101559"
    for number, band in enumerate(bands_of(level)):
        gsd = BANDS[band].gsd
        for resolution in [gsd] if level == "L1C" else [one for one in (10, 20, 60) if one >= gsd]:
            rng = np.random.default_rng([number, resolution])
            image = rng.integers(1, 9000, (size * 10 // resolution,) * 2).astype(np.uint16)
            inner = f"IMG_DATA/{prefix}_{band}"
            if level == "L2A":
                inner = f"IMG_DATA/R{resolution}m/{prefix}_{band}_{resolution}m"
            write_jp2(root / granule / f"{inner}.jp2", image, resolution, tile=(tile or {}).get(resolution))
            files.append(f"{granule}/{inner}")
            if resolution == gsd:
                pixels[band] = image
    if level == "L2A":
        inner = f"IMG_DATA/R20m/{prefix}_SCL_20m"
        classes = np.random.default_rng(9).integers(0, 12, (size // 2, size // 2)).astype(np.uint8)
        write_jp2(root / granule / f"{inner}.jp2", classes, 20)
        files += [f"{granule}/{inner}", f"{granule}/IMG_DATA/R60m/{prefix}_SCL_60m"]
        files += [f"{granule}/IMG_DATA/R10m/{prefix}_TCI_10m"]
        pixels["SCL"] = classes
    else:
        pixels["cloud_mask"] = write_clouds(root / granule / "QI_DATA", size, raster=float(baseline) >= 4)
    main, tiled = metadata(level, size, baseline, psd, offset, name, files)
    for before, after in PILOT if pilot else ():
        assert before in main
        main = main.replace(before, after)
    (root / f"MTD_MSI{level}.xml").write_text(main)
    (root / granule / "MTD_TL.xml").write_text(tiled)
    if manifest:
        (root / "manifest.safe").write_text(manifest_of(root, manifest))
    return root, pixels


def manifest_of(root: Path, checksum: str) -> str:
    """List every file with its checksum, ``"MD5"`` or ``"SHA3-256"``, as ESA does."""
    objects = []
    for file in sorted(one for one in root.rglob("*") if one.is_file()):
        content = file.read_bytes()
        digest = hashlib.new(checksum.lower().replace("-", "_"), content).hexdigest()
        objects.append(
            OBJECT.format(
                size=len(content), href=file.relative_to(root).as_posix(), checksum=checksum,
                digest=digest.upper() if file.suffix == ".jp2" else digest,
            )
        )  # fmt: skip
    return MANIFEST.format(objects="".join(objects))


def metadata(level, size, baseline, psd, offset, name, files) -> tuple[str, str]:
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    stated = "".join(f'<{tag} band_id="{k}">{offset}</{tag}>' for k in range(13))
    short = level.removeprefix("L")
    main = PRODUCT.format(
        short=short, namespace=NAMESPACES[psd], name=name, baseline=baseline, quantification=QUANTIFICATION[level],
        offsets="" if offset is None else f"<{tag}_VALUES_LIST>{stated}</{tag}_VALUES_LIST>",
        images="".join(f"<IMAGE_FILE>{file}</IMAGE_FILE>" for file in files),
    )  # fmt: skip
    grids = "".join(
        f'<Size resolution="{g}"><NROWS>{size * 10 // g}</NROWS><NCOLS>{size * 10 // g}</NCOLS></Size>'
        f'<Geoposition resolution="{g}"><ULX>{LEFT}</ULX><ULY>{TOP}</ULY>'
        f"<XDIM>{g}</XDIM><YDIM>-{g}</YDIM></Geoposition>"
        for g in (10, 20, 60)
    )
    mask, ending = ("MSK_CLASSI", "jp2") if float(baseline) >= 4 else ("MSK_CLOUDS", "gml")
    granule = GRANULE.format(level=level)
    return main, TILE.format(
        short=short, namespace=NAMESPACES[psd], grids=grids, granule=granule, mask=mask, ending=ending
    )


def write_clouds(folder: Path, size: int, *, raster: bool) -> np.ndarray:
    """Write the cloud mask of L1C; return it on the 20 m grid."""
    side = size // 6
    opaque, cirrus, snow = np.zeros((3, side, side), np.uint8)
    # In 60 m pixels: a cloud with a hole, cirrus in a corner, and snow, which is no cloud.
    opaque[2:8, 3:10] = 1
    opaque[4:6, 5:8] = 0
    cirrus[-4:, -3:] = 1
    snow[10:12, 10:20] = 1
    if raster:
        write_jp2(folder / "MSK_CLASSI_B00.jp2", np.stack([opaque, cirrus, snow]), 60)
    else:
        members = [
            MEMBER.format(kind="OPAQUE", number=0, rings=ring("exterior", 2, 3, 8, 10) + ring("interior", 4, 5, 6, 8)),
            MEMBER.format(kind="CIRRUS", number=0, rings=ring("exterior", side - 4, side - 3, side, side)),
            MEMBER.format(kind="SNOW", number=0, rings=ring("exterior", 10, 10, 12, 20)),
        ]
        extent = {"left": LEFT, "top": TOP, "right": LEFT + size * 10, "bottom": TOP - size * 10}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "MSK_CLOUDS_B00.gml").write_text(CLOUDS.format(members="".join(members), **extent))
    return ((opaque | cirrus) > 0).repeat(3, 0).repeat(3, 1)


def ring(side: str, top: int, left: int, bottom: int, right: int) -> str:
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    numbers = " ".join(f"{LEFT + column * 60} {TOP - row * 60}" for column, row in corners)
    return RING.format(side=side, numbers=numbers)


def write_jp2(path: Path, image: np.ndarray, gsd: int, *, tile: int | None = None) -> None:
    """Write a lossless JPEG 2000 file, as the products hold; ``tile`` is the side of its own tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = image[None] if image.ndim == 2 else image
    count, rows, columns = layers.shape
    profile = {"width": columns, "height": rows, "count": count, "dtype": image.dtype, "crs": "EPSG:32632"}
    options = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO", "YCC": "NO"}
    options |= {"BLOCKXSIZE": tile, "BLOCKYSIZE": tile} if tile else {}
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", transform=Affine(gsd, 0, LEFT, 0, -gsd, TOP), **profile, **options
    ) as file:
        file.write(layers)
