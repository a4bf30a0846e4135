"""One change at a time to a valid item, catalogue or SAFE product: the right pixels or a sentence, never another error.

What is changed, and to what, is drawn by hypothesis, the same at every run; to look farther: ``--hypothesis-seed=N``
and a larger ``max_examples``.
"""

import copy
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.safe_product import write_safe
from support.scenes import write_scene

from eosr import open_safe, open_stac
from eosr.errors import EosrError

DEEP = json.loads("[" * 900 + "]" * 900)
#: What stands in the place of something: other types, absurd numbers, text of other kinds, what leads elsewhere.
ODD = [
    None, True, 0, -1, 5, 1e300, float("nan"), float("inf"), "", "x", "11.06.2023", "99.99", "\x1b[2J\x07", "ü" * 400,
    "file:///etc/hostname", "/vsicurl/http://127.0.0.1:1/x", "../../x", [], [5], ["x", None], {}, {"name": 5}, DEEP,
    np.arange(3), [None] * 6, "http:" + "//[::1",
]  # fmt: skip
FUZZ = settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
GIGABYTE = 1e9


def places(tree, path=()):
    """Every place of a JSON tree, as keys."""
    yield path
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def changed(tree, path, value, how):
    """A copy of a tree with one place replaced, removed, or renamed."""
    tree = copy.deepcopy(tree)
    if not path:
        return value
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if how == "remove":
        del parent[path[-1]]
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = value
    return tree


def right_or_refused(opened, pixels):
    """What opens holds the pixels that were written, where they were written."""
    before = psutil.Process().memory_info().rss
    try:
        ds = opened()
        found = {name: ds[name].squeeze().values for name in ("B02", "B05") if name in ds}
    except EosrError:
        pass
    else:
        for name, image in found.items():
            np.testing.assert_array_equal(image, pixels[name])
        assert found
    assert psutil.Process().memory_info().rss - before < GIGABYTE


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"), size=60)


@pytest.mark.parametrize("dialect", ["legacy", "v11"])
@pytest.mark.filterwarnings("ignore::eosr.errors.EosrWarning")
def test_an_item_with_one_odd_place_opens_right_or_is_refused(scene, dialect):
    item = scene.item(dialect)
    item = changed(item, ("assets",), {k: v for k, v in item["assets"].items() if k in kept(item)}, "replace")
    everywhere = list(places(item))

    @FUZZ
    @given(
        st.sampled_from(everywhere), st.sampled_from(ODD), st.sampled_from(["replace", "replace", "remove", "rename"])
    )
    def try_one(path, value, how):
        odd = changed(item, path, value, how)
        right_or_refused(lambda: open_stac(odd, bands=["B02", "B05"]), scene.pixels)

    try_one()


def kept(item):
    """Keys of the assets that hold B02 and B05: others are not what is asked for."""
    from eosr.open.items import band_of

    return {key for key, asset in item["assets"].items() if band_of(key, asset) in ("B02", "B05")}


@pytest.mark.filterwarnings("ignore::eosr.errors.EosrWarning")
def test_a_catalogue_with_one_odd_place_opens_right_or_is_refused(scene, tmp_path):
    item = scene.item() | {"links": [{"rel": "parent", "href": "./collection.json", "type": "application/json"}]}
    item["assets"] = {k: v for k, v in item["assets"].items() if k in kept(item)}
    link = {"type": "application/json"}
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "d", "license": "proprietary",
        "extent": {"spatial": {"bbox": [[10, 40, 12, 47]]}, "temporal": {"interval": [["2023-01-01T00:00:00Z", None]]}},
        "links": [link | {"rel": "item", "href": "./item.json"}, link | {"rel": "root", "href": "./catalog.json"}],
    }  # fmt: skip
    catalog = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "r", "description": "d",
        "links": [link | {"rel": "child", "href": "./collection.json"}],
    }  # fmt: skip
    documents = {"catalog": catalog, "collection": collection}
    (tmp_path / "item.json").write_text(json.dumps(item))
    everywhere = [(name, path) for name, document in documents.items() for path in places(document)]
    plain = [value for value in ODD if not isinstance(value, np.ndarray)]

    @FUZZ
    @given(
        st.sampled_from(everywhere), st.sampled_from(plain), st.sampled_from(["replace", "replace", "remove", "rename"])
    )
    def try_one(place, value, how):
        name, path = place
        for other, document in documents.items():
            odd = changed(document, path, value, how) if other == name else document
            (tmp_path / f"{other}.json").write_text(json.dumps(odd))
        right_or_refused(lambda: open_stac(tmp_path / "catalog.json", bands=["B02", "B05"]), scene.pixels)

    try_one()


def test_a_safe_product_with_one_odd_file_or_element_opens_right_or_is_refused(tmp_path):
    root, pixels = write_safe(tmp_path / "whole", size=36, manifest="MD5")
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    elements = [
        (name, number) for name in files if name.endswith((".xml", ".safe"))
        for number, _ in enumerate(ElementTree.parse(root / name).iter())
    ]  # fmt: skip
    texts = ["", "x", "1e300", "-5", "0", "3.5", "99.99", "nan", "../../x", "/etc/hostname", "ü" * 300]
    changes = st.one_of(
        st.tuples(st.sampled_from(files), st.sampled_from(["remove", "empty", "cut", "garbage", "folder", "rename"])),
        st.tuples(st.sampled_from(elements), st.sampled_from(texts)),
    )

    @FUZZ
    @given(changes)
    def try_one(change):
        odd = tmp_path / "odd" / root.name
        shutil.rmtree(odd, ignore_errors=True)
        shutil.copytree(root, odd)
        place, how = change
        if isinstance(place, str):
            damage(odd / place, how)
        else:
            tree = ElementTree.parse(odd / place[0])
            list(tree.iter())[place[1]].text = how
            tree.write(odd / place[0])
        right_or_refused(lambda: open_safe(odd, bands=["B02", "B05"]), pixels)

    try_one()


def damage(path, how):
    content = path.read_bytes()
    if how == "rename":
        path.rename(path.with_name("x" + path.name))
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "remove":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbage": b"\x00\xff" * 500}[how])
