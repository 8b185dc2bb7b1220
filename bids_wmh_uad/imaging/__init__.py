"""Adapters of ANTs, deepbet and nilearn: images in, images out."""
