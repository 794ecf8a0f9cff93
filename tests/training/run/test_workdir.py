import contextlib
import dataclasses
import json
import threading

import pytest

from glm_jax.config import ExamplesConfig, ObjectiveConfig, PublishedOptions, to_dict, to_json
from glm_jax.data.rows import ROW_FORMAT
from glm_jax.errors import UserError
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run import workdir
from glm_jax.training.run.workdir import check_config, check_shared, check_workdir, record_run

VOCAB = 32
RECORD = '{"sources": {}, "tokenizer": "letters", "changes": []}'


def test_a_config_that_fits(config):
    check_config(config, make_mesh(config.mesh), VOCAB)


@pytest.mark.parametrize(
    ("name", "value", "vocab_size", "said"),
    [
        ("model.vocab_size", 31, VOCAB, r"model\.vocab_size .* 32; got 31"),
        ("data.sequence_length", 26, VOCAB, r"model\.max_positions=26 .* got 24"),
    ],
)
def test_tables_that_are_too_small(config, change, name, value, vocab_size, said):
    with pytest.raises(UserError, match=said):
        check_config(change(config, name, value), make_mesh(config.mesh), vocab_size)


def test_the_published_tables_have_one_row_more(config, change):
    """P + 1 rows with block positions, P without: T = 25 fits the first alone."""
    mesh = make_mesh(config.mesh)
    config = change(config, "data.sequence_length", 25)
    check_config(config, mesh, VOCAB)
    with pytest.raises(UserError, match="a table of 24 rows"):
        check_config(change(config, "model.position_encoding", "learned"), mesh, VOCAB)


def test_examples_need_the_positions_of_the_longest_of_them(config, change):
    """T = 40 over a table of 25 rows: examples of 15 + 10 tokens fit, 16 + 10 do not."""
    mesh, rows = make_mesh(config.mesh), change(config, "data.sequence_length", 40)
    rows = change(rows, "data.source", "my/*.jsonl")

    def examples(**options):
        return dataclasses.replace(rows, examples=ExamplesConfig(format="seq2seq", **options))

    check_config(examples(max_source_length=15, max_target_length=10), mesh, VOCAB)
    for options, needed in (
        ({"max_source_length": 16, "max_target_length": 10}, 26),
        ({}, 40),
        ({"max_source_length": 90, "max_target_length": 90}, 40),
        (
            {
                "max_source_length": 15,
                "max_target_length": 10,
                "pretraining_rate": 0.5,
                "pretraining_source": "bundled",
            },
            40,
        ),
    ):
        with pytest.raises(UserError, match=f"needs model.max_positions={needed} for"):
            check_config(examples(**options), mesh, VOCAB)


def test_spans_need_block_positions(config, change):
    """Rotary positions do not tell the tokens of a span apart."""
    mesh = make_mesh(config.mesh)
    config = change(config, "model.position_encoding", "rotary")
    with pytest.raises(UserError, match=r"set objective\.causal_rate=1 .*; got .*=0"):
        check_config(config, mesh, VOCAB)
    causal = ObjectiveConfig(span_rate=0.0, causal_rate=1.0)
    check_config(dataclasses.replace(config, objective=causal), mesh, VOCAB)


@pytest.mark.parametrize(
    ("sizes", "hosts", "said"),
    [
        ({"data": 3, "fsdp": 1}, 1, "6, for 3 devices"),
        ({"data": 1, "fsdp": 1}, 3, "3, for 3 hosts"),
    ],
)
def test_rows_that_cannot_be_shared_evenly(config, change, sizes, hosts, said):
    config = change(change(config, "data.batch_size", 8), "train.accumulation_steps", 2)

    class FakeMesh:
        shape = sizes

    with pytest.raises(UserError, match=f"multiple of {said}"):
        check_config(config, FakeMesh(), VOCAB, hosts)


def test_rows_and_slots_that_cannot_be_shared_evenly(config, change):
    class FakeMesh:
        shape = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 3}  # noqa: RUF012

    with pytest.raises(UserError, match=r"multiple of mesh\.sequence=3; got 16, nearest 15"):
        check_config(change(config, "data.sequence_length", 16), FakeMesh(), VOCAB)
    check_config(change(config, "data.sequence_length", 18), FakeMesh(), VOCAB)


def test_a_run_of_an_older_version_goes_on(tmp_path, config, change):
    """Before there was a section `compute`, its options stood in `model`."""
    record = {"row_format": ROW_FORMAT, **to_dict(config)}
    compute = record.pop("compute")
    record["model"] |= {"compute_dtype": compute.pop("dtype"), **compute}
    tmp_path.joinpath("run.json").write_text(json.dumps(record))
    check_workdir(tmp_path, change(config, "compute.remat", "full"))
    with pytest.raises(UserError, match=r"compute\.dtype was 'float32', is 'bfloat16'"):
        check_workdir(tmp_path, change(config, "compute.dtype", "bfloat16"))


def test_what_may_and_what_may_not_change(tmp_path, config, change):
    workdir = tmp_path / "run"
    check_workdir(workdir, config)
    record_run(workdir, config)
    recorded = json.loads((workdir / "run.json").read_text())
    assert recorded == {"row_format": ROW_FORMAT, **to_dict(config)}
    check_workdir(workdir, config)
    check_workdir(workdir, change(change(config, "train.log_every", 7), "compute.remat", "full"))
    with pytest.raises(UserError, match=r"compute\.dtype was 'float32', is 'bfloat16'"):
        check_workdir(workdir, change(config, "compute.dtype", "bfloat16"))
    other = change(change(config, "model.num_layers", 5), "data.source", "x/*.txt")
    with pytest.raises(UserError, match=r"model\.num_layers was 2, is 5.*'x/\*\.txt'"):
        check_workdir(workdir, other)


