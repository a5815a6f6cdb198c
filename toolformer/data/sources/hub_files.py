"""In: a folder, the id of a data set on the Hugging Face hub, the name of a file. Out: the rows of that JSON file.

A file that the folder lacks is fetched from the hub into the hub's own cache, and read from there when it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolformer.data.sources.files import read_list


def read_rows(folder: Path, hub: str, name: str) -> list[Any]:
    """The rows of ``name``, a list in JSON.

    Raises:
        FileNotFoundError: it is neither in the folder nor to be had from the hub; says how to get it.
        ValueError: it is broken as a whole.
    """
    local = folder / name
    here = local.is_file() or local.with_name(f"{name}.gz").is_file()
    return read_list(local if here else _fetched(folder, hub, name))


def _fetched(folder: Path, hub: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError

    where = f"{folder / name}: there is no such file, and {hub} on the hub"
    page = f"https://huggingface.co/datasets/{hub}"
    try:
        return Path(hf_hub_download(hub, name, repo_type="dataset"))
    except GatedRepoError as error:
        remedy = f"accept the terms on {page}, then run `hf auth login`"
        raise FileNotFoundError(f"{where} is gated: {remedy}") from error
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        remedy = f"download {name} from {page} into {folder}; accept its terms if it has any and run `hf auth login`"
        raise FileNotFoundError(f"{where} cannot be reached ({type(error).__name__}): {remedy}") from error
