"""The classes of ImageNet-1k and of Swin's 22k heads, in the order of the rows of a head.

WordNet ids and words come from timm's lists. The 22k heads are indexed by the sorted list of 21,843 synsets, of which two
have no images; their rows are used for the last two synsets instead. Lists that omit the two (transformers' published labels,
timm's imagenet22k_synsets.txt) name wrong classes from row 9205.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timm.data.imagenet_info import ImageNetInfo

ROWS_1K, ROWS_22K = 1000, 21841
WITHOUT_IMAGES = {9205: 21841, 15027: 21842}
"""Row of the head -> index in the sorted list of the synset that uses the row."""

TEDDY, TEDDY_ROW = "n04399382", 5564
"""The only class of 1k that is not in the list, and its row in the published map (n03013580, chemise or teddy)."""


@cache
def wordnet_ids(rows: int) -> tuple[str, ...] | None:
    """Returns the WordNet ids of a head with 1,000 or 21,841 rows, in order. For any other number of rows, returns None."""
    if rows == ROWS_1K:
        return tuple(_info("imagenet-1k").label_names())
    if rows == ROWS_22K:
        synsets = _info("imagenet-21k-goog").label_names()
        return tuple(synsets[WITHOUT_IMAGES.get(row, row)] for row in range(ROWS_22K))
    return None


@cache
def rows_of_1k_in_22k() -> tuple[int, ...]:
    """Returns for every class of ImageNet-1k its row in a 22k head: the published map22kto1k."""
    row_of = {synset: row for row, synset in enumerate(_info("imagenet-21k-goog").label_names())}
    return tuple(TEDDY_ROW if synset == TEDDY else row_of[synset] for synset in wordnet_ids(ROWS_1K) or ())


@cache
def words(wordnet_id: str) -> str:
    """Returns the words of a class, such as "tench, Tinca tinca". If the lists do not contain the id, returns the id."""
    return str(_descriptions().get(wordnet_id, wordnet_id))


@cache
def _descriptions() -> dict[str, str]:
    described: dict[str, str] = {}
    for subset in ("imagenet-21k-goog", "imagenet-1k"):
        info = _info(subset)
        described |= dict(zip(info.label_names(), info.label_descriptions(), strict=True))
    return described


def _info(subset: str) -> "ImageNetInfo":
    from timm.data.imagenet_info import ImageNetInfo  # timm takes seconds to import

    return ImageNetInfo(subset)
