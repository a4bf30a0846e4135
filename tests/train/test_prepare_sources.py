"""Scenes from a STAC API, item files, SAFE products and cubes; and what is no source."""

import json

import numpy as np
import pytest
from affine import Affine
from open.test_stac_search import api, catalogue  # noqa: F401  # a real server of items
from support.safe_product import write_safe
from support.scenes import lonlat_box, shared_path, write_cog

from eosr.cube.grid import from_arrays
from eosr.errors import EosrWarning, SourceError, TrainingError
from eosr.train.prepare.config import load_prepare_config
from eosr.train.prepare.run import prepare
from eosr.train.prepare.sources import find_scenes
from eosr.train.prepare.store import PatchStore
from eosr.write import to_zarr
from train.prepared import OFFSET, placed_scene, write_config, write_cubes

ALL_IN = {"validation__0.3": "validation = 0.0"}


def stac_config(tmp_path, path, *, changes=None, **keys):
    """The configuration with STAC items at ``path`` for a source, and nothing kept out."""
    lines = "".join(f"\n{key} = {json.dumps(value)}" for key, value in keys.items())
    source = {'kind__"cube"': f'kind = "stac"{lines}', 'paths__["HERE/*.zarr"]': f"paths = {json.dumps([str(path)])}"}
    return write_config(tmp_path / "c.toml", "HERE", **ALL_IN, **source, **(changes or {}))


@pytest.fixture
def item(written, tmp_path):
    """An item of an L2A scene whose classification says: the left half is cloud."""
    classes = np.full((180, 180), 4, np.uint8)
    classes[:, :90] = 9
    write_cog(tmp_path / "SCL.tif", classes, Affine(20, 0, written.left, 0, -20, written.top))
    item = written.item()
    item["assets"]["scl"] = {"href": str(tmp_path / "SCL.tif"), "type": "image/tiff"}
    return item


def test_stac_items_become_patches_without_their_clouds(item, tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(item))
    config = stac_config(tmp_path, tmp_path / "item.json", changes={"cloud__1.0": "cloud = 0.0"})
    store = PatchStore(prepare(config, tmp_path))
    assert 0 < len(store) < 20
    assert (store.table["column"] - 36 >= 180).all()
    assert store.scenes[0].rejected["cloud"] == 20 - len(store)
    assert (store.scenes[0].offset, store.scenes[0].tile) == (OFFSET, "32TQM")
    assert store.scenes[0].item_ids == (item["id"],)


def test_the_classification_is_cut_to_the_window_of_the_bands(item, written, tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(item))
    # 150 pixels of 10 m further east and 60 further south, 90 wide.
    box = lonlat_box(written.left + 1500, written.top - 600, 90)
    (found,) = find_scenes(stac_config(tmp_path, tmp_path / "item.json", bbox=box))
    first = int(round(float(found.ds["x20"][0]) - 10 - written.left) / 20)
    expected = np.broadcast_to(np.arange(first, first + found.ds.sizes["x20"]) < 90, found.cloudy.shape)
    np.testing.assert_array_equal(found.cloudy.values, expected)
    assert expected.any()
    assert not expected.all()


def test_a_classification_that_cannot_be_read_is_told(item, tmp_path):
    item["assets"]["scl"]["href"] = str(tmp_path / "none.tif")
    (tmp_path / "item.json").write_text(json.dumps(item))
    config = stac_config(tmp_path, tmp_path / "item.json", changes={"cloud__1.0": "cloud = 0.0"})
    with pytest.raises(SourceError, match=r"^cannot read .*none\.tif: .*Check that the file exists"):
        prepare(config, tmp_path)


def test_of_a_tile_of_an_api_the_least_cloudy_items_are_taken(api, tmp_path):  # noqa: F811
    """Ten items of two tiles, cloud cover 1, 11, 21, 30, 29 % by day: the tile counts before the clouds do."""
    settings = stac_config(
        tmp_path, api, collection="sentinel-2-l2a", datetime="2023-06-01/2023-06-30", tile="T32TPM", limit=3,
        changes={"patch__72": "patch = 36", "margin__36": "margin = 0"},
    )  # fmt: skip
    assert [one.name for one in find_scenes(settings)] == ["32TPM_1", "32TPM_11", "32TPM_21"]
    store = PatchStore(prepare(settings, tmp_path))
    assert {one.tile for one in store.scenes} == {"32TPM"}
    assert len(store) == 3 * 20


