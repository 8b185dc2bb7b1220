"""Training patches per second: `BatchSampler` against a loop over patches, and in how much memory.

The loop does the same for one patch at a time: two subjects, one location, both voxels in their masks,
two slices of the image, another contrast. Both draw from the same float32 images in memory; ours then
from its own memory-mapped files (`mapped`). `prefetch` is the time of training steps whose batches are drawn
on the spot, over that of the trainer, which draws them in a thread while the network works.

With ``--memory`` a process of its own trains on 500 memory-mapped controls (10 MB each, in a folder that is
removed afterwards), and says how much it ever held: anonymous memory and mapped pages together.
One JSON line.

    python benchmarks/sampler.py [--memory]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage

from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.patches import change_contrast
from bids_wmh_uad.core.network.plan import Plan
from bids_wmh_uad.core.network.sampling import BatchSampler, PairSampler, TrainingSubject
from bids_wmh_uad.core.network.training import Trainer
from bids_wmh_uad.imaging.controls import open_control, save_control
from bids_wmh_uad.train.learning import template_coordinates

SHAPE = (150, 185, 40)
BATCH, SEED = 256, 0
HALF = 7
Pair = tuple[np.ndarray, np.ndarray]


def make_control(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw an ellipsoid of smooth noise on a grid of 1 x 1 x 4 mm."""
    size = np.array(SHAPE)
    place = (np.indices(SHAPE) - size[:, None, None, None] / 2) / (0.48 * size)[:, None, None, None]
    mask = np.square(place).sum(0) < 1
    image = ndimage.gaussian_filter(rng.random((2, *SHAPE), dtype=np.float32), (0, 1, 1, 0))
    mni_to_voxel = np.diag([1, 1, 0.25, 1.0])
    mni_to_voxel[:3, 3] = size / 2 + [0, 20, -4]
    return np.where(mask, image, 0).astype(np.float32), mask, mni_to_voxel


def one_patch(subject: TrainingSubject, at: np.ndarray) -> np.ndarray:
    """Cut one patch, background beyond the image."""
    x, y, z = (int(value) for value in at)
    patch = np.zeros((2, 15, 15), dtype=np.float32)
    low = max(x - HALF, 0), max(y - HALF, 0)
    cut = subject.image[:, low[0] : x + HALF + 1, low[1] : y + HALF + 1, z]
    corner = low[0] - x + HALF, low[1] - y + HALF
    patch[:, corner[0] : corner[0] + cut.shape[1], corner[1] : corner[1] + cut.shape[2]] = cut
    return patch


def one_voxel(subject: TrainingSubject, mni: np.ndarray) -> np.ndarray | None:
    """Find the nearest voxel, if it lies in the mask."""
    at = np.rint(subject.mni_to_voxel[:3, :3] @ mni + subject.mni_to_voxel[:3, 3]).astype(int)
    inside = (at >= 0).all() and (at < subject.mask.shape).all() and subject.mask[tuple(at)]
    return at if inside else None


def naive(
    subjects: list[TrainingSubject], coordinates: np.ndarray, number: int, rng: np.random.Generator
) -> Pair:
    """Draw the pairs one by one."""
    branches: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    while len(branches[0]) < number:
        owners = rng.choice(len(subjects), 2, replace=False)
        mni = coordinates[rng.integers(len(coordinates))] + 2 * (rng.random(3) - 0.5)
        voxels = [one_voxel(subjects[owner], mni) for owner in owners]
        if any(at is None for at in voxels):
            continue
        for branch, owner, at in zip(branches, owners, voxels, strict=True):
            gain, offset = np.exp(0.2 * rng.standard_normal((1, 2))), 0.15 * rng.standard_normal((1, 2))
            branch.append(change_contrast(one_patch(subjects[owner], at)[None], gain, offset)[0])
    return np.stack(branches[0]), np.stack(branches[1])


def seconds(work: object, repeats: int = 7) -> float:
    """Median time of a call."""
    work()  # type: ignore[operator]
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()  # type: ignore[operator]
        times.append(perf_counter() - start)
    return median(times)


