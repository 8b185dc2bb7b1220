"""Images: grids, intensities, and whether two scans are what they should be."""
