"""The anomaly map of a scan: how bright, how unusual, and both together."""
