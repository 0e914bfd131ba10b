"""Small data sets are decoded once and cached in memory."""

import numpy as np

from swin_lab.data.decoding import UNREADABLE, Decoder, decode
from swin_lab.data.images import ArrayImages, ImageSet
from swin_lab.errors import UserError


class CachedImages(ArrayImages):
    """Contains decoded images in memory, with the labels and names of the set that they were read from.

    Args:
        images: (N, H, W, 3) of uint8, RGB.
        origin: the set that they were decoded from.
    """

    def __init__(self, images: np.ndarray, origin: ImageSet) -> None:
        super().__init__(images, np.asarray(origin.labels), "")
        self.uncached = origin

    def name(self, index: int) -> str:
        """Returns the name that the image has in the set it was read from."""
        return self.uncached.name(index)


def cached_in_memory(images: ImageSet, max_mib: int, decode: Decoder = decode) -> ImageSet:
    """Decodes a set into memory, if all images have the same size, can be decoded and fit into the limit.

    Args:
        images: any set.
        max_mib: limit in MiB of the decoded images; 0 caches nothing.
        decode: the decoder.

    Returns:
        The cached set, or `images` itself if it cannot be cached or is in memory already.

    Raises:
        UserError: the set does not fit into memory, or an item of a map-style dataset is no image.
    """
    count = len(images.labels)
    if count == 0 or isinstance(images, ArrayImages):
        return images
    try:
        first = decode(images.encoded(0))
        if count * first.width * first.height * 3 > max_mib * 2**20:
            return images
        try:
            pixels_NHWC = np.empty((count, first.height, first.width, 3), dtype=np.uint8)
        except MemoryError as error:
            raise UserError(f"data.cache_mib={max_mib}: {count:,} images do not fit into memory; lower it") from error
        for index in range(count):
            image = decode(images.encoded(index))
            if image.size != first.size:
                return images
            pixels_NHWC[index] = np.asarray(image)
    except UserError:
        raise
    except UNREADABLE:  # the image is reported when it is loaded for a batch
        return images
    return CachedImages(pixels_NHWC, images)
