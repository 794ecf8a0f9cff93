"""The commands that a dry run prints, the mistakes that end with status 2, and how create waits."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TPU = Path(__file__).parents[2] / "tpu"
NAMES = ("create", "setup", "train", "watch", "stop", "run")
AT = ("--name", "glm", "--zone", "us-west4-a")
TRAIN = ("--config", "configs/tiny.py", "--workdir", "runs/first")
SSH = "gcloud compute tpus tpu-vm ssh glm --worker=all --command="
DESCRIBE = "gcloud compute tpus queued-resources describe glm --format='value(state.state)'"
DESCRIBE_SLICE = "gcloud compute tpus tpu-vm describe glm --format='value(state)'"
IF_THERE = "if [ -f glm_jax/tpu/worker.sh ]; then bash glm_jax/tpu/worker.sh"


def dry(cloud, script, *arguments, **env):
    """The lines of a dry run without the zone that each command ends with."""
    done = cloud(script, *AT, "--dry-run", *arguments, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.calls() == []
    return [line.removesuffix(" --zone=us-west4-a") for line in done.stdout.splitlines()]


def test_create(cloud):
    assert dry(cloud, "create", "--accelerator", "v5e:4x4") == [
        DESCRIBE,
        "gcloud compute tpus queued-resources create glm --node-id=glm "
        "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite",
        DESCRIBE,
    ]


def test_create_directly_with_flags_of_gcloud(cloud):
    extra = ("--spot", "--direct", "--", "--network=mine", "--labels=a=b c")
    assert dry(cloud, "create", "--accelerator=v6e-8", *extra) == [
        DESCRIBE_SLICE,
        "gcloud compute tpus tpu-vm create glm --accelerator-type=v6e-8 --version=v2-alpha-tpuv6e "
        "--spot --network=mine --labels='a=b c'",
        DESCRIBE_SLICE,
    ]


@pytest.mark.parametrize(
    ("given", "accelerator", "runtime"),
    [
        ("v5e:2x4", "v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5e:16x16", "v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v5p:2x2x1", "v5p-8", "v2-alpha-tpuv5"),
        ("v5p:4x4x4", "v5p-128", "v2-alpha-tpuv5"),
        ("v6e:4x4", "v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-128", "v5p-128", "v2-alpha-tpuv5"),
    ],
)
def test_accelerators(cloud, given, accelerator, runtime):
    create = dry(cloud, "create", "--accelerator", given)[1]
    assert f" --accelerator-type={accelerator} --runtime-version={runtime}" in create


def test_the_table_counts_chips():
    rows = re.findall(r"^(v\S+):(\S+) +(\S+-)(\d+) +(\d+) +(\w+)$", accelerators(), re.MULTILINE)
    assert len(rows) == 28
    for generation, shape, prefix, number, chips, hosts in rows:
        sides = [int(side) for side in shape.split("x")]
        product = sides[0] * sides[1] * (sides[2] if generation == "v5p" else 1)
        assert (len(sides), int(chips)) == (3 if generation == "v5p" else 2, product)
        assert int(number) == product * (2 if generation == "v5p" else 1)
        assert prefix == {"v5e": "v5litepod-", "v5p": "v5p-", "v6e": "v6e-"}[generation]
        assert hosts == ("one" if product <= (4 if generation == "v5p" else 8) else "several")


def accelerators():
    return (TPU / "accelerators.sh").read_text()


def test_setup(cloud):
    root = cloud.root
    assert dry(cloud, "setup", "--accelerator", "v5p-16", "--extras", "tpu,tasks") == [
        f"mkdir -p {root}/build",
        f"git -C {root} ls-files -z --cached --others --exclude-standard | "
        f"tar -C {root} -czf {root}/build/glm_jax.tar.gz --null -T -",
        f"gcloud compute tpus tpu-vm scp {root}/build/glm_jax.tar.gz glm: --worker=all",
        f"{SSH}'{IF_THERE} idle; fi && mkdir -p glm_jax && "
        "rm -rf glm_jax/glm_jax glm_jax/configs && "
        "tar -xzf glm_jax.tar.gz -C glm_jax && rm glm_jax.tar.gz'",
        f"{SSH}'bash glm_jax/tpu/worker.sh install tpu,tasks'",
        f"{SSH}'bash glm_jax/tpu/worker.sh devices 8 several'",
    ]


def test_setup_from_a_repository(cloud):
    url = "https://example.org/glm_jax"
    assert dry(cloud, "setup", "--accelerator", "v6e-8", "--repo", url, "--ref", "v1")[0] == (
        f"{SSH}'{IF_THERE} idle; fi && git init -q glm_jax && "
        f"git -C glm_jax fetch -q --depth=1 {url} v1 && "
        "git -C glm_jax checkout -q --force --detach FETCH_HEAD'"
    )


def test_train(cloud):
    assert dry(cloud, "train", *TRAIN, "--set", "train.num_steps=12", "--wait=7") == [
        f"{SSH}'bash glm_jax/tpu/worker.sh idle'",
        f"{SSH}'bash glm_jax/tpu/worker.sh start 7 --config configs/tiny.py --workdir runs/first "
        "--set train.num_steps=12'",
    ]


def test_words_come_through_both_shells(cloud):
    odd = ["--workdir", "/data/it's here", "--set", "data.source=my/*.txt", "--set", 'a="$b"']
    line = dry(cloud, "train", "--config", "configs/tiny.py", *odd)[1]
    command = shlex.split(line)[-1].removeprefix("--command=")
    assert shlex.split(command)[4:] == ["--config", "configs/tiny.py", *odd]


def test_watch(cloud):
    assert dry(cloud, "watch") == [
        DESCRIBE,
        DESCRIBE_SLICE,
        f"{SSH}'bash glm_jax/tpu/worker.sh status 5'",
        f"{SSH.replace('=all', '=0')}'bash glm_jax/tpu/worker.sh follow 5'",
    ]
    assert len(dry(cloud, "watch", "--once")) == 3


def test_stop(cloud):
    stop = [DESCRIBE_SLICE, f"{SSH}'{IF_THERE} stop 600; fi'"]
    assert dry(cloud, "stop") == stop
    assert dry(cloud, "stop", "--delete", "--yes") == [
        *stop,
        DESCRIBE,
        "# with a queued resource:",
        "gcloud compute tpus queued-resources delete glm --force --quiet",
        "# without one:",
        "gcloud compute tpus tpu-vm delete glm --quiet",
    ]


def test_the_environment_stands_for_arguments(cloud):
    env = {"TPU_NAME": "glm", "ZONE": "us-west4-a", "ACCELERATOR_TYPE": "v6e:2x4"}
    env |= {"PROJECT_ID": "mine", "RUNTIME_VERSION": "tpu-ubuntu2204-base"}
    done = cloud("create", "--dry-run", **env)
    assert done.stdout.splitlines()[1] == (
        "gcloud compute tpus queued-resources create glm --node-id=glm --accelerator-type=v6e-8 "
        "--runtime-version=tpu-ubuntu2204-base --zone=us-west4-a --project=mine"
    )


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        *((name, (), r"--name \(or TPU_NAME\) is missing: .*") for name in NAMES),
        *((name, ("--name", "glm"), r"--zone \(or ZONE\) is missing: .*") for name in NAMES),
        *((name, ("--nmae", "glm"), f"unknown argument '--nmae'; see {name}.*") for name in NAMES),
        *((name, ("--zone", "--name"), "--zone needs a value") for name in NAMES),
        ("create", ("--name", "GLM", "--zone", "z"), "--name takes lowercase .*; got 'GLM'"),
        ("create", AT, r"--accelerator \(or ACCELERATOR_TYPE\) is missing: .*"),
        (
            "create",
            (*AT, "--accelerator", "v5e:3x3"),
            r"there is no accelerator 'v5e:3x3'; allowed are v5e:1x1 \(v5litepod-1\), .*",
        ),
        ("create", (*AT, "--poll", "1.5"), "--poll takes a whole number; got '1.5'"),
        ("setup", (*AT, "--accelerator", "v6e-8", "--extras", "a b"), "--extras takes .*'a b'"),
        ("setup", (*AT, "--accelerator", "v6e-8", "--ref", "v1"), "--ref .* needs --repo"),
        ("train", (*AT, "--workdir", "runs/a"), "--config is missing: .*"),
        ("train", (*AT, *TRAIN[:2]), "--workdir is missing: .*"),
        ("train", (*AT, "--config", "no.py", "--workdir", "a"), "there is no no.py in .*"),
        ("train", (*AT, *TRAIN[:2], "--workdir", "s3://b/a"), "--workdir .*, not s3://b/a"),
        ("train", (*AT, "--", "more"), "unknown argument '--'; .*"),
    ],
)
def test_mistakes_end_with_one_sentence_and_status_2(cloud, script, arguments, sentence):
    done = cloud(script, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: {sentence}\n", done.stderr), done.stderr
    assert cloud.calls() == []


def test_several_hosts_are_warned_of(cloud):
    done = cloud("train", *AT, *TRAIN, "--dry-run", ACCELERATOR_TYPE="v5e:4x4")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: v5litepod-16 has several hosts")


def test_a_workdir_in_a_bucket_is_seen_by_all_hosts(cloud):
    options = (*TRAIN[:2], "--workdir", "gs://b/run", "--dry-run")
    done = cloud("train", *AT, *options, ACCELERATOR_TYPE="v5e:4x4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--workdir gs://b/run" in done.stdout.replace("\\", "")


def test_gcloud_is_missed(cloud, tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    done = cloud("watch", *AT, PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: gcloud is not installed here; see https://")


@pytest.mark.parametrize("name", NAMES)
def test_help(cloud, name):
    done = cloud(name, "--help")
    assert done.returncode == 0
    assert f"usage: tpu/{name}.sh --name NAME --zone ZONE" in done.stdout
    taken = set(re.findall(r"^    (--[a-z-]+)\)", (TPU / f"{name}.sh").read_text(), re.MULTILINE))
    assert taken | {"--name", "--zone", "--project", "--dry-run"} == set(
        re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    )


def test_create_waits_until_active(cloud):
    cloud.says("after_create", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "ACTIVE")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--poll", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "glm: WAITING_FOR_RESOURCES\nglm is ready: v5litepod-8 in us-west4-a\n"
    verbs = [call.split()[1] for call in cloud.calls()]
    assert verbs == ["describe", "create", "describe", "describe", "describe"]


@pytest.mark.parametrize("line", ["ACTIVE", "PROVISIONING"])
def test_what_is_there_is_not_created_again(cloud, line):
    cloud.says("queued", line, "ACTIVE")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--poll", "0")
    assert done.returncode == 0
    assert {call.split()[1] for call in cloud.calls()} == {"describe"}


@pytest.mark.parametrize("end", ["FAILED", "SUSPENDED"])
def test_a_request_that_fails(cloud, end):
    cloud.says("after_create", "WAITING_FOR_RESOURCES", end)
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--poll", "0")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the request for glm ended as {end}; tpu/stop.sh --delete takes it away\n"
    )


def test_a_request_that_is_refused_or_forbidden(cloud):
    (cloud.fake / "full").touch()
    done = cloud("create", *AT, "--accelerator", "v5e:2x4")
    assert done.returncode == 1
    assert "no more capacity\nerror: gcloud could not queue glm (v5litepod-8" in done.stderr
    cloud.says("queued", "!")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4")
    assert done.returncode == 1
    assert "PERMISSION_DENIED\nerror: gcloud could not say whether there is" in done.stderr


def test_the_patience_of_create(cloud):
    cloud.says("queued", "WAITING_FOR_RESOURCES")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--poll", "1", "--timeout", "1")
    assert done.returncode == 1
    assert "glm is WAITING_FOR_RESOURCES after 1 seconds; the request stays" in done.stderr
    cloud.says("queued", "PROVISIONING", *"!!!!", "PROVISIONING", *"!!!!!")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--poll", "0")
    assert done.returncode == 1
    assert "how glm stands, five times in a row" in done.stderr


def test_create_directly(cloud):
    cloud.says("after_create", "READY")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--direct")
    assert (done.returncode, done.stderr) == (0, "")
    assert [call.split()[1] for call in cloud.calls()] == ["describe", "create", "describe"]
    cloud.says("slice", "PREEMPTED")
    done = cloud("create", *AT, "--accelerator", "v5e:2x4", "--direct")
    assert done.returncode == 1
    assert "glm is PREEMPTED, not READY" in done.stderr


def test_shellcheck():
    found = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=Path(sys.executable).parent
    )
    if found is None:
        pytest.skip("shellcheck is not installed")
    scripts = [*TPU.glob("*.sh"), *(Path(__file__).parent / "fake").iterdir()]
    assert len(scripts) == 12
    done = subprocess.run([found, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
