"""What a run trains on and is judged on: the packs of the shipped weights, or a store of `eosr-train prepare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eosr.errors import TrainingError
from eosr.train.data.scenes import Scene, checksums, load_scenes, virtual_60m
from eosr.train.data.stream import Source
from eosr.train.data.windows import PaddedScene, Window, WindowConfig, Windows, relight, turn, window
from eosr.train.prepare.store import PatchStore
from eosr.train.settings.schema import TrainConfig

#: Patches of a store that are drawn in a row before a window is given up, because none is usable.
_MAX_DRAWS = 100


@dataclass(frozen=True, kw_only=True)
class Material:
    """Windows to train on, scenes to be judged on, and what tells them from others."""

    source: Source
    validation: list[Scene]
    #: SHA-256 by name of file.
    checksums: Mapping[str, str]
    #: Processing levels of what is trained on.
    levels: tuple[str, ...]


def open_material(data: Path, config: TrainConfig) -> Material:
    """Open a folder of training packs, or a store (``NAME.zarr``).

    Raises
    ------
    TrainingError
        If it is not there, damaged, or holds nothing to train on for this configuration.
    """
    if data.suffix == ".zarr":
        return _from_store(data, config)
    return from_scenes(load_scenes(data), config, checksums(data))


def from_scenes(scenes: list[Scene], config: TrainConfig, sums: Mapping[str, str] | None = None) -> Material:
    """Material of scenes in memory; for 60 m their virtual ones are trained on too.

    Raises
    ------
    TrainingError
        If no pixel may be trained on, or a key of ``shares`` fits no scene.
    """
    kept_in = [scene for scene in scenes if not scene.kept_out]
    if config.window.factor == 6:
        kept_in = [s for s in kept_in if s.coarse is not None] + [virtual_60m(s) for s in kept_in]
    return Material(
        source=Windows(kept_in, config.window, config.shares),
        validation=[scene for scene in scenes if scene.kept_out],
        checksums=sums or {},
        levels=tuple(sorted({scene.level for scene in kept_in})),
    )


def _from_store(path: Path, config: TrainConfig) -> Material:
    store = PatchStore(path)
    if config.shares:
        raise TrainingError(
            f"[shares] divides the scenes of training packs, {path} is a store of patches. Remove the table; the share "
            "of a scene is its number of patches (per_scene in the configuration of eosr-train prepare)."
        )
    return Material(
        source=Patches(store, config.window), validation=store.validation(),
        checksums={path.name: store.checksum()}, levels=store.levels,
    )  # fmt: skip


class Patches:
    """Windows of the patches of a store: every patch once per pass, in an order of its own for every pass.

    Raises
    ------
    TrainingError
        If the patches are too small for a window, or lack the 60 m bands.
    """

    def __init__(self, store: PatchStore, config: WindowConfig) -> None:
        self._store, self._config = store, config
        pixel = 2 if config.factor == 2 else 6
        side = (store.patch + 2 * store.margin) // pixel
        if side < config.size:
            raise TrainingError(
                f"patches of {store.patch} + 2 x {store.margin} pixels of 10 m hold {side} of {10 * pixel} m, a window "
                f"has size = {config.size}. Give {side // (2 * config.factor) * 2 * config.factor} or less below "
                "[window], or prepare larger patches."
            )
        if config.factor == 6 and store.scene(0).coarse is None:
            raise TrainingError(
                "the store holds no 60 m bands, which factor = 6 trains on. Prepare it from scenes that have them."
            )
        self._order: tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = (-1, np.empty(0, np.int64))

    def sample(self, index: int, seed: int) -> Window:
        """Draw the window of this number [network units]; the same for the same seed, whoever draws it.

        Raises
        ------
        TrainingError
            If hardly any patch has usable pixels.
        """
        rng = np.random.default_rng((seed, index))
        for draw in range(_MAX_DRAWS):
            # A patch without enough usable pixels is replaced by one of a later pass.
            patch = PaddedScene(self._store.scene(self._patch(index + draw * len(self._store), seed)), self._config)
            step, n = self._config.factor, self._config.size
            low = patch.pad
            row, column = (low + step * int(rng.integers((length - n) // step + 1)) for length in patch.shape)
            drawn = window(patch, row, column, self._config, rng)
            if drawn.weight.mean() > 0.1:
                return relight(turn(drawn, rng) if self._config.flips else drawn, rng, self._config)
        raise TrainingError(
            f"{_MAX_DRAWS} patches of the store in a row hold fewer than 10 % of usable pixels in a window of "
            f"{self._config.size}. Prepare it with a stricter filter, or give a smaller rim."
        )

    def _patch(self, index: int, seed: int) -> int:
        """Number of the patch: the place ``index`` in endless passes over all patches."""
        passed, place = divmod(index, len(self._store))
        number, order = self._order
        if number != passed:
            order = np.random.default_rng((seed, passed, 2)).permutation(len(self._store))
            self._order = (passed, order)  # one assignment: other threads see the old pair or the new one
        return int(order[place])
