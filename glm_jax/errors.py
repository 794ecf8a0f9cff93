"""The error a user can mend, and the nearest legal spelling to offer with it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave that cannot be used: named, with what was got and what is allowed.

    Commands end on it with its sentence and status 2. Any other exception is a bug of ours and
    keeps its traceback.
    """


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the nearest allowed name, or the empty string.

    >>> did_you_mean("num_layer", ["num_layers", "num_heads"])
    " (did you mean 'num_layers'?)"
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