def step_seconds(sampler: BatchSampler, ahead: bool, steps: int = 30) -> float:
    """Time of a training step, batches drawn in the trainer's thread or on the spot."""
    model = build_autoencoder(0)
    plan = Plan(epochs=1, steps=steps)
    if ahead:
        trainer = Trainer(model, plan, sampler)
        start = perf_counter()
        trainer.run()
        return (perf_counter() - start) / steps
    trainer = Trainer(model, plan, sampler)
    start = perf_counter()
    for step in range(steps):
        trainer._advance(sampler(step))  # what run does, without its thread
    return (perf_counter() - start) / steps


def speed(folder: Path) -> dict[str, float]:
    """Compare the samplers on twenty controls."""
    rng = np.random.default_rng(SEED)
    loaded, paths = [], []
    for index in range(20):
        control = make_control(rng)
        loaded.append(TrainingSubject(*control))
        paths.append(save_control(folder / str(index), *control))
    coordinates = template_coordinates()
    ours = PairSampler(loaded, coordinates, spread_mm=2)
    settings = {"batch_size": BATCH, "seed": SEED, "spread_mm": 2}
    mapped = BatchSampler(len(paths), lambda index: open_control(paths[index]), coordinates, **settings)
    ratios = []
    for _ in range(5):  # turn by turn: a busy machine slows down both
        loop = seconds(lambda: naive(loaded, coordinates, 64, np.random.default_rng(1)), 3) / 128
        batch = seconds(lambda: ours(BATCH, np.random.default_rng(1))) / (2 * BATCH)
        from_files = seconds(lambda: mapped(1)) / (2 * BATCH)
        ratios.append((loop, batch, from_files))
    steps = [(step_seconds(mapped, False), step_seconds(mapped, True)) for _ in range(3)]
    peer, own, files = (median(times) for times in zip(*ratios, strict=True))
    return {
        "peer_patches_per_s": round(1 / peer),
        "in_memory_patches_per_s": round(1 / own),
        "mapped_patches_per_s": round(1 / files),
        "in_memory_ratio": round(median(loop / batch for loop, batch, _ in ratios), 1),
        "ratio": round(median(loop / mapped for loop, _, mapped in ratios), 1),
        "step_ms": round(1e3 * median(ahead for _, ahead in steps), 1),
        "prefetch": round(median(plain / ahead for plain, ahead in steps), 2),
    }


def peak_gib() -> float:
    """Most memory this process has held: anonymous, and pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def use_memory(folder: Path, number: int, steps: int) -> dict[str, float]:
    """Train on memory-mapped controls, and say what this process has held at most."""
    paths = sorted(folder.iterdir(), key=lambda path: int(path.name))[:number]
    torch.set_num_threads(1)
    sampler = BatchSampler(
        number, lambda index: open_control(paths[index]), template_coordinates(), batch_size=BATCH, seed=SEED
    )
    trainer = Trainer(build_autoencoder(0), Plan(epochs=1, steps=steps), sampler)
    start = perf_counter()
    trainer.run()
    return {
        "peak_gib": round(peak_gib(), 2),
        "steps_per_s": round(steps / (perf_counter() - start), 1),
        "subjects_used": len({index for step in range(steps) for index in sampler.members(step)}),
    }


def memory(folder: Path) -> dict[str, object]:
    """Memory of training on 32 and on 500 controls, each in a process of its own."""
    rng = np.random.default_rng(SEED)
    first = save_control(folder / "0", *make_control(rng))
    for index in range(1, 500):
        shutil.copytree(first, folder / str(index))
    size = sum(path.stat().st_size for path in folder.rglob("*.npy")) / 2**30
    found: dict[str, object] = {"files_gib": round(size, 2)}
    for number, steps in ((32, 64), (500, 256)):
        command = [sys.executable, __file__, "--use", str(folder), str(number), str(steps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[f"controls_{number}"] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the JSON line."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--use"]:
        print(json.dumps(use_memory(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
        return
    with tempfile.TemporaryDirectory(prefix="sampler-") as name:
        result = memory(Path(name)) if sys.argv[1:] == ["--memory"] else speed(Path(name))
    print(json.dumps({"name": "sampler", "peer": "a loop over patches", "batch_size": BATCH, **result}))


if __name__ == "__main__":
    main()
