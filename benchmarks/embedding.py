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

With ``--device cuda`` peer and ours run there. The floor is then what must go through memory: each layer's maps read and
written once at the best rate of a copy (`memory_s`), and the latents on their way to the host (`host_s`, measured). `cpu_s` is
`embed_dense` on the CPU of the same machine, and `times_cpu` how much faster the GPU is.

    python benchmarks/embedding.py [--device cuda]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import torch
from machine import copy_rate, device_option, machine, seconds
from numpy.typing import NDArray

from bids_wmh_uad.core.device import configure_torch
from bids_wmh_uad.core.network.autoencoder import ENCODERS, SiameseAutoencoder, build_autoencoder
from bids_wmh_uad.core.network.dense import SLAB, DenseEncoder
from bids_wmh_uad.core.network.embedding import embed_dense, embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parallel import parallel_map

SHAPE = (150, 185, 150)
ALTERNATIONS = 7
BATCH = 8192
SHARE = 16


def trained_like(channels: int) -> SiameseAutoencoder:
    """A network whose BatchNorm statistics are those of data."""
    model = build_autoencoder(0, channels)
    with torch.no_grad():
        for _ in range(20):
            model.encode(torch.rand(64, channels, 15, 15))
    return model.eval()


def layers(channels: int) -> list[tuple[int, int, int]]:
    """Edge of the kernel, and maps read and written, of each layer of the dense network."""
    plan = ENCODERS["compact"].layers
    widths = [channels, *(layer.features for layer in plan)]
    return [(layer.kernel, into, layer.features) for layer, into in zip(plan, widths[:-1], strict=True)]


def matrix_rate() -> float:
    """Multiply-adds a second of the best of a few float32 matrix products."""
    rates = []
    for size in (512, 1024, 2048):
        product = partial(
            torch.mm, torch.rand(size, size), torch.rand(size, size), out=torch.empty(size, size)
        )
        rates.append(size**3 / min(seconds(product) for _ in range(5)))
    return max(rates)


def floor_on_cpu(model: SiameseAutoencoder, voxels: int, rate: float) -> dict[str, float]:
    """All multiply-adds at the best rate."""
    each = sum(kernel**2 * into * out for kernel, into, out in layers(model.in_channels))
    return {"floor_s": voxels * each / rate}


def floor_on_gpu(model: SiameseAutoencoder, voxels: int, device: str) -> dict[str, float]:
    """All maps through the GPU's memory once, and the latents to the host."""
    each = sum(4 * (into + out) for _, into, out in layers(model.in_channels))
    memory = voxels * each / copy_rate(device)
    latents = torch.ones(voxels, model.latent_size, device=device)
    host = min(seconds(latents.cpu) for _ in range(5))
    return {"memory_s": memory, "host_s": host, "floor_s": memory + host}


def compare(
    model: SiameseAutoencoder, image: NDArray[np.float32], mask: NDArray[np.bool_], device: str
) -> dict[str, float]:
    """Alternate peer and ours over one mask."""
    rng = np.random.default_rng(0)
    coords = np.argwhere(mask)
    batches = [slice(start, start + BATCH) for start in range(0, len(coords) - BATCH, BATCH)]
    there = trained_like(model.in_channels).to(device)
    there.load_state_dict(model.state_dict())
    encoder = DenseEncoder(there)

    def encode(start: int) -> int:
        return len(encoder(image, mask, slice(start, start + SLAB)))

    embed_dense(there, image, mask)
    found: dict[str, list[float]] = {
        name: [] for name in ("peer", "ours", "encoder", "rate", "difference", "new", "cpu")
    }
    for _ in range(ALTERNATIONS):
        chosen = [batches[k] for k in rng.choice(len(batches), len(batches) // SHARE, replace=False)]
        start = perf_counter()
        peer = [embed_patches(there, extract_patches(image, coords[batch])) for batch in chosen]
        found["peer"].append((perf_counter() - start) * len(coords) / (BATCH * len(chosen)))
        start = perf_counter()
        ours = embed_dense(there, image, mask)
        found["ours"].append(perf_counter() - start)
        pairs = zip(chosen, peer, strict=True)
        found["difference"].append(max(float(np.abs(ours[batch] - rows).max()) for batch, rows in pairs))
        del ours
        found["encoder"].append(seconds(lambda: parallel_map(encode, range(0, SHAPE[2], SLAB))))
        found["rate"].append(matrix_rate())
        found["new"].append(seconds(partial(np.ones, (len(coords), model.latent_size), np.float32)))
        if device != "cpu":
            found["cpu"].append(seconds(partial(embed_dense, model, image, mask)))
    ours_s = median(found["ours"])
    if device == "cpu":
        more = floor_on_cpu(model, len(coords), max(found["rate"]))
    else:
        more = floor_on_gpu(model, len(coords), device)
        more |= {"cpu_s": median(found["cpu"]), "times_cpu": median(found["cpu"]) / ours_s}
    return {
        "peer_s": round(median(found["peer"]), 2),
        "ours_s": round(ours_s, 4),
        "ratio": round(median(p / o for p, o in zip(found["peer"], found["ours"], strict=True)), 1),
        "encoder_s": round(median(found["encoder"]), 4),
        "new_array_s": round(median(found["new"]), 3),
        "agreement": max(found["difference"]),
        **{name: round(value, 4) for name, value in more.items()},
        "times_floor": round(ours_s / more["floor_s"], 2),
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    device_option(parser)
    device = parser.parse_args().device
    configure_torch()
    np.ones(1 << 29)  # 4 GB
    image = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    x, y, z = (np.linspace(-1.0, 1.0, n) for n in SHAPE)
    brain = (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2) < 0.9
    model = trained_like(2)
    whole = compare(model, image, np.ones(SHAPE, dtype=bool), device)
    inner = compare(model, image, brain, device)
    print(
        json.dumps(
            {
                "name": "embedding",
                "device": device,
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
