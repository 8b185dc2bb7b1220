"""The image tools: any readable scan means the same voxels, and transforms mean what ITK says they mean."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

from bids_wmh_uad.errors import (
    BAD_AFFINE,
    EMPTY_IMAGE,
    NOT_3D_IMAGE,
    TINY_IMAGE,
    TRUNCATED_IMAGE,
    UNREADABLE_IMAGE,
    BadImageError,
)
from bids_wmh_uad.imaging import bias, registration, resampling, scans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.phantom import PhantomSubject

SHAPE = (20, 18, 7)
ORDERS = ["".join(axes) for p in permutations(("RL", "AP", "SI")) for axes in product(*p)]


def turn(degrees: float, axis: int = 2) -> NDArray[Any]:
    i, j = [k for k in range(3) if k != axis]
    matrix, angle = np.eye(4), np.deg2rad(degrees)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return matrix


OBLIQUE = turn(12) @ turn(-7, 0) @ np.array([[0.9, 0, 0, -9], [0, 1.1, 0, -12], [0, 0, 4, 5], [0, 0, 0, 1.0]])


def voxels(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(300, 80, SHAPE).astype(np.float32)


def save(path: Path, image: Any) -> Path:
    nib.save(image, path)
    return path


def reoriented(image: Any, order: str) -> Any:
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(order)))


def smooth(shape: tuple[int, ...] = (30, 28, 20), seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(100 * ndimage.gaussian_filter(noise, 3) + 100, np.float32)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_storage_does_not_matter(tmp_path: Path, order: str) -> None:
    image = nib.Nifti1Image(voxels(), OBLIQUE)
    path = save(tmp_path / "x.nii", reoriented(image, order))
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == order
    read = scans.read_scan(path)
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), voxels())
    np.testing.assert_allclose(read.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(read.get_qform(), read.get_sform(), atol=1e-6)


@pytest.mark.parametrize("order", ORDERS[::5])
@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (4, 0), (1, 4), (0, 0)])
def test_the_way_back_is_exact(tmp_path: Path, order: str, codes: tuple[int, int]) -> None:
    image = reoriented(nib.Nifti1Image(voxels(), OBLIQUE), order)
    affine = image.affine
    image.set_sform(affine, code=codes[1])
    image.set_qform(affine if codes[1] == 0 or codes[0] != 1 else turn(3) @ affine, code=codes[0])
    source = nib.load(save(tmp_path / "x.nii.gz", image))
    back = scans.to_grid_of(np.asanyarray(scans.read_scan(tmp_path / "x.nii.gz").dataobj), source)
    back = nib.load(save(tmp_path / "back.nii.gz", back))
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), np.asanyarray(source.dataobj))
    np.testing.assert_array_equal(back.affine, source.affine)
    assert back.header.get_zooms() == source.header.get_zooms()
    for kind, code in zip(("qform", "sform"), codes, strict=True):
        form, kept = getattr(back, f"get_{kind}")(coded=True)
        assert kept == (code or max(codes))  # an absent one becomes the other, so that ITK and nibabel agree
        expected = getattr(source, f"get_{kind}")() if code else source.affine
        if kept:
            np.testing.assert_allclose(form, expected, atol=1e-4)


@settings(max_examples=15)
@given(
    data=arrays(np.int16, SHAPE),
    slope=st.sampled_from([0.5, 2.0, 0.125]),
    inter=st.sampled_from([0.0, -10.0]),
)
def test_scale_factors_are_applied(
    tmp_path_factory: pytest.TempPathFactory, data: NDArray[Any], slope: float, inter: float
) -> None:
    data[0, 0, 0], data[-1, -1, -1] = 1, 2  # never constant
    image = nib.Nifti1Image(data, OBLIQUE)
    image.header.set_slope_inter(slope, inter)
    path = tmp_path_factory.mktemp("scaled") / "x.nii.gz"
    with path.open("wb") as handle:  # nibabel's own saving would rescale
        block = image.header.structarr.copy()
        block["scl_slope"], block["scl_inter"], block["vox_offset"] = slope, inter, 352
        handle.write(gzip.compress(block.tobytes() + bytes(4) + data.tobytes(order="F")))
    read = scans.read_scan(path)
    np.testing.assert_allclose(np.asanyarray(read.dataobj), data * np.float64(slope) + inter, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_the_data_type_does_not_matter(tmp_path: Path, dtype: type) -> None:
    data = np.clip(voxels(), 1, 250).astype(np.uint8)
    read = scans.read_scan(
        save(tmp_path / "x.nii.gz", nib.Nifti1Image(data.astype(dtype), OBLIQUE, dtype=dtype))
    )
    assert read.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), data)


def test_what_is_not_a_number_is_background(tmp_path: Path) -> None:
    data = voxels()
    bad = np.random.default_rng(1).random(SHAPE) < 0.3
    data[bad] = np.random.default_rng(2).choice([np.nan, np.inf, -np.inf], bad.sum())
    read = np.asanyarray(scans.read_scan(save(tmp_path / "x.nii", nib.Nifti1Image(data, OBLIQUE))).dataobj)
    np.testing.assert_array_equal(read, np.where(bad, 0, voxels()))


@pytest.mark.parametrize("tail", [(1,), (1, 1)])
def test_trailing_axes_of_length_1_are_dropped(tmp_path: Path, tail: tuple[int, ...]) -> None:
    path = save(tmp_path / "x.nii", nib.Nifti1Image(voxels().reshape(SHAPE + tail), OBLIQUE))
    np.testing.assert_array_equal(np.asanyarray(scans.read_scan(path).dataobj), voxels())


def test_a_header_with_only_a_qform_is_enough(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels(), None)
    image.set_qform(OBLIQUE, code=1)
    image.set_sform(None, code=0)
    read = scans.read_scan(save(tmp_path / "x.nii", image))
    np.testing.assert_allclose(read.affine, OBLIQUE, atol=1e-4)


# -------------------------------------------------------------- bad scans


def says(constant: str, **known: object) -> str:
    """The start of a message, up to the first thing a test does not know."""
    fields = dict.fromkeys(("reason", "value", "shape", "limit"), "#") | known
    return constant.format(**fields).split("#")[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [((*SHAPE, 2), NOT_3D_IMAGE), (SHAPE[:2], NOT_3D_IMAGE), ((*SHAPE, 1, 3), NOT_3D_IMAGE),
     ((15, 18, 7), TINY_IMAGE), ((20, 18, 3), TINY_IMAGE), ((20, 18, 1), TINY_IMAGE)],
)  # fmt: skip
def test_what_is_not_a_volume_is_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    path = save(tmp_path / "x.nii.gz", nib.Nifti1Image(data, np.eye(4)))
    with pytest.raises(BadImageError) as raised:
        scans.read_scan(path)
    assert str(raised.value) == message.format(path=path, shape=shape)


def test_the_smallest_grid_may_lie_in_any_order(tmp_path: Path) -> None:
    for shape in permutations(scans.MIN_GRID):
        data = np.random.default_rng(0).random(shape).astype(np.float32)
        assert scans.read_scan(save(tmp_path / "x.nii", nib.Nifti1Image(data, np.eye(4)))).shape == shape


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_constant_image_is_refused(tmp_path: Path, value: float) -> None:
    path = save(tmp_path / "x.nii.gz", nib.Nifti1Image(np.full(SHAPE, value, np.float32), np.eye(4)))
    with pytest.raises(BadImageError) as raised:
        scans.read_scan(path)
    assert str(raised.value) == EMPTY_IMAGE.format(path=path, value=np.nan_to_num(value))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_said_in_one_line(tmp_path: Path, name: str, share: float) -> None:
    path = save(tmp_path / name, nib.Nifti1Image(voxels(), OBLIQUE))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadImageError) as raised:
        scans.read_scan(path)
    text = str(raised.value)
    assert text.startswith(says(TRUNCATED_IMAGE, path=path))
    assert text.endswith(TRUNCATED_IMAGE.split(").")[1])
    assert "\n" not in text  # nipype's crash file is read line by line


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"no image" * 100, bytes(4000)])
def test_what_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadImageError) as raised:
        scans.read_scan(path)
    assert str(raised.value).startswith(says(UNREADABLE_IMAGE, path=path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["complex", "colour"])
def test_values_that_are_no_intensities_are_refused(tmp_path: Path, kind: str) -> None:
    colour = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    data = voxels().astype(np.complex64) if kind == "complex" else np.zeros(SHAPE, colour)
    path = save(tmp_path / "x.nii", nib.Nifti1Image(data, OBLIQUE))
    with pytest.raises(BadImageError, match=str(path)):
        scans.read_scan(path)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", ["sheared", "flat", "doubled", "zero", "nan"])
def test_an_impossible_affine_is_refused(tmp_path: Path, kind: str) -> None:
    affine = np.eye(4)
    affine[:3, 0] = {
        "sheared": [1, 0.2, 0], "flat": [0, 0, 0], "doubled": [0, 1, 0], "zero": [0, 0, 0], "nan": [np.nan, 0, 0],
    }[kind]  # fmt: skip
    affine[:3, :3] *= kind != "zero"
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.float32)
    header.set_sform(affine, code=1)
    header["vox_offset"] = 352
    path = tmp_path / "x.nii"
    path.write_bytes(header.binaryblock + bytes(4) + voxels().tobytes(order="F"))
    with pytest.raises(BadImageError) as raised:
        scans.read_scan(path)
    assert str(raised.value) == BAD_AFFINE.format(path=path, limit=scans.MAX_SHEAR)


def test_a_rounding_error_is_no_shear(tmp_path: Path) -> None:
    affine = OBLIQUE.copy()
    affine[:3, :3] *= 1 + 0.002 * np.random.default_rng(0).standard_normal((3, 3))
    path = save(tmp_path / "x.nii", nib.Nifti1Image(voxels(), affine))
    read = scans.read_scan(path)
    directions = read.affine[:3, :3] / np.linalg.norm(read.affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    np.testing.assert_array_equal(scans.to_grid_of(voxels(), nib.load(path)).affine, nib.load(path).affine)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="affine_none"):
        scans.read_scan(tmp_path / "affine_none.nii.gz")


# ------------------------------------------------------------- transforms


@settings(max_examples=25)
@given(
    linear=arrays(np.float64, (3, 3), elements=st.floats(-0.2, 0.2)),
    shift=arrays(np.float64, 3, elements=st.floats(-200, 200)),
)
def test_an_itk_file_holds_the_inverse_of_the_image_transform(
    tmp_path_factory: pytest.TempPathFactory, linear: NDArray[Any], shift: NDArray[Any]
) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] += linear
    matrix[:3, 3] = shift
    path = tmp_path_factory.mktemp("itk") / "xfm.txt"
    path.write_text(registration.itk_text(matrix))
    np.testing.assert_allclose(registration._read_itk(str(path)) @ matrix, np.eye(4), atol=1e-4)


def test_a_centre_of_rotation_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "xfm.txt"
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: 0 -1 0 1 0 0 0 0 1 3 4 5\nFixedParameters: 10 20 30\n"
    )
    lps = np.array([11.0, 20, 30])  # one mm from the centre, turned by 90 degrees, then shifted
    expected = [13, 25, 35]
    flip = np.array([-1, -1, 1])
    found = registration._read_itk(str(path)) @ np.append(lps * flip, 1)
    np.testing.assert_allclose(found[:3] * flip, expected, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["linear", "continuous", "nearest"])
def test_resampling_by_the_identity_changes_nothing(interpolation: str) -> None:
    image = scans.as_image(smooth(), OBLIQUE)
    same = resampling.resample(image, image, np.eye(4), interpolation=interpolation)
    np.testing.assert_allclose(same, smooth(), atol=1e-3)


def test_resampling_by_whole_voxels_is_a_shift() -> None:
    image = scans.as_image(smooth(), np.diag([2.0, 2, 2, 1]))
    move = np.eye(4)
    move[:3, 3] = 4, -2, 0  # moves the image by +2 and -1 voxels
    moved = resampling.resample(image, image, move)
    np.testing.assert_allclose(moved[2:, :-1], smooth()[:-2, 1:], atol=1e-3)
    assert not moved[:2].any()  # nothing comes from outside


@pytest.mark.parametrize("kind", ["Rigid", "Affine"])
def test_itk_resamples_as_we_do(tmp_path: Path, kind: str) -> None:
    import ants

    image = scans.as_image(smooth(), OBLIQUE)
    target = scans.as_image(np.zeros((26, 30, 22), np.float32), turn(5, 1) @ OBLIQUE)
    matrix = turn(9) @ turn(4, 1)
    matrix[:3, 3] = 3, -4, 6
    if kind == "Affine":
        matrix = matrix @ np.diag([1.1, 0.93, 1.02, 1])
    (tmp_path / "xfm.txt").write_text(registration.itk_text(matrix))
    ours = resampling.resample(image, target, matrix)
    fixed, moving = (registration.to_ants(np.asanyarray(x.dataobj), x.affine) for x in (target, image))
    theirs = ants.apply_transforms(fixed, moving, [str(tmp_path / "xfm.txt")], interpolator="linear").numpy()
    inside = ndimage.binary_erosion((ours > 0) & (theirs > 0), iterations=2)
    assert inside.sum() > 1000
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=0.01)


def test_registration_finds_a_known_motion(phantom: PhantomSubject) -> None:
    t1w = nib.as_closest_canonical(phantom.t1w)
    fixed = scans.as_image(np.asanyarray(t1w.dataobj, dtype=np.float32), t1w.affine)
    motion = turn(4) @ turn(-3, 0)
    motion[:3, 3] = 3, -2, 4
    moving = scans.as_image(resampling.resample(fixed, fixed, np.linalg.inv(motion)), fixed.affine)
    found = registration.register(fixed, moving, transform="Rigid", seed=0)
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-90, 60) for z in (-40, 60)], float).T
    assert np.linalg.norm(((found - motion) @ corners)[:3], axis=0).max() < 0.5  # mm
    again = registration.register(fixed, moving, transform="Rigid", seed=0)
    np.testing.assert_array_equal(found, again)


# ------------------------------------------------------------ brains, bias


def canonical(image: Any, path: Path) -> nib.Nifti1Image:
    return scans.read_scan(save(path, image))


def test_bias_correction_flattens_a_known_bias(phantom: PhantomSubject, tmp_path: Path) -> None:
    image = canonical(phantom.t1w, tmp_path / "t1w.nii")
    data, brain = np.asanyarray(image.dataobj), np.asanyarray(image.dataobj) != 0
    ramp = np.exp(np.linspace(-0.3, 0.3, image.shape[0]))[:, None, None].astype(np.float32)
    plain, biased = (
        bias.correct_bias(scans.as_image(x, image.affine), brain, levels=3) for x in (data, data * ramp)
    )
    ratio_before, ratio_after = (
        np.log((data * ramp)[brain] / data[brain]),
        np.log(biased[brain] / plain[brain]),
    )
    assert ratio_after.std() < 0.35 * ratio_before.std()