@pytest.mark.parametrize("recorded", [None, 1, ROW_FORMAT + 1, "new"])
def test_a_run_does_not_go_on_with_other_rows(tmp_path, config, change, recorded):
    record_run(tmp_path, config)
    record = json.loads((tmp_path / "run.json").read_text())
    if recorded is None:
        del record["row_format"]  # before there was one
    else:
        record["row_format"] = recorded
    (tmp_path / "run.json").write_text(json.dumps(record))
    check_workdir(tmp_path, config)  # nothing was trained yet
    step = tmp_path / "checkpoints" / "4"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    said = rf"format {recorded or 1!r}.* makes format {ROW_FORMAT}.*init_from={tmp_path}"
    with pytest.raises(UserError, match=said):
        check_workdir(tmp_path, config)


@pytest.mark.parametrize(
    ("objective", "refused"),
    [
        (ObjectiveConfig(), True),
        (ObjectiveConfig(span_rate=0.0, sentence_rate=0.5, document_rate=0.5), True),
        (ObjectiveConfig(single_span_rate=1.0), False),
        (ObjectiveConfig(span_rate=0.0, document_rate=1.0), False),
        (ObjectiveConfig(span_rate=0.0, causal_rate=1.0), False),
        (ObjectiveConfig(published=PublishedOptions(loader=True, row_length=40)), False),
    ],
)
def test_rows_that_did_not_change_are_not_refused(tmp_path, config, objective, refused):
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, max_positions=64),
        data=dataclasses.replace(config.data, sequence_length=64),
        objective=objective,
    )
    step = tmp_path / "checkpoints" / "4"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    (tmp_path / "run.json").write_text(to_json(config))  # has no format, as those before it
    with pytest.raises(UserError, match="rows") if refused else contextlib.nullcontext():
        check_workdir(tmp_path, config)


def test_more_steps_only_where_the_schedule_does_not_depend_on_them(tmp_path, config, change):
    record_run(tmp_path, config)
    with pytest.raises(UserError, match=r"train\.num_steps was 6, is 9.*may grow with --extend"):
        check_workdir(tmp_path, change(config, "train.num_steps", 9))
    for name, value in (("optimizer.decay_steps", 6), ("optimizer.schedule", "constant")):
        fixed = change(config, name, value)
        record_run(tmp_path, fixed)
        check_workdir(tmp_path, change(fixed, "train.num_steps", 9))


def test_checkpoints_without_a_record_are_refused(tmp_path, config):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no run\.json"):
        check_workdir(tmp_path, config)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"layers": 2}}'])
def test_a_record_that_cannot_be_read(tmp_path, config, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        check_workdir(tmp_path, config)


def test_a_workdir_that_another_host_does_not_see(tmp_path, config, monkeypatch):
    monkeypatch.setattr(workdir, "_SEEN", 0.2)
    with pytest.raises(
        UserError, match=r"what process 0 writes to the workdir .* is not seen here"
    ):
        check_shared(tmp_path)
    writing = threading.Timer(0.1, record_run, (tmp_path, config))
    writing.start()
    monkeypatch.setattr(workdir, "_SEEN", 20.0)
    check_shared(tmp_path)
    writing.join()


def test_a_workdir_that_is_a_file(tmp_path, config):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_workdir(tmp_path / "run", config)


def test_a_damaged_tokenizer_is_written_anew(tmp_path, config, tokenizer):
    record_run(tmp_path, config, tokenizer)
    (tmp_path / "tokenizer.model").write_text("older")
    record_run(tmp_path, config, tokenizer)
    assert (tmp_path / "tokenizer.model").read_text() == "letters"


def test_where_the_data_lies_may_change_where_its_content_is_recorded(tmp_path, config, change):
    record_run(tmp_path, config)
    moved = change(change(config, "data.source", "x/*.txt"), "data.tokenizer", "x.model")
    field = change(config, "data.text_field", "body")
    with pytest.raises(UserError, match=r"data\.source was 'bundled'.*--accept_data_change"):
        check_workdir(tmp_path, moved)
    (tmp_path / "data.json").write_text(RECORD)
    check_workdir(tmp_path, moved)
    with pytest.raises(UserError, match=r"data\.text_field was 'text'.*--accept_data_change"):
        check_workdir(tmp_path, field)
    check_workdir(tmp_path, change(field, "train.accept_data_change", True))
    with pytest.raises(UserError, match=r"train\.seed was 0, is 1; use another"):
        check_workdir(tmp_path, change(moved, "train.seed", 1))


def test_names_and_rates_of_a_mixture_may_not_change(tmp_path, config, change):
    def mixture(source, rate):
        return change(config, "data.mixture", {"a": (source, rate), "b": ("bundled", 1)})

    record_run(tmp_path, mixture("x.txt", 2))
    (tmp_path / "data.json").write_text(RECORD)
    check_workdir(tmp_path, mixture("y.txt", 2))
    for other in (mixture("x.txt", 3), config):
        with pytest.raises(UserError, match=r"data\.mixture was .*--accept_data_change"):
            check_workdir(tmp_path, other)
