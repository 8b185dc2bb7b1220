"""Images from strangers: what the header says is checked before it is believed, and lengths are millimetres."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad import images
from bids_wmh_uad.errors import (
    BAD_AFFINE,
    FORMS_DISAGREE,
    GUESSED_SIDES,
    HUGE_IMAGE,
    NOT_3D_IMAGE,
    ODD_VOXEL_SIZES,
    ODD_VOXELS,
    OTHER_UNIT,
    TRUNCATED_IMAGE,
    UNREADABLE_IMAGE,
    BadImageError,
)
from bids_wmh_uad.imaging import scans
from bids_wmh_uad.imaging.masks import read_lesions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (20, 18, 7)
NAMES = ["x.nii", "x.nii.gz"]
KINDS = [nib.Nifti1Header, nib.Nifti2Header]
READERS: list[Callable[[Path], object]] = [
    images.read_image,
    images.read_grid,
    scans.read_scan,
    scans.read_lifted_scan,
    scans.read_volume,
    lambda path: read_lesions(path, path, may_resample=True),
    lambda path: scans.geometry_doubts(path, "FLAIR"),
]


def voxels(dtype: Any = np.int16) -> NDArray[Any]:
    return np.random.default_rng(0).integers(1, 120, SHAPE).astype(dtype)


def header(
    shape: tuple[int, ...] = SHAPE,
    *,
    dtype: Any = np.int16,
    affine: NDArray[Any] | None = None,
    kind: Any = nib.Nifti1Header,
    **fields: Any,
) -> bytes:
    made = kind()
    made.set_data_shape(shape)
    made.set_data_dtype(dtype)
    made.set_sform(np.eye(4) if affine is None else affine, code=1)
    made["vox_offset"] = made.single_vox_offset
    for name, value in fields.items():
        made[name] = value
    block: bytes = made.binaryblock
    return block + bytes(4)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def start(constant: str, path: Path) -> str:
    return constant.split("{", 2)[0] + str(path) + constant.split("}", 1)[1].split("{", maxsplit=1)[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "u1", "i1", "<u4", "<i8"])
@pytest.mark.parametrize("scale", [(1, 0), (0.37, -3), (0, 0), (np.nan, 0)])
def test_voxels_are_those_that_nibabel_reads(
    tmp_path: Path, name: str, kind: Any, dtype: str, scale: tuple[float, float]
) -> None:
    block = kind(endianness="<" if dtype[0] != ">" else ">")
    block.set_data_shape(SHAPE)
    block.set_data_dtype(np.dtype(dtype))
    block.set_sform(np.diag([1, 2, 3, 1]), code=2)
    block["vox_offset"], block["scl_slope"], block["scl_inter"] = block.single_vox_offset, *scale
    path = write(tmp_path / name, block.binaryblock + bytes(4) + voxels(dtype).tobytes(order="F"))
    theirs, ours = nib.load(path), images.read_image(path)
    expected = np.asanyarray(theirs.dataobj)
    assert ours.dataobj.dtype == expected.dtype
    np.testing.assert_array_equal(ours.dataobj, expected)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert type(ours) is type(theirs)
    np.testing.assert_array_equal(images.read_grid(path).affine, theirs.affine)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((646, 646, 646), nib.Nifti1Header, HUGE_IMAGE),
        ((1100, 1100, 1100), nib.Nifti1Header, HUGE_IMAGE),
        ((32767, 32767, 32767), nib.Nifti1Header, HUGE_IMAGE),
        ((2**40, 2**40, 2**40), nib.Nifti2Header, HUGE_IMAGE),
        ((2**62, 4, 4), nib.Nifti2Header, HUGE_IMAGE),
        ((20, 18, 7, 30000), nib.Nifti1Header, NOT_3D_IMAGE),
        ((20, 18, 7, 1, 2), nib.Nifti1Header, NOT_3D_IMAGE),
        ((640, 640, 640), nib.Nifti1Header, TRUNCATED_IMAGE),  # allowed, but not there
    ],
)
def test_claims_are_refused_before_memory_is_asked_for(
    tmp_path: Path, name: str, shape: tuple[int, ...], kind: Any, message: str
) -> None:
    path = write(tmp_path / name, header(shape, kind=kind) + voxels().tobytes())
    for read in (images.read_image, scans.read_scan, scans.read_volume):
        tracemalloc.start()
        with pytest.raises(BadImageError) as raised:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(raised.value).startswith(start(message, path))
        assert peak < 2**20


def test_a_bomb_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(header((100, 100, 100), dtype=np.uint8))
        for _ in range(256):
            stream.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(BadImageError, match="more data than its header says"):
        images.read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_bomb_before_the_voxels_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii.gz", header(vox_offset=2**30) + bytes(2**26))
    tracemalloc.start()
    with pytest.raises(BadImageError, match="voxels at byte"):
        images.read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("fields", "constant"),
    [
        ({"vox_offset": value}, UNREADABLE_IMAGE)
        for value in (np.nan, np.inf, -np.inf, -5, 0, 10, 1e30)
    ]
    + [({"vox_offset": 1e6}, TRUNCATED_IMAGE)]
    + [({"datatype": code}, UNREADABLE_IMAGE) for code in (0, 1, 1536, 2048, 9999, -1)]
    + [({"datatype": code}, ODD_VOXELS) for code in (32, 128, 1792, 2304)]
    + [({"scl_slope": 1, "scl_inter": value}, UNREADABLE_IMAGE) for value in (np.nan, np.inf)]
    + [({"magic": value}, UNREADABLE_IMAGE) for value in (b"ni1", b"", b"n+9", b"n+2")]
    + [({"dim": [3, -20, 18, 7, 1, 1, 1, 1]}, NOT_3D_IMAGE), ({"dim": [0] * 8}, NOT_3D_IMAGE)]
    + [({"dim": [3, 20, 18, 9, 1, 1, 1, 1]}, TRUNCATED_IMAGE)]
    + [({"dim": [3, 20, 9, 3, 1, 1, 1, 1], "pixdim": [1] * 8}, UNREADABLE_IMAGE)]
    + [({"datatype": 64, "bitpix": 64}, TRUNCATED_IMAGE), ({"srow_x": [np.nan, 0, 0, 0]}, BAD_AFFINE)]
    + [({"sform_code": 0, "qform_code": 1, "quatern_b": 7}, UNREADABLE_IMAGE)]
    + [({"sform_code": 0, "qform_code": 1, "pixdim": [1, np.inf, 1, 1, 1, 1, 1, 1]}, BAD_AFFINE)],
)  # fmt: skip
def test_headers_that_lie_are_refused(
    tmp_path: Path, name: str, fields: dict[str, Any], constant: str
) -> None:
    data = voxels().tobytes() * (4 if "pixdim" in fields and "dim" in fields else 1)
    path = write(tmp_path / name, header(**fields) + data)
    with pytest.raises(BadImageError) as raised:
        images.read_image(path)
    assert str(raised.value).startswith(start(constant, path))
    assert "\n" not in str(raised.value)


def test_bits_per_voxel_that_contradict_the_type_do_not_count(tmp_path: Path) -> None:
    """The type alone says how voxels are stored, here and in ITK; the file's length bears it out."""
    path = write(tmp_path / "x.nii.gz", header(bitpix=64) + voxels().tobytes(order="F"))
    np.testing.assert_array_equal(images.read_image(path).dataobj, voxels())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [0, 1, 512, images.MAX_PADDING])
