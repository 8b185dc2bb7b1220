"""The siamese patch auto-encoder: patches, training, and latents of patches and volumes."""
