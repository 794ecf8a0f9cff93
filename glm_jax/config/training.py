"""The sections `optimizer`, `train` and `mesh` of a config: the training loop and its devices."""

import dataclasses
import re

from glm_jax.checks import check, check_choice, check_rate, check_types, finite_number
from glm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with the published decay groups (no decay on norms and biases), and its schedule.

    Attributes:
      peak_learning_rate: reached after `warmup_steps`.
      schedule: "cosine", "linear" or "constant"; the rate decays to `final_ratio` of the peak at
        `decay_steps` and stays there. "linear_published" decays on, in the end below zero, as the
        published code does.
      warmup_steps: steps of the linear rise from 0.
      decay_steps: step at which the decay ends, warm-up included; None: train.num_steps.
      final_ratio: the final rate as a fraction of the peak.
      beta1, beta2, epsilon: of AdamW.
      weight_decay: decoupled, of either optimizer.
      clip_norm: largest global norm of the gradient; None: no clipping.
      extended: recorded by `train --extend`: pairs of a step and the `num_steps` that the run had
        up to it, see `glm_jax.training.optimizer.optimizers`.
      name: "adamw", or "adafactor", which keeps one row and one column of second moments per matrix
        and no first moment (arXiv:1804.04235): a third of AdamW's memory for parameters and state.
    """

    peak_learning_rate: float = 4e-4
    schedule: str = "cosine"
    warmup_steps: int = 100
    decay_steps: int | None = None
    final_ratio: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0
    name: str = "adamw"
    extended: tuple | None = None

    @property
    def depends_on_num_steps(self) -> bool:
        """Whether the learning rate of a step depends on `train.num_steps`."""
        return self.schedule != "constant" and self.decay_steps is None

    def __post_init__(self):
        check_types(self, "optimizer")
        object.__setattr__(self, "extended", _pairs("optimizer.extended", self.extended) or None)
        check_choice("optimizer.name", self.name, ["adamw", "adafactor"])
        schedules = ["cosine", "linear", "linear_published", "constant"]
        check_choice("optimizer.schedule", self.schedule, schedules)
        for name in ("peak_learning_rate", "warmup_steps", "weight_decay"):
            check(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "at least 0")
        check_rate("optimizer.final_ratio", self.final_ratio)
        # A beta of 1 would keep a mean at 0; an epsilon of 0 would give 0 / 0 for a zero gradient.
        for name in ("beta1", "beta2"):
            finite_number(f"optimizer.{name}", getattr(self, name), least=0, below=1)
        finite_number("optimizer.epsilon", self.epsilon, above=0)
        check(
            self.decay_steps is None or self.decay_steps >= 1,
            "optimizer.decay_steps",
            self.decay_steps,
            "at least 1 or None",
        )
        if self.clip_norm is not None:
            finite_number("optimizer.clip_norm", self.clip_norm, above=0)


def _pairs(name: str, value: object) -> tuple[tuple[int, int], ...]:
    """Pairs of whole numbers from 1, as tuples; JSON has lists."""
    given = [] if value is None else value if isinstance(value, list | tuple) else [value]
    good = all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(type(number) is int and number >= 1 for number in pair)
        for pair in given
    )
    check(good, name, value, "pairs of a step and a number of steps, such as ((440, 440),)")
    return tuple((pair[0], pair[1]) for pair in given if isinstance(pair, list | tuple))


CROSS_ENTROPIES = (None, "plain", "chunked", "gradient_in_forward")


# What begins the names of metrics of which lower values are better.
_LOWER_IS_BETTER = ("loss", "unigram_loss", "perplexity", "bits_per")


def task_and_metric(name: str) -> tuple[str, str] | None:
    """The two in "eval/TASK/METRIC"; None: the name of a loss, "eval/loss/span"."""
    start, _, rest = name.partition("/")
    task, _, metric = rest.partition("/")
    if start != "eval" or not metric or task in ("loss", "unigram_loss"):
        return None
    return task, metric


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
      num_steps: total number of optimizer steps.
      seed: of parameters, dropout, row order and corruption; 0..2^64 - 1.
      init_from: a model to start from: a Hugging Face directory, the workdir of another run, or
        "bundled", the small model of the package. Its shape replaces `model.*`, except dropout,
        `initializer_range` and `param_dtype`; a shape given as well, by `--set` or in the same
        file, must agree with it. None: parameters are drawn at random.
      local_start: parameters are drawn such that the heads of the first layer attend to
        neighbouring tokens from the start, which small models otherwise take most of a short run to
        learn; for models with a position table (`glm_jax.models.local_attention`).
      accumulation_steps: micro-batches that a batch is split into, computed one after the other
        before each optimizer step; the result is that of the whole batch.
      loss: what is minimised, by its name in `glm_jax.losses.registry.LOSSES`: "pretraining", the
        cross-entropy of every token that a row's objective predicts; "choices", the cross-entropy
        over the candidates of each cloze, which examples.candidates puts into a row; "dpo", "ipo",
        "hinge" and "reward", losses over pairs of answers (the section `preferences`);
        "grpo" and "ppo", losses over answers of the policy itself (`rollouts`, `policy`).
      trainable: which parameters are trained: a regular expression that must match their whole
        names, which have no layer number, such as "layers/attention/query/kernel". All others stay
        as they are and have neither gradients nor moments. None: all are trained, or with lora.rank
        the adapters alone.
      quantize_base: "int8" or "int4": the matrices of the layers that are not trained are held as
        integers with a scale, which `train.init_from` may be already (QLoRA, arXiv:2305.14314).
        None: as `model.param_dtype` says.
      quantize_group_size: inputs that share a scale there; None: one scale per output, as
        published.
      weights: kind of the matrices, by its name in `glm_jax.models.weights.KINDS`: "plain" arrays,
        or one that a module of your own has added.
      loss_reduction: "token_mean" (mean over all predicted tokens of the global batch, each with
        its objective's weight) or "objective_mean" (sum over objectives of weight * mean over the
        objective's own tokens).
      cross_entropy: how a step computes logits: "plain" (all at once), "chunked" (chunk by chunk,
        and again for the gradient) or "gradient_in_forward" (the gradient together with the logits,
        only where something is predicted). The loss is the same. None: "chunked"; on CPU, where
        memory is not scarce, "gradient_in_forward".
      loss_chunk: slots per device whose logits are in memory at once; None: 1024, on CPU 256.
      log_every, eval_every, checkpoint_every, sample_every: steps between rows of metrics.jsonl,
        evaluations, checkpoints and filled samples; 0: only at the end, where a last checkpoint,
        evaluation and sample are made in any case.
      eval_batches: batches of the split "eval" per evaluation.
      eval_tasks: tasks that are evaluated during training, separated by commas: directories of
        tasks or .toml files (docs/evaluation.md), and names that `evaluate` knows, such as
        "my_tasks,last_word". Their metrics are "eval/TASK/METRIC" in metrics.jsonl, and
        answers.txt shows answers. None: none.
      eval_tasks_every: steps between evaluations of tasks; 0: with each evaluation.
      eval_examples: examples of a task, at most, from its first on.
      keep_checkpoints: how many of the newest checkpoints are kept.
      keep_best: how many of the best checkpoints by `best_metric` are kept as well.
      best_metric: a name in metrics.jsonl, "eval/loss" or "eval/TASK/METRIC". Only checkpoints of
        steps that have this metric are compared, so it needs evaluations at the steps of
        checkpoints.
      best_is: "lowest" or "highest", which values of `best_metric` are the best. None: the lowest
        of losses, perplexities and bits, the highest of other metrics of tasks.
      verify_checkpoints: compare a checkpoint's files with their checksums before restoring it,
        which reads them twice.
      keep_freed_memory: keep memory that a step frees for the next step, instead of returning it to
        the system; on CPU this saves a sixth of a step's time. The process then holds as much more
        memory as a step works in; the amount is logged when the step is compiled. Needs Linux with
        glibc. None: on if jax computes on CPU. Results do not change.
      preemption_deadline: seconds from SIGTERM or SIGINT, to any process of a run, within which all
        must have begun to save. They agree on the step every few seconds, and a process that is
        still inside a step then ends without a save. A single process has no such limit.
      accept_data_change: continue a run although its data has changed; data.json in the workdir
        records what has changed, and after which step.
      stop_above: limits of metrics, "kl/k2=20, length/chosen=900": a run in which one of them is
        passed ends with status 1 after that step, and keeps the checkpoints from before. Names are
        those of a step's row in metrics.jsonl; the values are those of one batch. None: no limits.
      tensorboard: write the rows of metrics.jsonl to WORKDIR/tensorboard too.
      wandb: a Weights & Biases project that gets the rows too; WANDB_MODE=offline keeps them in
        WORKDIR/wandb. None: nothing is sent.
    """

    num_steps: int = 1000
    seed: int = 0
    init_from: str | None = None
    local_start: bool = False
    accumulation_steps: int = 1
    loss: str = "pretraining"
    weights: str = "plain"
    trainable: str | None = None
    quantize_base: str | None = None
    quantize_group_size: int | None = None
    loss_reduction: str = "token_mean"
    cross_entropy: str | None = None
    loss_chunk: int | None = None
    log_every: int = 10
    eval_every: int = 200
    eval_batches: int = 8
    eval_tasks: str | None = None
    eval_tasks_every: int = 0
    eval_examples: int = 100
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    sample_every: int = 0
    keep_best: int = 0
    best_metric: str = "eval/loss"
    best_is: str | None = None
    verify_checkpoints: bool = True
    keep_freed_memory: bool | None = None
    preemption_deadline: float = 25.0
    accept_data_change: bool = False
    tensorboard: bool = False
    wandb: str | None = None
    stop_above: str | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The limits of `stop_above` by metric: {"kl/k2": 20.0}."""
        return {} if self.stop_above is None else _limits(self.stop_above)

    @property
    def best_is_highest(self) -> bool:
        """Whether the best of two values of `best_metric` is the higher one."""
        if self.best_is is not None:
            return self.best_is == "highest"
        _, metric = task_and_metric(self.best_metric) or ("", "loss")
        return not metric.startswith(_LOWER_IS_BETTER)

    def __post_init__(self):
        check_types(self, "train", seeds=["seed"])
        counts = ("num_steps", "accumulation_steps", "eval_batches", "eval_examples")
        for name in (*counts, "keep_checkpoints"):
            check(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        intervals = ("log_every", "eval_every", "eval_tasks_every", "checkpoint_every")
        for name in (*intervals, "sample_every", "keep_best"):
            check(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "at least 0")
        check_choice("train.best_is", self.best_is, [None, "lowest", "highest"])
        check(
            self.best_metric.startswith(("loss", "eval/")),
            "train.best_metric",
            self.best_metric,
            "'loss', 'eval/loss' or one of these by objective, such as 'eval/loss/span', or "
            "'eval/TASK/METRIC'",
        )
        finite_number("train.preemption_deadline", self.preemption_deadline, above=0)
        check(self.wandb != "", "train.wandb", self.wandb, "the name of a project, or None")
        self._check_trainable()
        if self.stop_above is not None:
            _limits(self.stop_above)
        check_choice("train.quantize_base", self.quantize_base, [None, "int8", "int4"])
        if self.quantize_group_size is not None:
            check(
                self.quantize_group_size >= 2,
                "train.quantize_group_size",
                self.quantize_group_size,
                "at least 2 or None",
            )
            check(
                self.quantize_base is not None,
                "train.quantize_group_size",
                self.quantize_group_size,
                "None without train.quantize_base",
            )
        check_choice("train.loss_reduction", self.loss_reduction, ["token_mean", "objective_mean"])
        check_choice("train.cross_entropy", self.cross_entropy, CROSS_ENTROPIES)
        check(
            self.loss_chunk is None or self.loss_chunk >= 1,
            "train.loss_chunk",
            self.loss_chunk,
            "at least 1 or None",
        )

    def _check_trainable(self) -> None:
        try:
            re.compile(self.trainable or "")
        except re.error as error:
            raise UserError(
                f"train.trainable must be a regular expression; got {self.trainable!r} ({error})"
            ) from error


def _limits(text: str) -> dict[str, float]:
    """Limits by metric, from "kl/k2=20, length/chosen=900"."""
    found = {}
    for part in text.split(","):
        name, _, value = (one.strip() for one in part.partition("="))
        try:
            found[name] = finite_number(name, float(value))
        except ValueError:
            name = ""
        if not name:
            raise UserError(
                "train.stop_above must be metrics with a number each, such as 'kl/k2=20, "
                f"length/chosen=900'; got {text!r}"
            )
    return found


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; at most one axis may be -1, which takes all remaining devices.

    Attributes:
      data: replicas of the parameters; batch rows are split over it.
      fsdp: parameters, optimizer state and batch rows are split over it.
      tensor: heads, MLP width and vocabulary are split over it.
      sequence: the slots of a row are split over it; each device gathers the keys and values of the
        whole row. Parameters and optimizer state are split over fsdp x sequence together, where
        that divides the model's width.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self):
        check_types(self, "mesh")
        sizes = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, size in sizes.items():
            check(size == -1 or size >= 1, f"mesh.{name}", size, "at least 1, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            raise UserError(f"at most one axis of mesh may be -1; got {sizes}")
