"""Typed errors: each carries its user message and the exit code it means.

Exit codes follow the draft BIDS execution specification. The message texts are
constants, so that tests and the documentation quote the very text users see.
Every message names the file (or option) and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_OK = 0
EXIT_SESSION_FAILED = 1

# Images
UNREADABLE_IMAGE = "{path}: cannot be read as a NIfTI image ({reason}). Copy or fetch the file again."
TRUNCATED_IMAGE = "{path}: the file ends before its data do ({reason}). Copy or fetch the file again."
EMPTY_IMAGE = "{path}: every voxel has the same value ({value}). Exclude this scan or convert it again."
NOT_3D_IMAGE = "{path}: expected one 3D volume, found shape {shape}. Keep one volume of it, or exclude it with --bids-filter-file."
TINY_IMAGE = (
    "{path}: a grid of {shape} voxels is too small for a brain scan. Exclude it with --bids-filter-file."
)
HUGE_IMAGE = "{path}: a grid of {shape} voxels is too large for a brain scan (limit: {limit} million). Exclude it with --bids-filter-file, or correct its header."
ODD_VOXEL_SIZES = "{path}: voxels of {sizes} mm, read in the header's unit ({unit}), are none of a brain scan. Correct pixdim, sform or xyzt_units in the header, or convert the scan again."
BAD_AFFINE = "{path}: the affine is not invertible or shears the axes by more than {limit}. Correct the header or convert the scan again."
NO_BRAIN = "{path}: no brain was found ({volume:.0f} mL). Check that this is a head or brain scan in the right orientation."
NO_OVERLAP = "{path}: T1w and FLAIR do not overlap after registration (Dice {dice:.2f}). Check that both are of the same subject and that their headers are right."
GRID_MISMATCH = "{first} and {second} are not on the same grid ({detail}). Resample one to the other."

# Datasets
MISSING_FLAIR = "{where}: no FLAIR found, only {t1w}. Add sub-*_FLAIR.nii.gz or exclude the session with --session-label or --bids-filter-file."
MISSING_T1W = "{where}: no T1w found for {flair}. Add sub-*_T1w.nii.gz to the session, or keep exactly one T1w per subject."
BROKEN_LINK = "{path}: the file's content is not here (broken link). Run 'datalad get {name}' in the dataset first; in a container, mount the dataset's root."
NOT_A_FILE = "{path}: a directory, FIFO, socket or device where a file should be. Put the file there, or exclude it with --bids-filter-file."
ODD_VOXELS = "{path}: its voxels are of the type {dtype}, not one number each. Save the image with plain numbers: of a complex one the magnitude, of a colour one its values before they were coloured."
BAD_NAME = "{path}: the name is not UTF-8. Rename it."
NOT_READABLE = (
    "{path}: may not be read (permission denied). Give this user read access to it and to its directories."
)
NOT_BIDS = (
    "{path}: not a BIDS dataset ({reason}). Add dataset_description.json or pass --skip-bids-validation."
)
BAD_DESCRIPTION = "{path}: holds no JSON object ({reason}), which pybids needs even with --skip-bids-validation. Mend or remove it."
NO_SUCH_DIRECTORY = "{path}: no such directory. Check the path, and that it is mounted in the container."
UNKNOWN_LABELS = "Not in {path}: {labels}. Participants there: {known}."
EMPTY_SELECTION = "Nothing to do in {path}: no T1w or FLAIR matches the selection ({filters})."
MISNAMED = "{path}: not used, for its name is that of another participant or session than its directory. Rename it, or move it where it belongs."
FOREIGN_DATABASE = (
    "{path}: an index of another dataset ({root}). Choose another --bids-database-dir, or delete this one."
)
BAD_FILTER_FILE = (
    "{path}: not a usable BIDS filter file ({reason}). It must map 't1w' and/or 'flair' to BIDS entities."
)
BAD_DATABASE = "{path}: not a usable index of a dataset ({reason}). Remove it: it is made anew."
NO_RESULTS = "{path}: no finished session found. Run the participant level first."
OLDER_RESULT = "{path}: left out, for it is of another FLAIR than {kept}, which is of the newest run. Remove this result's files, or run the participant level again with the filter that chooses its FLAIR."
UNREADABLE_SUMMARY = (
    "{path}: not the summary of a session ({reason}); it is left out. Run the participant level again."
)
UNREADABLE_SIDECAR = "{path}: cannot be read ({reason}). Run the participant level again."
BAD_PARTICIPANTS = "{path}: not used, so its columns are missing ({reason}). Write it as UTF-8 text with tabs between columns, one of them {key}."
PARTICIPANTS_FORMAT = "{path}: read as {encoding} with {delimiter} between columns, and BIDS asks for UTF-8 with tabs. Check its columns in group_wmh.tsv, and write the file again."
PARTICIPANTS_MISSING = "{path}: no line for {labels}: their columns are n/a. Add them, with participant_id as the dataset has it (sub-01, not 1)."
PARTICIPANTS_DIFFER = (
    "{path}: several lines that differ for {labels}: the last counts. Keep one line for each participant."
)
NO_REFERENCE = "{where}: no reference mask in {path}; the session is left out of the evaluation."
SEVERAL_REFERENCES = "{path}: the first of {n} reference masks of this session is used. Leave only one there."
RESAMPLE_HINT = "Or let --resample-reference bring the reference to the FLAIR's grid."
ROUNDED_AFFINE = "{path}: the affine differs from the FLAIR's by up to {millimetres:.2g} mm ({voxels:.2g} voxels), less than a tenth of a voxel; the voxels are taken for the FLAIR's."
OTHER_SPACE = "Its name says space-{space}: bring it to the FLAIR (OUTPUT_DIR has the transforms, *_xfm.txt), or give one in space-T1w."
ODD_REFERENCE = "{path}: the values ({values}) are those of no mask (0, 1, and 2 = other pathology) and of no probabilities (0 to 1). Save a mask of the lesions."
ONE_VALUE = "{path}: the only value beside 0 is {value:g}; it is taken for lesion."
NO_BRIGHTNESS = "{where}: brightness cannot be computed beside the model, its columns are n/a ({reason})"
EMPTY_BRIGHTNESS = "{path} is 0 everywhere: no grey matter was found in the scan"
REFERENCE_OUTSIDE = "{path}: {percent:.1f} % of the reference lies outside the brain mask and does not count. Check the brain mask on the participant's page."
BAD_CONTROL = "{path}: not a prepared control ({reason}). Remove the directory and run the train level again."
NOT_PREPARED = "{where}: not used as a control, for it could not be prepared. The lines above say why; mend it, or exclude it with --participant-label."
NO_CONTROLS_SHARED = "The first training process ended before the controls were ready. Its log says why; run all processes again."
NO_MASTER = "{nodes} nodes, and MASTER_ADDR is not set. Put 'export MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)' into the job script."
NOT_ENOUGH_CONTROLS = "{path}: {n} usable sessions; training needs at least two, of different participants."
NOT_REUSED = (
    "{where}: the preprocessing in {path} is not reused ({reason}); the session is preprocessed anew."
)

# Options, output, model
NOT_AN_IMAGE = "{name}: a {kind} is neither a nibabel image nor the path of a NIfTI file. Make an image of an array with nibabel.Nifti1Image(array, affine)."
BAD_VALUE = "{option}: {value!r} is not valid; {expected}."
KNOWN_SPACES = "choose from {known}; the only template is that, fMRIPrep's MNI152NLin2009cAsym is another and is not there"
CANNOT_CREATE = (
    "{path}: cannot be created ({reason}). Check that its directory exists, is writable and has space left."
)
WORK_INSIDE_INPUT = "{path}: the {what} directory lies inside the BIDS dataset. Choose one outside of it; the work directory is ./work unless --work-dir names another."
NO_WORK_DIRECTORY = "{path}: the work directory cannot be made ({reason}). It is ./work unless --work-dir names another: start from a directory where you may write, or give --work-dir one (in a container, one that is mounted, such as with --volume DIR:/work)."
BAD_CONFIG_FILE = "{path}: not a usable --config-file ({reason}). Take the config.toml of a run's log directory, or mend it."
BOTH_GIVEN = "{first} and {second} are both given and do not agree. Leave one of them out."
NO_GPU = "--device {device}: no GPU is visible to torch. Check the driver (Docker: --gpus all, Apptainer: --nv), or use --device cpu."
BAD_MODEL = "{path}: not a usable model ({reason}). Make one with 'bids-wmh-uad BIDS_DIR OUT train --output-model DIR'."
BAD_DECISION = "{path}: not usable ({reason}). Remove it: candidates are then judged without the network."
FEW_CONTROLS = "{n} controls are too few for voxel-wise models (at least {needed} are needed): this model has none, and --paradigm voxel does not work with it."
BAD_CHECKPOINT = "{path}: cannot be resumed ({reason}). Train without --resume."
RESUME_DIFFERS = "{path}: was made with {name} {old}, not {new}. Use the same settings and controls, or train without --resume."
GPU_BRAIN = "{path}: {device} has not memory enough to find the brain: the CPU did it. Use fewer --nprocs, or --device cpu."
TRAINING_REPORT_FAILED = "The training report could not be written ({reason}); training goes on."
TRAINING_DIVERGED = "Training diverged in epoch {epoch}: the loss is {loss}. Check the controls' preprocessing, or try another --random-seed."
TOO_FEW_VOXELS = "{what}: {n} usable voxels are too few (at least {needed} are needed). Check the brain mask."
BAD_LATENTS = "Latents cannot be used: {reason}. Check the preprocessed images and the model."
TOO_LITTLE_MEMORY = "{where}: needs about {need:.1f} GiB ({voxels:.1f} million voxels), and {limit:.1f} GiB {source}. Give the job more memory, or run it where there is more."
WORKER_KILLED = "A worker process was killed while it worked on this session, most likely because memory ran out. Give the job more memory, or use a smaller --nprocs, and run it again."
STOPPED_EARLY = "Not finished: --stop-on-first-crash, and another session failed. Run it again."
BUSY = "{where}: another process works on it ({pid} on {host}). Nothing was changed; run it again when that one has ended (where it was killed on another machine or in another container: {minutes:.0f} minutes later)."
STOPPED = "Stopped by {signal}. What is finished is kept; the same command goes on from there."
LOG_LOST = "bids-wmh-uad: the log cannot be written ({reason}); the run goes on without it.\n"
FOREIGN_DIRECTORY = "{path}: belongs to another user ({owner}), who could have put anything there to be run. Remove it, or choose another --work-dir, such as a directory that is not there yet."
OPEN_DIRECTORY = "{path}: others may write there (mode {mode}), and put anything there to be run. Choose another --work-dir, such as a directory that is not there yet; or run 'chmod -R go-w {path}', if you trust all that is in it."
LINK_OUTSIDE = "{path}: a link that leads out of the work directory (to {target}). Remove it, or choose another --work-dir."
UNSIGNED_PICKLE = "{path}: not written by this program. Somebody writes into the work directory: choose another --work-dir, in a directory where only you can write."
NOT_FINISHED = (
    "{where}: not finished, and no step of it failed ({reason}). The log is in {log_dir}; please report it."
)
ONE_SESSION = "{where}: {n} finished session, and change needs two. Nothing to compare."
CHANGE_FAILED = "{where}: what changed between its sessions could not be told ({reason}). The sessions' own results are not affected."
SESSION_CRASHED = "{node}: {reason}. The crash file is {crashfile}; please report it with the log."


@dataclass(frozen=True)
class SessionWarning:
    """What people should know of a session that is done.

    Attributes
    ----------
    code : str
        What programs know it by: the name of its `WarningText`.
    text : str
        For people, in the summary and on the page.
    """

    code: str
    text: str


@dataclass(frozen=True)
class WarningText:
    """The text of a warning, with places for its numbers."""

    code: str
    template: str

    def format(self, **values: object) -> SessionWarning:
        """Fill the places."""
        return SessionWarning(self.code, self.template.format(**values))


# Warnings about a session that is done
SPECIAL_SCAN = WarningText(
    "SPECIAL_SCAN",
    "The {contrast} is no ordinary one, as {parts} in {name} says: a contrast agent, an inversion, an echo or a processing step can hide lesions or imitate them. Choose another with --bids-filter-file if the session has one.",
)
GUESSED_SIDES = WarningText(
    "GUESSED_SIDES",
    "The {contrast}'s header does not say which side is left (qform_code and sform_code are 0): voxel sizes were used, and left and right are a guess. Check them before you use anything that depends on the side.",
)
FORMS_DISAGREE = WarningText(
    "FORMS_DISAGREE",
    "The {contrast}'s header places its voxels in two ways, up to {value:.1f} mm apart: the {used} was used in every step, not the {other}. Check that it is the right one.",
)
OTHER_UNIT = WarningText(
    "OTHER_UNIT",
    "The {contrast}'s header gives lengths in {unit}: they were converted, and all outputs are in millimetres.",
)
SHIFTED = WarningText(
    "SHIFTED",
    "The {contrast}'s background is not its lowest value: it was set to 0 and {value:.6g} added to everything else. The preprocessed image has these values.",
)
LOW_OVERLAP = WarningText(
    "LOW_OVERLAP",
    "T1w and FLAIR brain masks agree poorly after registration (Dice {value:.2f}, expected {limit:.2f} or more): check the brain mask and the registration.",
)
POOR_ALIGNMENT = WarningText(
    "POOR_ALIGNMENT",
    "T1w and FLAIR hardly depend on each other voxel by voxel (correlation ratio {value:.2f}, usual 0.5-0.7): the registration failed, or they are not of the same head. Do not use the numbers before you have looked.",
)
SAME_CONTRAST = WarningText(
    "SAME_CONTRAST",
    "T1w and FLAIR look like the same contrast (correlation {value:.2f}): check that neither file is a copy of the other.",
)
FLUID_CONTRAST = WarningText(
    "FLUID_CONTRAST",
    "What is dark on the T1w is bright on the FLAIR (correlation {value:.2f}): is it a T2w, or inverted?",
)
FLAIR_CONTRAST = WarningText(
    "FLAIR_CONTRAST",
    "Grey matter is darker than white matter on the FLAIR ({value:.2f} times as bright): is it a T1w, or are the two files swapped or inverted?",
)
T1W_CONTRAST = WarningText(
    "T1W_CONTRAST",
    "Grey matter is not darker than white matter on the T1w ({value:.2f} times as bright): is it a FLAIR or T2w, or are the two files swapped or inverted?",
)
POOR_TEMPLATE = WarningText(
    "POOR_TEMPLATE",
    "The T1w hardly resembles the template after registration (correlation {value:.2f}, usual 0.35-0.75): check its orientation and the alignment on the page.",
)
ODD_SCALE = WarningText(
    "ODD_SCALE",
    "The registration to the template changes lengths by a factor of {value:.2f}: check the voxel sizes in the header, and that the whole brain was scanned.",
)
CUT_BRAIN = WarningText(
    "CUT_BRAIN",
    "The field of view cuts through the brain (at one face over {percent:.0f} % of its cross-section): volumes are too small.",
)
EMPTY_BRAIN = WarningText(
    "EMPTY_BRAIN",
    "{percent:.0f} % of the brain is exactly 0 on the {contrast}: slices are missing, or part of the brain was cut away.",
)
ODD_VOLUME = WarningText(
    "ODD_VOLUME",
    "The brain mask holds {value:.0f} mL, and heads hold 800-2400: check the voxel sizes in the header and the brain mask.",
)
NOISY = WarningText(
    "NOISY",
    "The {contrast} is very noisy (noise {value:.2f} of white matter's brightness, usual below 0.1): small lesions cannot be told.",
)
THICK_SLICES = WarningText(
    "THICK_SLICES", "Voxels are {value:.1f} mm thick: small lesions are lost, and volumes are rough."
)
NO_VENTRICLES = WarningText(
    "NO_VENTRICLES",
    "The ventricles were not found in the scan: regions and distances are the template's. Check contrasts and alignment with the template on the page.",
)
UNCOVERED = WarningText(
    "UNCOVERED",
    "{percent:.1f} % of the brain has no voxel-wise model: there the latent score says nothing. Check the registration to the template.",
)
GPU_SLABS = WarningText(
    "GPU_SLABS",
    "{device} ran short of memory: it worked on {slices} axial slices at a time. The result is the same.",
)
GPU_MEMORY = WarningText(
    "GPU_MEMORY",
    "{device} ran out of memory after {done} of {depth} axial slices: the CPU computed the others. Use a GPU with more free memory, or --device cpu.",
)
UNSTABLE_VOLUME = WarningText(
    "UNSTABLE_VOLUME",
    "The lesion volume hangs on the threshold: {high:.2f} mL at 0.8, {low:.2f} mL at 1.2 times it. Look at the lesions before using the volume, and report its interval.",
)
OTHER_SCANNER = WarningText(
    "OTHER_SCANNER",
    "{before} and {after} were scanned differently ({what}): contrast and distortion can look like change. Look at both scans before you use what changed.",
)
OTHER_VOXELS = WarningText(
    "OTHER_VOXELS",
    "{before} and {after} have other voxel sizes (FLAIR {first} and {second} mm): small lesions can be in one and not in the other, and volumes differ.",
)
SESSIONS_APART = WarningText(
    "SESSIONS_APART",
    "{before} and {after} agree poorly after registration (correlation of FLAIR {value:.2f}, usual above {limit:.2f}): check that they are of the same head, and do not use what changed before you have looked.",
)
OTHER_SIZE = WarningText(
    "OTHER_SIZE",
    "{before} and {after} show the head in sizes that differ by {percent:.1f} % (scanners calibrated otherwise, or scans that were brought to a template): the sessions were aligned with affine motions, which take out true growth or atrophy of the whole brain as well. Volumes are those of a head of mean size.",
)
HIGH_LOAD = WarningText(
    "HIGH_LOAD",
    "{percent:.1f} % of the brain was marked as lesion: at such loads lesions can be taken for normal tissue. Look at the anomaly map before using the volume.",
)


class WmhUadError(Exception):
    """Base of all errors that users are meant to read.

    Parameters
    ----------
    message : str
        Names the file or option and the remedy.

    Examples
    --------
    >>> from bids_wmh_uad import WmhUadError, load_model
    >>> try:
    ...     load_model("no-such-model")
    ... except WmhUadError as error:
    ...     print(type(error).__name__, error.exit_code)
    ModelError 65
    """

    exit_code = 1


class SessionError(WmhUadError):
    """A session failed for a reason that no other type names (exit code 1)."""


class UsageError(WmhUadError):
    """The command line is wrong (exit code 64)."""

    exit_code = 64


class InvalidBIDSError(WmhUadError):
    """The input is not a BIDS dataset (exit code 16)."""

    exit_code = 16


class UnknownLevelError(UsageError):
    """The analysis level does not exist (exit code 17)."""

    exit_code = 17


class EmptySelectionError(WmhUadError):
    """The selection matched nothing (exit code 18)."""

    exit_code = 18


class BadDataError(WmhUadError):
    """A file's content cannot be used (exit code 65)."""

    exit_code = 65