def test_a_reprocessed_copy_of_an_item_counts_once(written, tmp_path):
    """As `open_stac` does: the higher processing baseline."""
    copies = [
        written.item(
            ident=f"S2A_32TQM_20230601_{k}_L2A",
            **{
                "s2:processing_baseline": baseline,
                "s2:datastrip_id": f"DS_{k}_S20230601T101236_N0",
            },
        )
        for k, baseline in enumerate(("05.09", "05.10"))
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": copies}))
    with pytest.warns(EosrWarning, match=r"left out: .*S2A_32TQM_20230601_0_L2A \(instead: .*_1_L2A\)"):
        (found,) = find_scenes(stac_config(tmp_path, tmp_path / "items.json"))
    assert found.name == "S2A_32TQM_20230601_1_L2A"


def test_a_search_that_finds_nothing_is_an_error_unless_it_need_not(api, tmp_path):  # noqa: F811
    cubes = write_cubes(tmp_path / "cubes")
    nothing = {"collection": "sentinel-2-l2a", "datetime": "2019-06-01/2019-06-30"}
    with pytest.raises(TrainingError, match=r"\[\[source\]\] 1: no item found in .* Widen the search"):
        find_scenes(stac_config(tmp_path, api, **nothing))
    with pytest.raises(TrainingError, match="no source matches any scene"):
        find_scenes(stac_config(tmp_path, api, **nothing, needed=False))
    path = tmp_path / "c.toml"
    path.write_text(f'{path.read_text()}\n[[source]]\nkind = "cube"\npaths = ["{cubes}/*.zarr"]\n')
    assert len(find_scenes(load_prepare_config(path))) == 4


@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_safe_products_become_patches_with_their_clouds(level, tmp_path):
    root, pixels = write_safe(tmp_path, level=level)
    changes = ALL_IN | {
        'kind__"cube"': f'kind = "safe"\nstage = "{tmp_path}/stage"', "*.zarr": "*.SAFE", "patch__72": "patch = 36",
        "margin__36": "margin = 0", "per_scene__20": "per_scene = 0",
    }  # fmt: skip
    store = PatchStore(prepare(write_config(tmp_path / "c.toml", tmp_path, **changes), tmp_path))
    (record,) = store.scenes
    assert (record.level, record.tile, record.offset, record.platform) == (level, "32TQM", OFFSET, "sentinel-2b")
    assert len(store) == 16
    cloudy = np.isin(pixels["SCL"], (3, 8, 9, 10)) if level == "L2A" else pixels["cloud_mask"]
    for k in range(16):
        row, column = store.table["row"][k], store.table["column"][k]
        scene = store.scene(k)
        window = (slice(row, row + 36), slice(column, column + 36))
        np.testing.assert_array_equal(scene.fine[2], pixels["B04"][window].astype(float) + OFFSET)
        np.testing.assert_array_equal(scene.usable, ~cloudy.repeat(2, 0).repeat(2, 1)[window])
    assert any((tmp_path / "stage").rglob("*.tif")), "decoded once, and kept"
    assert root.name in {path.name for path in tmp_path.iterdir()}


def test_a_source_that_matches_no_file_is_refused(tmp_path):
    settings = write_config(tmp_path / "c.toml", tmp_path)
    with pytest.raises(TrainingError, match=r"\[\[source\]\] 1 \(.*\*\.zarr\) matches no scene\. Correct it"):
        find_scenes(settings)


def test_clouds_that_nobody_tells_are_no_clear_sky(tmp_path):
    to_zarr(placed_scene(item_ids=["s"]), tmp_path / "s.zarr")
    settings = write_config(tmp_path / "c.toml", tmp_path, **{"cloud__1.0": "cloud = 0.1"})
    with pytest.raises(TrainingError, match=r"nothing tells the clouds of s: it has no SCL\. .* cloud = 1\.0"):
        find_scenes(settings)


def test_mixed_levels_are_refused_unless_allowed(tmp_path):
    for level in ("L1C", "L2A"):
        to_zarr(
            placed_scene(30 * (level == "L1C"), level=level, item_ids=[level], tile=level), tmp_path / f"{level}.zarr"
        )
    with pytest.raises(TrainingError, match="the sources mix L1C and L2A"):
        find_scenes(write_config(tmp_path / "c.toml", tmp_path))
    allowed = write_config(tmp_path / "c.toml", tmp_path, seed__5="seed = 5\nmixed_levels = true")
    assert [one.level for one in find_scenes(allowed)] == ["L1C", "L2A"]


def without(*names):
    return lambda ds: ds.drop_vars(list(names))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("B05", "B12"), r"s lacks B05, B12\. Training patches hold all 10 m and 20 m bands"),
        (without("B09"), r"s lacks B09\. .* leave the scene out, or complete it"),
        (lambda ds: ds.assign_attrs(level="L1B"), r"s: the attribute level is 'L1B', .* Set it: ds\.attrs\['level'\]"),
        (lambda ds: ds.assign(B04=ds["B04"].astype("float32")), r"B04 of s is float32, not digital numbers\. Write"),
        (lambda ds: ds.assign_attrs(quantity="reflectance"), r"\[\[source\]\] 1: the Dataset holds reflectance"),
        (lambda ds: ds.assign(cloud_mask=(("y", "x"), np.zeros((9, 9), bool))), r"the clouds of s lie on \('y', 'x'\)"),
    ],
)
def test_a_cube_that_cannot_be_used_is_refused(change, said, tmp_path):
    ds = change(placed_scene(item_ids=["s"], tile="31AAA"))
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=3)
    with pytest.raises(TrainingError, match=said):
        find_scenes(write_config(tmp_path / "c.toml", tmp_path))


