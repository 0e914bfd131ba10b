"""Random numbers of many images at once, each from the stream of its own image."""

import numpy as np

_INCREMENT = 0x9E3779B97F4A7C15
_WORDS = 2**64


class Draws:
    """Draws numbers for a batch; those of an image depend on (seed, epoch, image, copy), not on the rest of the batch.

    The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): its n-th
    number is a hash of the start of the stream and n, so that a batch is drawn without a loop over its images.

    Args:
        seed: seed of the run, or one that differs for another purpose.
        epochs: the epoch, or (B,) that of each image.
        images: (B,) indices of the images.
        copies: (B,) number of the copy of each image within the epoch.
    """

    def __init__(self, seed: int, epochs: int | np.ndarray, images: np.ndarray, copies: np.ndarray) -> None:
        stream_B = np.zeros(len(images), dtype=np.uint64)
        for part in (seed % _WORDS, epochs, images, copies):
            stream_B = _hashed(_hashed(stream_B ^ np.asarray(part).astype(np.uint64)) + np.uint64(_INCREMENT))
        self._stream_B = stream_B
        self._drawn = 0

    def uniform(self) -> np.ndarray:
        """Returns the next number of each image from 0 to 1, without 1, (B,) of float64."""
        self._drawn += 1
        words_B = _hashed(self._stream_B + np.uint64(self._drawn * _INCREMENT % _WORDS))
        return (words_B >> np.uint64(11)) * 2.0**-53

    def integers(self, count: int | np.ndarray) -> np.ndarray:
        """Returns the next integer of each image from 0 to `count`, without it, (B,) of int64."""
        return (self.uniform() * count).astype(np.int64)


def _hashed(words: np.ndarray) -> np.ndarray:
    """Returns the output function of SplitMix64, a bijection of 64 bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
