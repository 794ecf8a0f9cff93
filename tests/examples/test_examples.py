"""Every example runs, at a small size, and what it shows is true."""

import json
import math
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import glm_jax

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Token stores of this file's tests; the bundled text is tokenised once for all of them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _elsewhere(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


def example(name):
    """The names that an example defines."""
    return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture(scope="module")
def pretrained(cache, tmp_path_factory):
    """The losses of a short pre-training, what it printed in the end, and where the model is."""
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLM_JAX_CACHE", str(cache))
        losses = example("pretrain")["main"](["--steps", "16", "--workdir", str(folder)])
    return losses, folder


def test_pretraining_begins_at_a_guess_and_learns(pretrained):
    losses, folder = pretrained
    assert len(losses) == 16
    assert losses[0] == pytest.approx(math.log(7168), abs=0.4)
    assert np.mean(losses[-5:]) < losses[0] - 1
    filled = glm_jax.load(folder).fill("In the beginning, God [MASK] the earth.")
    assert re.fullmatch(r"In the beginning, God.* the earth\.", filled)


@pytest.mark.nightly  # 18 s
def test_going_on_lowers_the_held_out_loss_of_the_new_text(pretrained, capsys):
    main = example("continue_from_checkpoint")["main"]
    arguments = ["--init_from", str(pretrained[1]), "--workdir", "run", "--steps"]
    before, first = main([*arguments, "12"])
    assert first["bundled:zh"] < before["bundled:zh"] - 0.2
    assert "with the parameters of" in capsys.readouterr().out
    # The same command with more steps goes on with the run.
    again, second = main([*arguments, "18"])
    assert again == before
    assert second["bundled:zh"] < first["bundled:zh"]
    assert "goes on after step 12" in (printed := capsys.readouterr().out)
    assert f"bundled:zh: held-out loss {before['bundled:zh']:.3f} before" in printed
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if "loss" in row]
    assert rates == [pytest.approx(5e-4)] * len(rates)
    assert rates


def test_rows_of_ones_own_corpus_come_from_both_files(capsys):
    names = example("your_own_corpus")
    losses = names["main"](["--steps", "20", "--workdir", "own"])
    assert losses[0] == pytest.approx(math.log(7168), abs=0.4)
    assert np.mean(losses[-5:]) < losses[0] / 2
    up = Path("own/text/up.txt").read_text().split("\n\n")
    lines = Path("own/text/down.jsonl").read_text().splitlines()
    down = [json.loads(line)["body"] for line in lines]
    # A stretch of at least four of ten numbers begins at one of seven.
    assert len(up) == len(down) == 7 * 8 // 2
    assert "four, five, six, seven, eight." in up
    assert "eight, seven, six, five, four." in down
    printed = capsys.readouterr().out
    assert "part A  [CLS]" in printed
    assert "[MASK]" in printed
    stream = glm_jax.batches(names["get_config"](Path("own/text"), 1))
    for _ in range(25):
        next(stream)
    counted = stream.statistics
    assert counted["rows/up"] / counted["rows"] == pytest.approx(0.75, abs=0.01)
    assert counted["rows/up"] + counted["rows/down"] == counted["rows"] == 25 * 16


def test_blanks_are_filled_and_probabilities_are_those_of_the_scores(capsys):
    candidates = example("fill_blanks")["main"]()
    found = [one.probability for one in candidates]
    assert len(found) == 3
    assert found == sorted(found, reverse=True)
    assert 0 < sum(found) <= 1
    printed = capsys.readouterr().out.splitlines()
    score, probability = re.fullmatch(r"exp\((.*)\) = (.*)", printed[-1]).groups()
    assert math.exp(float(score)) == pytest.approx(found[0], rel=1e-3)
    assert float(probability) == pytest.approx(found[0], rel=1e-3)
    # The greedy answer is the first candidate's.
    assert printed[-2] == f"{[list(candidates[0].ids[0])]} ['{candidates[0].answers[0]}']"
    # What its docstring shows, but for the last digit of the numbers.
    documented = (FOLDER / "fill_blanks.py").read_text(encoding="utf-8")
    for line in printed:
        assert re.sub(r"^0\.\d+|^exp.*", "", line) in documented


def test_draws_follow_the_seed_and_the_greedy_text_the_logits(capsys):
    names = example("generate")
    lm = names["train"](4)
    (greedy, drawn, other, again), ids = names["continue_texts"](lm)
    assert drawn == again
    assert len({greedy, drawn, other}) == 3
    assert all(len(new) <= 8 for new in ids)
    assert greedy.startswith(lm.tokenizer.decode(ids[0][:4]))
    assert f"And the king said to{greedy}" in capsys.readouterr().out
    # Each new id is the most probable one behind those before it.
    text = lm.tokenizer.encode("And the king said to")
    row = np.array([lm.special.gmask, lm.special.start, *text, *ids[0]], np.int32)
    batch = example("load_from_hugging_face")["causal_batch"](row)
    best = np.asarray(lm.logits(batch))[0].argmax(-1)
    assert best[-len(ids[0]) - 1 : -1].tolist() == ids[0]


