"""The checker of annotations that jaxtyping's import hook calls (tests/conftest.py)."""

from beartype import BeartypeConf, beartype

# An int where a float is annotated is right (PEP 484).
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
