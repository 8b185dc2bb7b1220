"""The pictures of the pages: brain slices, charts, the prevalence map."""
