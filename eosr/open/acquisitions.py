"""Which items show one acquisition: pieces of it that complement each other, and copies of a piece.

A datatake is what one satellite takes in one go, up to 20 minutes long; a tile is crossed in half a minute. The next
orbit sees it 100 minutes later, under another sun: another time. A tile on the seam of two datastrips comes in two
products, which may have been processed at different times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from eosr.cube.offset import baseline_number
from eosr.cube.times import moment
from eosr.errors import RadiometryError, warn
from eosr.open.scene import Scene

#: Longest time between the start of a datatake and an image of it, where items do not name it; the next orbit comes
#: after 100 minutes.
_LONGEST: Final = np.timedelta64(30, "m")


def timestamp(scene: Scene) -> np.datetime64:
    """Time of an item, UTC."""
    return np.datetime64(scene.datetime.removesuffix("Z"), "ns")


def by_datatake(scenes: Iterable[Scene]) -> list[list[Scene]]:
    """Scenes of one tile that one satellite took in one go together, in order of time.

    Items that do not name their datatake are of the one that began up to half an hour before.
    """
    groups: list[list[Scene]] = []
    for scene in sorted(scenes, key=lambda one: (_start(one), one.id)):
        mates = (group for group in reversed(groups) if _is_of(scene, group[0]))
        found = next(mates, None)
        if found is None:
            groups.append([scene])
        else:
            found.append(scene)
    return groups


def _is_of(scene: Scene, first: Scene) -> bool:
    if (scene.platform, scene.tile) != (first.platform, first.tile):
        return False
    if scene.datatake and first.datatake:
        return scene.datatake == first.datatake
    return bool(_start(scene) - _start(first) <= _LONGEST)


def _start(scene: Scene) -> np.datetime64:
    return np.datetime64(moment(scene.datatake).replace(tzinfo=None), "ns") if scene.datatake else timestamp(scene)


def pieces(scenes: Sequence[Scene]) -> list[Scene]:
    """Scenes of one datatake without copies of each other, the one whose pixels are to be preferred first.

    A copy is of the same product, or of the same datastrip of the same tile: of an acquisition that was processed
    again the highest processing baseline is kept, then pixels whose offset was not applied, then the newest. What is
    surely no copy, and what may be none, is kept: it gives the pixels that the others did not measure. A warning names
    what is dropped.

    Raises
    ------
    RadiometryError
        If offsets differ between what is kept.
    """
    newest_first = sorted(scenes, key=lambda scene: scene.created, reverse=True)
    best_first = sorted(
        newest_first, key=lambda scene: (-(baseline_number(scene.processing_baseline) or 0), scene.offset.value == 0)
    )
    kept: list[Scene] = []
    dropped: dict[str, Scene] = {}
    for scene in best_first:
        better = next((one for one in kept if _is_copy(scene, one)), None)
        if better is None:
            kept.append(scene)
        else:
            dropped[named(scene)] = better
    if dropped:
        told = "; ".join(f"{name} (instead: {named(better)})" for name, better in dropped.items())
        warn(f"items of the same pixels of {str(timestamp(kept[0]))[:19]} were left out: {told}.")
    if len({scene.offset.value for scene in kept}) > 1:
        told = ", ".join(f"{scene.id}: {scene.offset.value}" for scene in kept)
        raise RadiometryError(
            f"the items of {str(timestamp(kept[0]))[:19]} carry different offsets ({told}), so they cannot be one "
            "mosaic. Choose one collection, or open them one by one."
        )
    return kept


def named(scene: Scene) -> str:
    """Name of an item with its collection."""
    return f"{scene.collection}/{scene.id}" if scene.collection else scene.id


def _is_copy(scene: Scene, other: Scene) -> bool:
    if scene.product and other.product and scene.product == other.product:
        return True
    if scene.datastrip and other.datastrip:
        return scene.datastrip == other.datastrip
    return scene.id == other.id
