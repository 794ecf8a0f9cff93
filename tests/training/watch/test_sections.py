from glm_jax.training.watch.sections import SectionFile


def test_sections_after_the_restored_step_are_removed(tmp_path):
    path = tmp_path / "answers.txt"
    file = SectionFile(path)
    file.rewind(4)
    assert not path.exists()
    for step in (2, 4, 6):
        file.add(f"step {step}\n  an answer: step 9\n")
    file.rewind(4)
    assert path.read_text() == "step 2\n  an answer: step 9\nstep 4\n  an answer: step 9\n"
    assert [file.has(step) for step in (2, 4, 6, 9)] == [True, True, False, False]
    file.rewind(0)
    assert path.read_text() == ""


def test_sections_are_found_among_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "samples.txt"
    path.write_bytes(b"step 2\n  \xff\xfe\nstep 4\n  b\nstep " + b"9" * 5000 + b"\nstep 6\n  c\n")
    file = SectionFile(path)
    file.rewind(4)
    assert path.read_bytes().endswith(b"b\nstep " + b"9" * 5000 + b"\n")
    assert path.read_bytes().startswith(b"step 2\n  \xff\xfe\nstep 4\n")
    assert [file.has(step) for step in (2, 3, 4, 6)] == [True, False, True, False]
