"""From an anomaly map to lesions: threshold, components, where they lie."""
