"""What a store will hold, before a pixel is read: which scenes are kept out, where the patches of the others lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eosr.errors import GridError, TrainingError
from eosr.train.prepare.config import NESTED, PrepareConfig
from eosr.train.prepare.patches import patch_places, sees_ground_of
from eosr.train.prepare.sources import FoundScene


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scene to be written."""

    scene: FoundScene
    #: ``"scenes"`` or ``"validation"``: the side of the split, and its folder in the store.
    kind: str
    #: Number of the scene on its side.
    number: int
    #: Corners of the cores of patches [10 m pixels], from the top down; none for validation.
    places: npt.NDArray[np.int64]
    #: Places drawn, before those that see ground kept out were taken away.
    drawn: int

    @property
    def steps(self) -> int:
        """Patches to look at, for the progress."""
        return len(self.places) if self.kind == "scenes" else 1


def plan(scenes: Sequence[FoundScene], config: PrepareConfig) -> list[Job]:
    """Share the scenes out and draw the places of patches; the same for the same configuration and scenes.

    Raises
    ------
    TrainingError
        If no scene is left to train on, one is too small, or the split names a scene that is not there.
    """
    kept_out = split(scenes, config)
    if all(scene.name in kept_out for scene in scenes):
        raise TrainingError(
            f"all {len(scenes)} scenes are kept out for validation. Add scenes of other places, or give a smaller "
            "validation below [split]."
        )
    grounds = [scene for scene in scenes if scene.name in kept_out]
    kept_in = [scene for scene in scenes if scene.name not in kept_out]
    return [
        *(_trained_on(scene, number, grounds, config) for number, scene in enumerate(kept_in)),
        *(_kept_out(scene, number) for number, scene in enumerate(grounds)),
    ]


def _kept_out(scene: FoundScene, number: int) -> Job:
    if min(scene.ds.sizes["y10"], scene.ds.sizes["x10"]) < NESTED:
        raise TrainingError(
            f"{scene.name} is kept out for validation and smaller than {NESTED} pixels of 10 m. Name another below "
            "[split], or leave it out."
        )
    return Job(scene=scene, kind="validation", number=number, places=np.empty((0, 2), np.int64), drawn=1)


def _trained_on(scene: FoundScene, number: int, grounds: Sequence[FoundScene], config: PrepareConfig) -> Job:
    try:
        places = patch_places(
            scene.ds.sizes["y10"], scene.ds.sizes["x10"], patch=config.patch, margin=config.margin,
            count=config.per_scene or None, seed=config.seed, name=scene.name,
        )  # fmt: skip
    except GridError as error:
        raise TrainingError(str(error)) from error
    clear = np.ones(len(places), bool)
    for other in grounds:
        # Neighbouring tiles overlap by 10 km: a split by tile alone would validate on ground that was trained on.
        side = config.patch + 2 * config.margin
        clear &= ~sees_ground_of(places - config.margin, side, scene.ground, other.ground)
    return Job(scene=scene, kind="scenes", number=number, places=places[clear], drawn=len(places))


def split(scenes: Sequence[FoundScene], config: PrepareConfig) -> set[str]:
    """Names of the scenes that are kept out for validation: all that show a place, or none.

    Raises
    ------
    TrainingError
        If the configuration names a scene that is not there.
    """
    if config.split.names:
        named = {scene.name for scene in scenes if any(text in scene.name for text in config.split.names)}
        unused = [text for text in config.split.names if not any(text in scene.name for scene in scenes)]
        if unused:
            raise TrainingError(f"[split] names {', '.join(unused)}, which no scene is called. Correct the line.")
        # The place of a named scene goes with it.
        places = {_place(scene, config) for scene in scenes if scene.name in named}
        return {scene.name for scene in scenes if _place(scene, config) in places}
    places_in_order = sorted({_place(scene, config) for scene in scenes})
    count = int(np.ceil(config.split.validation * len(places_in_order) - 1e-9))
    chosen = np.random.default_rng((config.seed, 1)).permutation(len(places_in_order))[:count]
    out = {places_in_order[number] for number in chosen}
    return {scene.name for scene in scenes if _place(scene, config) in out}


def _place(scene: FoundScene, config: PrepareConfig) -> str:
    """What stays on one side: the MGRS tile, or the cell of a grid of degrees."""
    if config.split.by == "scene" and scene.tile:
        return scene.tile
    side = config.split.degrees if config.split.by == "geography" else 1.0
    return f"{np.floor(scene.ground.latitude / side):.0f},{np.floor(scene.ground.longitude / side):.0f}"
