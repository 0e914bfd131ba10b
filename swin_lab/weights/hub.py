"""Weights on the Hugging Face hub, by their id: OWNER/NAME."""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from swin_lab.errors import UserError
from swin_lab.weights.files import TRANSFORMERS_FILES

BESIDE = ("config.json", "preprocessor_config.json")
PATIENCE_S = 10


def is_hub_id(given: str) -> bool:
    """Whether it may be the id of a model: two words with one slash between them, and no such file."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", given) is not None and not Path(given).exists()


def fetch(hub_id: str) -> Path:
    """The folder in the hub's cache with weights and configuration of a model, downloaded if need be.

    Raises:
        UserError: there is no network, no such model, or it holds no weights; says which file to place where.
    """
    try:
        listed = {file.rfilename for file in HfApi().model_info(hub_id, timeout=PATIENCE_S).siblings or ()}
        weights = next((name for name in TRANSFORMERS_FILES if name in listed), None)
        if weights is not None:
            fetched = [hf_hub_download(hub_id, name) for name in (weights, *BESIDE) if name in listed]
            return Path(fetched[0]).parent
        reason = f"it holds neither {' nor '.join(TRANSFORMERS_FILES)}"
    except GatedRepoError:  # before its base class
        reason = "its owner asks for a login; run 'hf auth login'"
    except RepositoryNotFoundError:
        reason = "there is no such model, and no such file or folder here"
    except Exception as error:  # of the network, in the classes of whatever library the hub's client uses
        cached = [try_to_load_from_cache(hub_id, name) for name in TRANSFORMERS_FILES]
        for path in cached:
            if isinstance(path, str):
                return Path(path).parent
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f"{hub_id} cannot be fetched from the hub: {reason}.\n"
        f"Where there is a network, download {TRANSFORMERS_FILES[0]} and config.json of {constants.ENDPOINT}/{hub_id},\n"
        "place them in one folder, and give the folder instead of the id."
    )
