"""Access to the Hugging Face hub, for libraries that fetch models from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

TIMEOUT_S = 5


@contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """Lets the hub's client use only its cache if the hub cannot be reached.

    Otherwise the client tries five times for each file, which takes half a minute and prints a warning each time.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # Network errors are of the classes of whatever library the hub's client uses.
        return False
    return True
