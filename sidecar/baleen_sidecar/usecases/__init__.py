"""One file, one verb. They await ports in a fixed order; what they decide, core decides."""
