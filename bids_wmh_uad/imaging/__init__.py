"""Adapters of ANTs, deepbet and nilearn: images in, images out; no nipype, no BIDS names.

Chosen and measured in ``docs/preprocessing.md``. Working files are canonical (RAS), float32,
uncompressed NIfTI with qform equal to sform, so that nibabel and ITK agree on the grid. Heavy
packages are imported inside the functions: a graph is built without them.
"""
