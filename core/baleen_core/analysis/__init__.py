"""Whether a candidate differs from what is stable: counts in, intervals that hold at every look and a verdict out."""