def test_a_folder_that_is_no_cube_is_refused(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(TrainingError, match=r"empty\.zarr is no cube that xarray opens \(.+\)\. Write it with"):
        find_scenes(write_config(tmp_path / "c.toml", tmp_path))


def test_scenes_with_and_without_60_m_bands_do_not_go_together(tmp_path):
    to_zarr(placed_scene(item_ids=["a"], tile="31AAA"), tmp_path / "a.zarr")
    to_zarr(placed_scene(30, item_ids=["b"], tile="32BBB").drop_vars(["B01", "B09"]), tmp_path / "b.zarr")
    with pytest.raises(TrainingError, match=r"1 of 2 scenes have no 60 m bands, e\.g\. b\. Make a store of them alone"):
        find_scenes(write_config(tmp_path / "c.toml", tmp_path))


def test_the_same_scene_twice_is_one_and_another_of_its_name_is_refused(tmp_path):
    ds = placed_scene(item_ids=["s"], tile="31AAA")
    for name in ("one", "two"):
        to_zarr(ds, tmp_path / f"{name}.zarr")
    assert len(find_scenes(write_config(tmp_path / "c.toml", tmp_path))) == 1
    to_zarr(placed_scene(5, item_ids=["s"], tile="31AAA"), tmp_path / "three.zarr")
    with pytest.raises(TrainingError, match=r"two scenes are called s and differ in place, bands or offset\. Write"):
        find_scenes(write_config(tmp_path / "c.toml", tmp_path))


def test_the_times_of_a_cube_are_scenes_of_their_own(tmp_path):
    ds = placed_scene(times=["2024-06-01", "2024-06-11"], item_ids=["first", "second"], tile="31AAA")
    to_zarr(ds, tmp_path / "s.zarr")
    found = find_scenes(write_config(tmp_path / "c.toml", tmp_path))
    assert [one.name for one in found] == ["first", "second"]
    assert "time" not in found[0].ds.dims
    assert not np.array_equal(found[0].ds["B02"].values, found[1].ds["B02"].values)


def test_real_scenes_of_the_training_packs_become_patches(tmp_path):
    """A pack of Zurich, L2A without 60 m bands, through the same door."""
    pack = np.load(shared_path("data", "train", "eodal_T32TMT_20190530_L2A.npz"))
    bands = dict(zip(("B02", "B03", "B04", "B08"), pack["x10"][:, :360, :360], strict=True))
    bands |= dict(zip(("B05", "B06", "B07", "B8A", "B11", "B12"), pack["x20"][:, :180, :180], strict=True))
    ds = from_arrays(bands, transform=(10, 0, 465180, 0, -10, 5252040), crs=32632, level="L2A", item_ids=["zurich"])
    to_zarr(ds, tmp_path / "zurich.zarr")
    store = PatchStore(prepare(write_config(tmp_path / "c.toml", tmp_path, **ALL_IN), tmp_path))
    row, column = (int(store.table[0][key]) for key in ("row", "column"))
    np.testing.assert_array_equal(
        store.scene(0).middle[5],
        pack["x20"][5, (row - 36) // 2 : (row + 108) // 2, (column - 36) // 2 : (column + 108) // 2],
    )