def test_padding_behind_the_voxels_is_allowed(tmp_path: Path, name: str, more: int) -> None:
    path = write(tmp_path / name, header() + voxels().tobytes(order="F") + bytes(more))
    np.testing.assert_array_equal(images.read_image(path).dataobj, voxels())
    write(path, header() + voxels().tobytes(order="F") + bytes(images.MAX_PADDING + 1))
    with pytest.raises(BadImageError, match="more data than its header says"):
        images.read_image(path)


def test_a_checksum_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(header() + voxels().tobytes(order="F")))
    content[-6] ^= 1
    (tmp_path / "x.nii.gz").write_bytes(content)
    with pytest.raises(BadImageError, match="CRC"):
        images.read_image(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("read", READERS)
def test_every_reader_asks_the_same_function(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = write(tmp_path / "x.nii.gz", header((1100, 1100, 1100)))
    with pytest.raises(BadImageError) as raised:
        read(path)
    assert str(raised.value).startswith(start(HUGE_IMAGE, path))


# ----------------------------------------------------------------- units


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forms", [(1, 1), (1, 0), (0, 2), (0, 0)])
@pytest.mark.parametrize(("code", "factor"), [(0, 1.0), (1, 1e-3), (2, 1.0), (3, 1e3), (5, 1.0), (11, 1e3)])
def test_lengths_become_millimetres(
    tmp_path: Path, kind: Any, forms: tuple[int, int], code: int, factor: float
) -> None:
    """By metres, micrometres or none, with either form or none; seconds (code 8) beside them do not matter."""
    affine = np.diag([-0.9, 1.1, 3, 1])
    affine[:3, 3] = 80, -60, 12.5
    paths = []
    for scale, unit in ((1.0, 2), (factor, code)):
        made = kind()
        made.set_data_shape(SHAPE)
        made.set_data_dtype(np.int16)
        scaled = np.diag([scale, scale, scale, 1]) @ affine
        made.set_qform(scaled, code=forms[0])
        made.set_sform(scaled, code=forms[1])
        made["vox_offset"], made["xyzt_units"] = made.single_vox_offset, unit
        paths.append(
            write(tmp_path / f"{unit}.nii.gz", made.binaryblock + bytes(4) + voxels().tobytes(order="F"))
        )
    plain, other = map(images.read_image, paths)
    for read in (other, images.read_grid(paths[1])):
        np.testing.assert_allclose(read.affine, plain.affine, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(read.header.get_zooms(), plain.header.get_zooms(), rtol=1e-5)
    back = scans.to_grid_of(np.asanyarray(scans.read_scan(paths[1]).dataobj), images.read_grid(paths[1]))
    np.testing.assert_allclose(back.affine, plain.affine, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(back.dataobj, voxels())
    assert back.header.get_xyzt_units()[0] == "mm"
    said = OTHER_UNIT.code in {doubt.code for doubt in scans.geometry_doubts(paths[1], "FLAIR")}
    assert said is (factor != 1.0)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("sizes", "code", "unit"),
    [((0.05, 1, 1), 2, "millimetres"), ((1, 1, 21), 0, "millimetres"), ((1, 1, 1), 1, "metres"),
     ((1, 1, 1), 3, "micrometres"), ((900, 900, 3000), 2, "millimetres")],
)  # fmt: skip
def test_voxel_sizes_that_stay_implausible_are_an_error(
    tmp_path: Path,
    read: Callable[[Path], object],
    sizes: tuple[float, ...],
    code: int,
    unit: str,
) -> None:
    block = header(affine=np.diag([*sizes, 1]), xyzt_units=code)
    path = write(tmp_path / "x.nii", block + voxels().tobytes())
    with pytest.raises(BadImageError) as raised:
        read(path)
    assert str(raised.value).startswith(start(ODD_VOXEL_SIZES, path))
    assert f"({unit})" in str(raised.value)
    assert "xyzt_units" in str(raised.value)


# ------------------------------------------------------------ orientation


def placed(path: Path, qform: Any, sform: Any, codes: tuple[int, int], **fields: Any) -> Path:
    made = nib.Nifti1Header()
    made.set_data_shape(SHAPE)
    made.set_data_dtype(np.int16)
    made.set_qform(qform, code=codes[0])
    made.set_sform(sform, code=codes[1])
    made["vox_offset"] = 352
    for name, value in fields.items():
        made[name] = value
    return write(path, made.binaryblock + bytes(4) + voxels().tobytes(order="F"))


AFFINE = np.array([[-0.9, 0, 0, 80], [0, 1.1, 0, -60], [0, 0, 3, 12], [0, 0, 0, 1.0]])


def moved(mm: float) -> NDArray[Any]:
    other = AFFINE.copy()
    other[0, 3] += mm
    return other


@pytest.mark.parametrize(
    ("qform", "sform", "codes", "fields", "expected"),
    [
        (AFFINE, AFFINE, (1, 1), {}, []),
        (AFFINE, AFFINE, (1, 0), {}, []),
        (AFFINE, AFFINE, (0, 4), {}, []),
        (moved(0.2), AFFINE, (1, 1), {}, []),
        (AFFINE, AFFINE, (0, 0), {}, [GUESSED_SIDES]),
        (AFFINE, AFFINE, (0, 0), {"xyzt_units": 0}, [GUESSED_SIDES]),
        (moved(5), AFFINE, (1, 1), {}, [FORMS_DISAGREE]),
        (moved(5), AFFINE, (1, 2), {}, [FORMS_DISAGREE]),
        (moved(5), AFFINE, (0, 1), {}, []),  # a form without a code says nothing
        (np.diag([-1, 1, 1, 1]) @ AFFINE, AFFINE, (1, 1), {}, [FORMS_DISAGREE]),  # left and right swapped
        (AFFINE, AFFINE, (0, 1), {"pixdim": [1, 0.9, 1.1, 1.5, 1, 1, 1, 1]}, [FORMS_DISAGREE]),
    ],
)  # fmt: skip
def test_doubtful_places_are_said(
    tmp_path: Path,
    qform: NDArray[Any],
    sform: NDArray[Any],
    codes: tuple[int, int],
    fields: dict[str, Any],
    expected: list[Any],
) -> None:
    path = placed(tmp_path / "x.nii.gz", qform, sform, codes, **fields)
    doubts = scans.geometry_doubts(path, "T1w")
    assert [doubt.code for doubt in doubts] == [text.code for text in expected]
    assert all("T1w" in doubt.text for doubt in doubts)
    if expected == [FORMS_DISAGREE]:
        assert "the sform was used" in doubts[0].text
        np.testing.assert_allclose(images.read_image(path).affine, sform, atol=1e-5)


def test_outputs_claim_no_more_than_the_scan(tmp_path: Path) -> None:
    """Without codes both read as nibabel's guess, the same for the scan and for what is laid over it."""
    path = placed(tmp_path / "x.nii.gz", AFFINE, AFFINE, (0, 0))
    back = scans.to_grid_of(np.asanyarray(scans.read_scan(path).dataobj), images.read_grid(path))
    nib.save(back, tmp_path / "back.nii")
    stored = nib.load(tmp_path / "back.nii")
    assert (int(stored.header["qform_code"]), int(stored.header["sform_code"])) == (0, 0)
    np.testing.assert_array_equal(stored.affine, nib.load(path).affine)
    np.testing.assert_array_equal(stored.dataobj, voxels())
