"""What to do when memory, the machine's or a GPU's, does not hold a batch: halve it, say so, and go on."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def halve_on_overflow(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    join: Callable[[Result, Result], Result],
    what: str,
) -> Result:
    """`work(items)`; where memory does not hold them, that of each half, and so on down to one item.

    An item's result may not depend on the others. what: the items' name in the warning that is logged.

    Raises:
        MemoryError, torch.OutOfMemoryError: memory does not hold one item alone.
    """
    try:
        return work(items)
    except Exception as error:
        if len(items) < 2 or not ran_out_of_memory(error):
            raise
    # After the handler, not in it: the error's frames hold what filled the memory.
    free_memory()
    middle = len(items) // 2
    log.warning("memory did not hold %d %s at once; they are halved", len(items), what)
    first = halve_on_overflow(work, items[:middle], join, what)
    return join(first, halve_on_overflow(work, items[middle:], join, what))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not hold something."""
    torch = sys.modules.get("torch")  # where it was never imported, the error is none of its
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def free_memory() -> None:
    """Give back what is no longer used, on a GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
