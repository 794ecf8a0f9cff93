"""Rows of causal texts side by side, with what is known of their answers; for tests of losses."""

import numpy as np

from glm_jax.batch import ANSWER, Batch, empty_fields


def rows_of(segments, length, kind=Batch, **fields):
    """A `kind` of batch with a row for each list of (ids, where the answer begins).

    Args:
      segments: of each row; an empty list is a row of padding.
      length: T.
      kind: a class of batches.
      **fields: further fields, by row and segment the values of the answer's tokens, or one number.
    """
    made = empty_fields((len(segments), length), 0)
    extra = {name: np.zeros((len(segments), length), np.float32) for name in fields}
    for row, parts in enumerate(segments):
        start = 0
        for part, (ids, answer) in enumerate(parts):
            size = len(ids) - 1
            here = (row, slice(start, start + size))
            made["tokens"][here], made["targets"][here] = ids[:-1], ids[1:]
            learnt = np.arange(size) >= answer - 1
            made["loss_weights"][here], made["objective"][here] = learnt, ANSWER * learnt
            made["positions"][here] = np.arange(size)
            made["attend_start"][here] = start
            made["attend_end"][here] = start + 1 + np.arange(size)
            for name, values in fields.items():
                extra[name][here][learnt] = values[row][part]
            start += size
    return kind(**made, **extra)
