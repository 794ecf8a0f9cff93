"""The record of the data that a run trains on, so that a change of it does not go unnoticed.

    WORKDIR/data.json   {"sources": {"": {"fingerprint": "9b1d..", "rate": 1.0, "made_from": {..}}},
                         "tokenizer": "e1a5..",
                         "changes": [{"after_step": 400, "what": "file 'my/a.txt' has changed",
                                      "fingerprints": {"": "77c0.."}}]}

`changes` lists the accepted changes, each with the fingerprints from before it, since checkpoints
carry the fingerprints they were trained on. Runs of older versions have no such file.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from glm_jax.data.identity import Identity, difference, fingerprints
from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.interop.companions import TOKENIZER_FILES
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.tokenizer import load_tokenizer

NAME = "data.json"
_ACCEPT = "--accept_data_change (train.accept_data_change=True)"


def read_data(workdir: Path) -> JsonObject | None:
    """The record of a workdir; None if there is none (a new workdir, or one of an older version).

    Raises:
      UserError: the file is not such a record.
    """
    path = workdir / NAME
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fingerprints(record["sources"])
        str(record["tokenizer"])
        for change in record["changes"]:
            dict(change["fingerprints"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is not the record of a run's data ({type(error).__name__}: {error}); "
            "remove it, and what is there now is taken for the data of the run"
        ) from error
    return record


def check_data(workdir: Path, data: Identity, tokenizer: Tokenizer, accept: bool) -> str | None:
    """Refuses data or a tokenizer that differ from those of the run.

    Args:
      workdir: of the run.
      data: of this start.
      tokenizer: of this start.
      accept: `train.accept_data_change`.

    Returns:
      The accepted change, in half a sentence; None if nothing has changed.

    Raises:
      UserError: something differs and `accept` is False; names what differs.
    """
    record = read_data(workdir)
    if record is None:
        what = _other_copy(workdir, tokenizer)
        if what is None and (workdir / "run.json").is_file():
            print(
                f"warning: {str(workdir)!r} has no record of its data ({NAME}), as runs of older "
                "versions; what there is now is taken for it",
                file=sys.stderr,
            )
    else:
        what = difference(record["sources"], data)
        if what is None and record["tokenizer"] != tokenizer.fingerprint:
            what = "data.tokenizer is another"
    if what is not None and not accept:
        raise UserError(
            f"the data of the workdir {str(workdir)!r} has changed: {what}; give the run its data "
            f"again, use another workdir, or go on with what there is now by {_ACCEPT}"
        )
    return what


def _other_copy(workdir: Path, tokenizer: Tokenizer) -> str | None:
    """What differs from a run without a record: its tokenizer, or None."""
    kept = kept_tokenizer(workdir)
    if kept is None or kept.fingerprint == tokenizer.fingerprint:
        return None
    return "data.tokenizer is not the tokenizer that the workdir holds"


def kept_tokenizer(workdir: Path) -> Tokenizer | None:
    """The tokenizer in a workdir; None if there is none or it cannot be read."""
    with contextlib.suppress(UserError, OSError):
        return load_tokenizer(workdir)
    return None


def check_kept(workdir: Path, tokenizer: Tokenizer) -> None:
    """Refuses the tokenizer in a workdir if it is not that of the run.

    Raises:
      UserError: it was replaced.
    """
    record = None
    with contextlib.suppress(UserError):  # a damaged record says nothing
        record = read_data(workdir)
    if record is not None and record["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"the tokenizer in {str(workdir)!r} is not the one that the run was trained with; "
            "train puts it back when the run goes on"
        )


def change_since(workdir: Path, data: Identity) -> str | None:
    """Describes what differs from the data of a run, in half a sentence; None if nothing does.

    Raises:
      UserError: as `read_data`.
    """
    record = read_data(workdir)
    return None if record is None else difference(record["sources"], data)


def keep_tokenizer(workdir: Path, tokenizer: Tokenizer) -> None:
    """Writes the tokenizer of a run, unless the workdir holds it already."""
    kept = kept_tokenizer(workdir)
    if kept is None or kept.fingerprint != tokenizer.fingerprint:
        # The files of another kind of tokenizer might be read first.
        for name in TOKENIZER_FILES:
            (workdir / name).unlink(missing_ok=True)
        tokenizer.save(workdir)


def check_checkpoint(
    workdir: Path, saved: Mapping[str, str] | None, data: Identity, accept: bool
) -> None:
    """Refuses a checkpoint that was trained on data that the run never had.

    Args:
      workdir: of the run.
      saved: the fingerprints that the checkpoint carries; None for one of an older version.
      data: of this start.
      accept: `train.accept_data_change`.

    Raises:
      UserError: `saved` is neither this data nor data that an accepted change replaced.
    """
    record = read_data(workdir)
    changes = record["changes"] if record else []
    known = [fingerprints(data), *(change["fingerprints"] for change in changes)]
    if saved and data and dict(saved) not in known and not accept:
        raise UserError(
            f"the checkpoint of the workdir {str(workdir)!r} was trained on other data than what "
            f"there is now; use another workdir, or go on by {_ACCEPT}"
        )


def record_data(
    workdir: Path, data: Identity, tokenizer: Tokenizer, step: int, change: str | None
) -> None:
    """Writes the record if there is none, or if a change was accepted.

    Args:
      workdir: of the run.
      data, tokenizer: of this start.
      step: the step from which this start continues.
      change: what `check_data` returned.
    """
    record = read_data(workdir)
    if record is not None and change is None:
        return
    changes = [] if record is None else record["changes"]
    if change is not None:
        before = {} if record is None else fingerprints(record["sources"])
        changes = [*changes, {"after_step": step, "what": change, "fingerprints": before}]
    content = {"sources": data, "tokenizer": tokenizer.fingerprint, "changes": changes}
    write_whole(workdir / NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
