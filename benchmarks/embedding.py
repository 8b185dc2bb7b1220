"""Dense latents of a head against encoding its patches one by one, and against the machine's own limit.

One JSON line, in about a minute on two cores. The head is a box of 150 x 185 x 150 voxels of noise, once
wanted whole and once through an ellipsoid that fills 45 % of it, as a brain does.

`peer_s` is patch-wise encoding on all threads: `extract_patches` and `embed_patches` in batches of
8192. A whole run takes 23 s and is a loop over batches of equal work, so each of the alternations
times a random sixteenth of the batches and is scaled to all voxels. `ours_s` is `embed_dense`,
whole. Medians of the alternations; `ratio` is the median of the alternations' ratios.
`floor_s`: the multiply-adds of the dense network at the best rate at which this machine multiplies
float32 matrices on all cores, measured in between. `encoder_s` leaves out the array of all latents
(266 MB, as for scoring slab by slab); `new_array_s` is what the first writing of such an array costs
by itself, on one thread: no method avoids it, and it depends on how the machine gives out pages. Memory is touched once beforehand: a virtual machine gets its
pages from the host at their first use, which took as long as the whole embedding.

    python benchmarks/embedding.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from bids_wmh_uad.core.network.autoencoder import ENCODERS, SiameseAutoencoder, build_autoencoder
from bids_wmh_uad.core.network.embedding import SLAB, DenseEncoder, embed_dense, embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parallel import parallel_map

SHAPE = (150, 185, 150)
ALTERNATIONS = 7
BATCH = 8192
SHARE = 16


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = perf_counter()
    function()
    return perf_counter() - start


def trained_like(channels: int) -> SiameseAutoencoder:
    """A network whose BatchNorm statistics are those of data."""
    model = build_autoencoder(0, channels)
    with torch.no_grad():
        for _ in range(20):
            model.encode(torch.rand(64, channels, 15, 15))
    return model.eval()


def multiply_adds(channels: int) -> int:
    """Of the dense network, a voxel."""
    layers = ENCODERS["compact"].layers
    widths = [channels, *(layer.features for layer in layers)]
    return sum(
        layer.kernel**2 * into * layer.features for layer, into in zip(layers, widths[:-1], strict=True)
    )


def matrix_rate() -> float:
    """Multiply-adds a second of the best of a few float32 matrix products."""
    rates = []
    for size in (512, 1024, 2048):
        product = partial(
            torch.mm, torch.rand(size, size), torch.rand(size, size), out=torch.empty(size, size)
        )
        rates.append(size**3 / min(seconds(product) for _ in range(5)))
    return max(rates)


def compare(
    model: SiameseAutoencoder, image: NDArray[np.float32], mask: NDArray[np.bool_]
) -> dict[str, float]:
    """Alternate peer and ours over one mask."""
    rng = np.random.default_rng(0)
    coords = np.argwhere(mask)
    batches = [slice(start, start + BATCH) for start in range(0, len(coords) - BATCH, BATCH)]
    encoder = DenseEncoder(model)

    def encode(start: int) -> int:
        return len(encoder(image, mask, slice(start, start + SLAB)))

    embed_dense(model, image, mask)
    found: dict[str, list[float]] = {
        "peer": [],
        "ours": [],
        "encoder": [],
        "rate": [],
        "difference": [],
        "new": [],
    }
    for _ in range(ALTERNATIONS):
        chosen = [batches[k] for k in rng.choice(len(batches), len(batches) // SHARE, replace=False)]
        start = perf_counter()
        peer = [embed_patches(model, extract_patches(image, coords[batch])) for batch in chosen]
        found["peer"].append((perf_counter() - start) * len(coords) / (BATCH * len(chosen)))
        start = perf_counter()
        ours = embed_dense(model, image, mask)
        found["ours"].append(perf_counter() - start)
        pairs = zip(chosen, peer, strict=True)
        found["difference"].append(max(float(np.abs(ours[batch] - rows).max()) for batch, rows in pairs))
        del ours
        found["encoder"].append(seconds(lambda: parallel_map(encode, range(0, SHAPE[2], SLAB))))
        found["rate"].append(matrix_rate())
        found["new"].append(seconds(partial(np.ones, (len(coords), model.latent_size), np.float32)))
    floor = len(coords) * multiply_adds(model.in_channels) / max(found["rate"])
    ours_s = median(found["ours"])
    return {
        "peer_s": round(median(found["peer"]), 2),
        "ours_s": round(ours_s, 3),
        "ratio": round(median(p / o for p, o in zip(found["peer"], found["ours"], strict=True)), 1),
        "encoder_s": round(median(found["encoder"]), 3),
        "new_array_s": round(median(found["new"]), 3),
        "agreement": max(found["difference"]),
        "floor_s": round(floor, 3),
        "times_floor": round(ours_s / floor, 2),
    }


def main() -> None:
    """Print the JSON line."""
    np.ones(1 << 29)  # 4 GB
    image = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    x, y, z = (np.linspace(-1.0, 1.0, n) for n in SHAPE)
    brain = (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2) < 0.9
    model = trained_like(2)
    whole = compare(model, image, np.ones(SHAPE, dtype=bool))
    inner = compare(model, image, brain)
    print(
        json.dumps(
            {
                "name": "embedding",
                "peer": "patch-wise encoding, batches of 8192, all threads",
                **whole,
                **{f"brain_{key}": value for key, value in inner.items()},
                "brain_share": round(float(brain.mean()), 3),
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
