"""The manifest: against Kubernetes' own schemas, and against what the project does."""

import copy
import math
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from glm_jax.config.files import load_config
from glm_jax.train import _parser
from glm_jax.training.joining import TPU_PORT
from glm_jax.training.run.watching import LOST

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest():
    documents = yaml.safe_load_all((ROOT / "tpu" / "gke.yaml").read_text())
    return {one["kind"]: one for one in documents}


@pytest.fixture(scope="module")
def job(manifest):
    return manifest["Job"]["spec"]


@pytest.fixture(scope="module")
def pod(job):
    return job["template"]["spec"]


# Pod failure policies are stable from 1.31 on.
@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_it_is_what_kubernetes_takes(manifest, version):
    assert set(manifest) == {"PersistentVolumeClaim", "Service", "Job"}
    for document in manifest.values():
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_the_schema_finds_mistakes(manifest):
    for change in (
        lambda job: job.update(completionmode="Indexed"),
        lambda job: job.update(parallelism="four"),
        lambda job: job["podFailurePolicy"]["rules"][0].pop("action"),
        lambda job: job["template"]["spec"]["containers"][0].pop("name"),
    ):
        wrong = copy.deepcopy(manifest["Job"])
        change(wrong["spec"])
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_what_becomes_of_each_status(job, pod):
    """As the controller reads it: the first rule that matches decides."""
    (container,) = pod["containers"]
    actions = {}
    for status in (1, 2, 3, LOST, 130, 134, 137, 143):
        actions[status] = "Count"
        for rule in job["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes")
            if codes and status in codes["values"]:
                assert (codes["operator"], codes["containerName"]) == ("In", container["name"])
                actions[status] = rule["action"]
                break
    assert actions == {
        **dict.fromkeys((1, 3, 130, 137), "Count"),
        2: "FailJob",
        **dict.fromkeys((LOST, 134, 143), "Ignore"),
    }
    # What a policy by exit status asks for.
    assert pod["restartPolicy"] == "Never"
    assert job["backoffLimit"] >= job["completions"]


def test_the_pods_are_one_slice_and_find_each_other(manifest, job, pod):
    (container,) = pod["containers"]
    service = manifest["Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": manifest["Job"]["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert job["completions"] * chips == math.prod(map(int, sides))
    assert TPU_PORT in [port["containerPort"] for port in container["ports"]]


def test_its_command_is_one_of_this_project(manifest, pod):
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "glm_jax.train"]
    args = _parser().parse_args(container["args"])
    config = load_config(ROOT / args.config, [])
    mesh = vars(config.mesh).values()
    # -1: what is left of the 16 devices.
    assert 16 % math.prod(size for size in mesh if size > 0) == 0
    assert -1 in mesh
    (mount,) = container["volumeMounts"]
    assert args.workdir.is_relative_to(mount["mountPath"])
    (volume,) = pod["volumes"]
    claim = manifest["PersistentVolumeClaim"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
