"""Special ids that a user gives, or that the checkpoint's tokenizer knows."""

from typing import Any

from glm_jax.errors import UserError


def given(name: str, value: Any, default: Any) -> Any:
    """The value, or the default where it is None.

    Raises:
      UserError: both are None; names the argument.
    """
    if value is None and default is None:
        raise UserError(
            f"the checkpoint has no tokenizer that would say which ids are special; give {name}="
        )
    return default if value is None else value
