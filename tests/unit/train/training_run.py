"""One training process on synthetic controls: what the tests start, kill and start again."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_wmh_uad.config import Method, TrainConfig, Training
from bids_wmh_uad.imaging.controls import save_control
from bids_wmh_uad.train.launch import Meeting, own_device, read_launch
from bids_wmh_uad.train.learning import learn

SHAPE = (40, 48, 40)
SPACING = 4.5


def make_controls(directory: Path, number: int, seed: int = 0) -> dict[str, Path]:
    """Smooth random brains on a coarse MNI grid, alike but for noise."""
    rng = np.random.default_rng(seed)
    mni_to_voxel = np.diag([1 / SPACING] * 3 + [1.0])
    mni_to_voxel[:3, 3] = 20, 28, 16
    where = (np.indices(SHAPE) - np.array([20, 24, 20])[:, None, None, None]) / np.array([16, 20, 15])[
        :, None, None, None
    ]
    mask = (where**2).sum(0) < 1
    common = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 2, 2, 2))
    paths = {}
    for index in range(number):
        own = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 1, 1, 1))
        image = np.where(mask, 1 / (1 + np.exp(-20 * common - 4 * own)), 0.0)
        paths[f"sub-{index:02d}"] = save_control(directory / f"sub-{index:02d}", image, mask, mni_to_voxel)
    return paths


def make_config(out: Path, **options: object) -> TrainConfig:
    """A run of a few seconds."""
    method = {name: options.pop(name) for name in ("random_seed", "nu") if name in options}
    settings = {"epochs": 3, "patches_per_epoch": 320, "batch_size": 32} | options
    return TrainConfig(
        out / "bids",
        out,
        "train",
        method=Method(**method),
        training=Training(output_model=out / "model", **settings),
    )


def main() -> int:
    """Train as the level does, in this process, alone or as one of several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("controls", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--objective", default="siamese")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    launch = read_launch(os.environ)
    meeting = Meeting(launch)
    if launch.rank == 0:
        controls = {path.name: path for path in sorted(options.controls.iterdir())}
        meeting.announce(controls)
    else:
        controls = meeting.await_controls()
    config = make_config(
        options.out, resume=options.resume, epochs=options.epochs, objective=options.objective
    )
    learn(controls, config, meeting, own_device(options.device, launch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