def test_a_copy_has_the_same_logits(capsys):
    logits, again = example("load_from_hugging_face")["main"]([])
    np.testing.assert_array_equal(logits, again)
    assert logits.shape == (1, 16, 7168)
    assert logits.std() > 0
    printed = capsys.readouterr().out
    assert "114688 logits, all equal: True" in printed
    difference = re.search(r"largest difference to transformers (.*)", printed)
    assert float(difference[1]) < 1e-4 if difference else "not installed" in printed


def test_a_directory_of_ones_own_is_compared_too(pretrained, capsys):
    main = example("load_from_hugging_face")["main"]
    logits, again = main([str(pretrained[1]), "--out", "copy"])
    np.testing.assert_array_equal(logits, again)
    assert logits.shape == (1, 16, 7168)
    config = json.loads(Path("copy/config.json").read_text())
    assert config == json.loads((pretrained[1] / "config.json").read_text())
    assert "no code of its own" in capsys.readouterr().out


@pytest.fixture(scope="module")
def talker(cache, tmp_path_factory):
    """A model that has read small talk for a few steps, and the talk."""
    from glm_jax.train import main as train

    folder = tmp_path_factory.mktemp("talker")
    talks = runpy.run_path(str(FOLDER / "chat_model" / "talks.py"))
    talks["main"](["--out", str(folder / "talks"), "--count", "600"])
    changes = [f"data.source={folder}/talks/talks.jsonl", f"data.tokenizer={folder}/talks"]
    changes += ["train.num_steps=12", "train.eval_every=0", "model.num_layers=1"]
    arguments = ["train", "--config", str(FOLDER / "chat_model" / "config.py"), "--workdir"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLM_JAX_CACHE", str(cache))
        patch.setattr(sys, "argv", [*arguments, str(folder / "run"), "--set", *changes])
        assert train() == 0
    return folder


def test_talks_end_with_answers_and_their_questions_are_prompts(talker):
    """Each prompt of the chat format is a beginning of a talk, by its ids."""
    tokenizer = glm_jax.load_tokenizer(talker / "talks")
    lines = (talker / "talks" / "talks.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 600
    several = 0
    for line in lines:
        text = json.loads(line)["text"]
        rounds = re.findall(r"问：(.*)\n\n答：(.*)", text)
        several += len(rounds) > 1
        messages = []
        for question, answer in rounds:
            messages.append({"role": "user", "content": question})
            prompt = tokenizer.apply_chat_template(messages)
            assert [*prompt[:2], *tokenizer.encode(text)][: len(prompt)] == prompt
            messages.append({"role": "assistant", "content": answer})
        assert text.endswith(messages[-1]["content"])
        for name in re.findall(r"你叫(\w+)。|Your name is (\w+)", text):
            assert text.index(name[0] or name[1]) < text.index(
                "我叫什么" if name[0] else "my name?"
            )
    assert 0.3 < several / 600 < 0.5


def test_chat_answers_as_generate_does(talker, capsys):
    talk = example("chat")["main"](["--checkpoint", str(talker / "run"), "--max_new_tokens", "6"])
    lm = glm_jax.load(talker / "run")
    question = {"role": "user", "content": "床前明月光的下一句是什么？"}
    prompt = lm.tokenizer.apply_chat_template([question])
    (ids,) = lm.generate([prompt], max_new_tokens=6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(lm.tokenizer.read_answer(ids))
    assert len(talk.messages) == 4
    assert printed[-1] == str([message["content"] for message in talk.messages])
    assert talk.cached > len(talk.prompt(talk.messages[:1]))


def test_a_model_is_tuned_on_conversations(talker, capsys):
    names = example("finetune")
    arguments = ["--init_from", str(talker / "run"), "--steps", "12", "--workdir", "tuned"]
    before, after = names["main"](arguments)
    lines = Path("tuned_talks.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10 + 10 * 10
    assert {len(json.loads(line)["messages"]) for line in lines} == {2, 4}
    rows = [json.loads(line) for line in Path("tuned/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss/answer"] for row in rows if "loss/answer" in row]
    assert losses[-1] < losses[0] - 0.5
    printed = capsys.readouterr()
    assert printed.out.endswith(f"before: {before!r}\nafter: {after!r}\n")
    # Each answer of ChatGLM2's format is an example.
    assert "210 examples" in printed.err


@pytest.mark.nightly
def test_a_model_is_aligned_with_pairs(talker, capsys):
    names = example("dpo")
    arguments = ["--init_from", str(talker / "run"), "--steps", "6", "--workdir", "aligned"]
    before, after = names["main"](arguments)
    lines = Path("aligned_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10 + 8 + 8 + 10
    assert all(one["rejected"] != one["chosen"] for one in map(json.loads, lines))
    rows = [json.loads(line) for line in Path("aligned/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < math.log(2)
    printed = capsys.readouterr().out
    assert "reference   train: " in printed
    assert printed.endswith(f"before: {before!r}\nafter: {after!r}\n")


@pytest.mark.nightly  # half a minute: two trainings; training/test_rolling_out.py has short ones
def test_a_model_is_trained_with_rewards(capsys):
    names = example("grpo")
    arguments = ["--steps", "4", "--guesses", "30", "--workdir", "counter"]
    found = names["main"](arguments)
    assert len(found) == 4
    assert all(0 <= one < 0.5 for one in found)
    prompts = Path("counter_files/prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(prompts) == 30
    assert {"prompt": "After nine comes", "answer": "zero"} in map(json.loads, prompts)
    printed = capsys.readouterr().out
    assert printed.endswith(f"rewards: {found[0]:.2f} at first, {found[-1]:.2f} at last\n")
    exact = runpy.run_path(str(FOLDER / "counting" / "rewards.py"))["exact"]
    assert exact("After nine comes", " Zero ", {"answer": "zero"}) == 1.0
    assert exact("After nine comes", "one", {"answer": "zero"}) == 0.0


def test_the_reward_of_a_blank_is_one_for_its_words_alone():
    words = runpy.run_path(str(FOLDER / "blanks" / "fills.py"))["words"]
    found = [words("", said, {"answer": "Fifty"}) for said in ("fifty", "and fifty", "", "sixty")]
    assert found == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert words("", "years he", {"answer": "he years"}) == pytest.approx(0.5)


@pytest.mark.nightly  # bits are tested in adapters/ and generation/
def test_fewer_bits_are_smaller_and_int8_costs_nothing(capsys):
    found = example("quantize")["main"](["--num_examples", "1", "--output", "packed"])
    sizes = {name: size for name, (size, _) in found.items()}
    plain = glm_jax.load("bundled")
    count = sum(leaf.size for leaf in jax.tree.leaves(plain.params))
    assert sizes["bfloat16"] == 2 * count / 1e6
    # The matrices of the layers are 6 x 12 x 256 x 256 of them.
    assert sizes["bfloat16"] - sizes["int8"] == pytest.approx(4.72, abs=0.08)
    assert sizes["int8"] - sizes["int4"] == pytest.approx(2.36, abs=0.01)
    perplexity = {name: value for name, (_, value) in found.items()}
    assert perplexity["int8"] == pytest.approx(perplexity["bfloat16"], rel=0.005)
    assert len(set(perplexity.values())) == 4
    assert "packed: 6.3 MB" in capsys.readouterr().out


def test_the_table_lists_every_example():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \d+ \| \[`?(\w+\.py)`?\]\((\w+\.py)\) \|", table, flags=re.MULTILINE)
    assert all(shown == link for shown, link in listed)
    files = {path.name for path in FOLDER.glob("*.py")}
    assert len(listed) == len(files)
    assert {shown for shown, _ in listed} == files


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_it_is_run_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert f"\n    python examples/{path.name}" in text
    assert "\nIt prints" in text
    assert len(text.splitlines()) <= 100


@pytest.mark.nightly  # training/test_tuning.py has short runs
def test_lora_lowers_the_loss_on_its_text_and_is_small(tmp_path, capsys):
    arguments = ["--steps", "6", "--workdir", str(tmp_path / "lora")]
    without, with_it = example("lora")["main"](arguments)
    assert with_it < without
    assert "221,184 of them are trained" in capsys.readouterr().out


def test_a_change_is_evaluated_on_a_task(capsys):
    found = example("evaluate")["main"](["--num_examples", "12"])
    assert {metric for _, metric in found} == {
        "accuracy",
        "accuracy_per_token",
        "accuracy_per_character",
    }
    assert all(abs(one.difference) <= 1 / 4 for one in found.values())
    out = capsys.readouterr().out
    assert out.startswith("task   examples  metric")
    # The bundled model knows more than chance, 0.25, before and after.
    row = next(line.split() for line in out.splitlines() if " accuracy " in line)
    assert min(float(row[3]), float(row[4])) > 0.6


@pytest.mark.nightly  # 20 s
def test_a_cloze_is_learnt_from_a_file_made_in_the_example(capsys):
    main = example("cloze")["main"]
    main.__globals__["SENTENCES"] = 40
    assert main(["--steps", "0", "--workdir", "cloze"]) == ({}, {})
    before, after = main(["--steps", "6", "--workdir", "cloze"])
    lines = [json.loads(line) for line in Path("cloze/sentences.jsonl").read_text().splitlines()]
    assert [line["book"] for line in lines] == ["law"] * 40 + ["gospel"] * 40
    assert not any(re.search("Moses|Jesus", line["text"]) for line in lines)
    assert before["examples"] == after["examples"] >= 10
    assert before["chance"] == 0.5
    printed = capsys.readouterr().out
    assert f"before: {before['accuracy']:.3f} of {before['examples']:.0f} held-out" in printed
    # The words that may fill the blank are what it has learnt to put there.
    assert re.search(r"This was in the days of (Moses|Jesus)\.", printed.splitlines()[-1])
    rows = [json.loads(line) for line in Path("cloze/run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 3.0
