"""Weights on the Hugging Face hub, by their id: OWNER/NAME."""

import re
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from swin_lab.errors import UserError
from swin_lab.weights.files import TRANSFORMERS_FILES

BESIDE = ("config.json", "preprocessor_config.json")


def is_hub_id(given: str) -> bool:
    """Whether it may be the id of a model: two words with one slash between them, and no such file."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", given) is not None and not Path(given).exists()


def fetch(hub_id: str) -> Path:
    """The folder in the hub's cache with weights and configuration of a model, downloaded if need be.

    Raises:
        UserError: there is no network, no such model, or it holds no weights; says which file to place where.
    """
    reason = "it holds neither " + " nor ".join(TRANSFORMERS_FILES)
    for name in TRANSFORMERS_FILES:
        try:
            weights = Path(hf_hub_download(hub_id, name))
        except LocalEntryNotFoundError:
            reason = "the hub cannot be reached and the file is not in the cache"
        except EntryNotFoundError:
            continue
        except GatedRepoError:
            reason = "its owner asks for a login; run 'hf auth login'"
        except RepositoryNotFoundError:
            reason = "there is no such model, and no such file or folder here"
        except Exception as error:  # of the network, in the classes of whatever library the hub's client uses
            reason = (str(error) or type(error).__name__).splitlines()[0]
        else:
            _fetch_beside(hub_id)
            return weights.parent
        break
    raise UserError(
        f"{hub_id} cannot be fetched from the hub: {reason}.\n"
        f"Where there is a network, download {TRANSFORMERS_FILES[0]} and config.json of "
        f"{constants.ENDPOINT}/{hub_id}, place them in one folder, and give the folder instead of the id."
    )


def _fetch_beside(hub_id: str) -> None:
    for name in BESIDE:
        try:
            hf_hub_download(hub_id, name)
        except (EntryNotFoundError, OSError):  # the weights tell what these would, or say that they do not
            continue