class BadImageError(BadDataError):
    """An image cannot be used: unreadable, empty, 4D, or without a brain."""


class GridMismatchError(BadDataError):
    """Two images that must share a grid do not."""


class ModelError(BadDataError):
    """A model directory is unknown, corrupt or does not fit."""


class LatentsError(BadDataError, ValueError):
    """Latents cannot be used: empty, NaN or infinite. A ValueError too, as scikit-learn's contract asks."""


class TrainingError(BadDataError):
    """Training cannot go on."""


class MissingInputError(WmhUadError):
    """A file or directory that should be there is not (exit code 66)."""

    exit_code = 66


class CannotCreateError(WmhUadError):
    """An output file or directory cannot be created (exit code 73)."""

    exit_code = 73


class StorageError(WmhUadError):
    """Reading or writing failed midway (exit code 74)."""

    exit_code = 74


class TemporaryError(WmhUadError):
    """Try again later (exit code 75): a resource was not available."""

    exit_code = 75


class BusyError(TemporaryError):
    """Another process works on the same session, cohort or model."""


class UntrustedDirectoryError(CannotCreateError):
    """A work directory that others could have written to."""


class WorkerKilledError(TemporaryError):
    """A worker process died before it answered."""


class Stopped(BaseException):
    """A signal asked the program to stop; no error, and not to be taken for one (exit code 128 and the signal's number).

    Parameters
    ----------
    signum : int
    name : str
        Of the signal.
    """

    def __init__(self, signum: int, name: str) -> None:
        super().__init__(STOPPED.format(signal=name))
        self.exit_code = 128 + signum


class MemoryExhaustedError(TemporaryError):
    """Memory ran out, or would."""
