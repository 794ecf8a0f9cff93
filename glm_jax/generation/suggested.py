"""How a model's publisher would choose ids: the options in its generation_config.json."""

from glm_jax.interop.origin import Origin

_NAMES = ("temperature", "top_k", "top_p")


def suggested(origin: Origin) -> dict[str, float]:
    """The options of sampling that a checkpoint suggests; {} where it does not sample.

    {"do_sample": true, "temperature": 0.8, "top_p": 0.8}    {"temperature": 0.8, "top_p": 0.8}
    """
    values = origin.generation
    names = _NAMES if values.get("do_sample") is True else ()
    found = {name: values.get(name) for name in names}
    return {n: v for n, v in found.items() if isinstance(v, int | float) and v is not True}
