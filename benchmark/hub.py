"""Asking the model hub once, where libraries ask again and again."""

from __future__ import annotations

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

#: Seconds to wait for the hub's answer.
TIMEOUT = 10.0


def hub_answers(name: str, revision: str | None = None) -> bool:
    """Whether the hub says anything of a repository, be it that there is none: one request, without retries.

    Where it does not, only the local cache can have the files: `local_files_only=True` then fails, or succeeds, at
    once. Without, transformers asks for each file six times over half a minute.
    """
    try:
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT)
    except (HfHubHTTPError, ValueError):  # it answered, or the name cannot be one: whoever fetches says so
        return True
    except Exception:  # what a connection that fails raises hangs on the client's version
        return False
    return True
