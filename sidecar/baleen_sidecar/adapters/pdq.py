"""PDQ, Facebook's perceptual hash of pictures: 256 bits, of which look-alikes differ in few (31 is the usual bound)."""

import numpy as np
import pdqhash
from PIL import Image

LONG_SIDE = 512
"""Pixels to which a picture is shrunk first, as the reference implementation does: hashing costs time by the pixel."""


class PdqHash:
    """Hashes pictures; safe to use from several threads."""

    def hash(self, picture: Image.Image) -> bytes:
        """Return 256 bits of PDQ."""
        return pdq_hash(picture)


def pdq_hash(picture: Image.Image) -> bytes:
    """Return the PDQ hash of an RGB picture as 32 bytes, the first bit foremost, as lists of hashes write it."""
    small = picture.copy()
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    bits, _quality = pdqhash.compute(np.asarray(small))
    return np.packbits(bits.astype(np.uint8)).tobytes()
