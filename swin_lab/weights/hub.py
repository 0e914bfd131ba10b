"""Fetches weights from the Hugging Face hub by their id, OWNER/NAME."""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from swin_lab.errors import UserError
from swin_lab.weights.files import SUFFIXES, TRANSFORMERS_FILES

FILE_SUFFIXES = (*SUFFIXES, ".onnx", ".npz", ".npy", ".pkl", ".pickle", ".zip", ".gz", ".json", ".yaml", ".h5")
"""Suffixes of files, in lower case, which no id has."""

SIDECARS = ("config.json", "preprocessor_config.json")
TIMEOUT_S = 8
MAX_ID_LENGTH = 96
"""The hub's limit of the length of OWNER/NAME."""


def is_hub_id(given: str) -> bool:
    """Returns whether a string may be the id of a model: OWNER/NAME, without the suffix of a file.

    A path that exists, or whose folder exists, is none.
    """
    if len(given) > MAX_ID_LENGTH or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", given) is None:
        return False
    path = Path(given)
    return path.suffix.lower() not in FILE_SUFFIXES and not path.exists() and not path.parent.is_dir()


def fetch(hub_id: str) -> Path:
    """Returns the folder in the hub's cache with weights and configuration of a model, downloaded if necessary.

    Raises:
        UserError: the hub cannot be reached, or the model does not exist or contains no weights; the message says which file to
            place where.
    """
    try:
        listed = {file.rfilename for file in HfApi().model_info(hub_id, timeout=TIMEOUT_S).siblings or ()}
        weights = next((name for name in TRANSFORMERS_FILES if name in listed), None)
        if weights is not None:
            fetched = [hf_hub_download(hub_id, name) for name in (weights, *SIDECARS) if name in listed]
            return Path(fetched[0]).parent
        reason = f"it contains neither {' nor '.join(TRANSFORMERS_FILES)}"
    except GatedRepoError:  # must precede its base class RepositoryNotFoundError
        reason = "the model is gated; request access on its page and run 'hf auth login'"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, and the path does not exist"
    except Exception as error:  # Network errors are of the classes of whatever library the hub's client uses.
        cached = [try_to_load_from_cache(hub_id, name) for name in TRANSFORMERS_FILES]
        for path in cached:
            if isinstance(path, str):
                return Path(path).parent
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f"{hub_id} cannot be fetched from the hub: {reason}.\n"
        f"On a machine with a network, download {TRANSFORMERS_FILES[0]} and config.json of {constants.ENDPOINT}/{hub_id},\n"
        "place them in one folder, and give the folder instead of the id."
    )
