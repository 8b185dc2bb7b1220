"""One-Class SVMs: the estimator, and one solver for one model or for thousands side by side."""
