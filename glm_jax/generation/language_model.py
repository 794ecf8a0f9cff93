"""`LanguageModel`: a model with its parameters, which scores, fills and continues texts; `load`.

lm = glm_jax.load("runs/demo")
lm.fill_blanks(lm.tokenizer.encode("[CLS]the [MASK] is good", allow_special=True))
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Unpack

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from glm_jax.adapters.factors import check_foldable, folded
from glm_jax.adapters.quantising import Quantize
from glm_jax.batch import Batch
from glm_jax.checkpoints.loading import Loaded, load_model, with_adapter
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.adapting import Adapting, Family
from glm_jax.generation.conversation import ChatOptions, Conversation
from glm_jax.generation.engine import Engine
from glm_jax.generation.generating import Generating
from glm_jax.generation.scored_texts import Scoring
from glm_jax.generation.writing import Writing
from glm_jax.interop.huggingface import Progress, save_directory, silent
from glm_jax.interop.origin import Origin
from glm_jax.interop.prefixes import FORMATS
from glm_jax.interop.save_plan import SaveAs
from glm_jax.losses.by_objective import hidden_of, objective_sums, summarize, token_losses
from glm_jax.models.params import bind
from glm_jax.models.positions import check_positions
from glm_jax.models.trees import Params, unstack_layers
from glm_jax.models.weights import plain
from glm_jax.paths import expanded
from glm_jax.sharding.mesh import mesh_of, placed, with_mesh_of_params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Messages, Tokenizer


class LanguageModel(Generating, Scoring, Writing, Adapting):
    """A model and its parameters. Methods that choose ids are in `Generating`, those that score in
    `Scoring`, those of text in `Writing`, those of adapters in `Adapting`.

    Attributes:
      config: its shape, and how it runs (`config.compute`).
      params: nested dict of arrays, layers listed, which makes decoding faster.
      tokenizer: that of its training, or None.
      special: ids of its special tokens, or None.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        tokenizer: Tokenizer | None = None,
        origin: Origin | None = None,
    ):
        """Parameters may be stacked or listed, on one device or on a mesh; they are not moved.

        A plain `ModelConfig` runs with the defaults of `ComputeConfig`; `Config.resolved_model`
        with the section `compute` of its config.
        """
        self.config = config.resolved().with_compute(scan_layers=False)
        self.params = unstack_layers(params)
        self.tokenizer = tokenizer
        self.special: SpecialTokens | None = tokenizer.special if tokenizer else None
        self._origin = origin or Origin()
        self._decoder: Engine | None = None
        self._family: Family = {}

    def logits(self, batch: Batch | Mapping[str, ArrayLike]) -> jax.Array:
        """The logits of the next id at every slot.

        Args:
          batch: a `Batch`, or a dict with its field names; [B, T].

        Returns:
          float32 [B, T, V].

        Raises:
          UserError: positions outside the model's position tables, or ids outside the vocabulary.
        """
        return _logits(self.params, self._placed(batch), config=self.config)

    def loss(self, batch: Batch | Mapping[str, ArrayLike]) -> jax.Array:
        """sum(loss_weights * cross entropy) / sum(loss_weights) over the whole batch, in nats."""
        return _loss(self.params, self._placed(batch), config=self.config)

    def chat(
        self,
        messages: Messages | str,
        tools: Messages | None = None,
        max_new_tokens: int = 512,
        on_text: Callable[[str], object] | None = None,
        **sampling: Unpack[ChatOptions],
    ) -> Message:
        """Answers messages in the model's chat format, which its tokenizer writes and reads.

            chat([{"role": "user", "content": "1 + 1?"}])    {"role": "assistant", "content": "2"}

        Each call computes the whole prompt; `Conversation` keeps the cache from turn to turn.

        Args:
          messages: as in transformers, dicts with role and content, and metadata or tool_calls
            where the format has them; a text is one message of the user.
          tools: descriptions of functions, for models that were trained to call some.
          max_new_tokens: number of ids of the longest answer, which also ends where the context
            does.
          on_text: called with parts of the answer's text while it is generated, thoughts and calls
            of tools as the model writes them; no part ends within a character.
          **sampling: fields of `Sampling`: temperature=0.8, top_p=0.8. Greedy by default, as
            `generate` is; the values in a checkpoint's generation_config.json are not taken.

        Returns:
          The answer: role, content; tool_calls where the model called functions, metadata and
          reasoning_content where its format has them.

        Raises:
          UserError: no tokenizer or none with a chat format, messages that the format cannot write,
            a prompt that does not fit the model's context.
        """
        talk = Conversation(self, messages, tools, max_new_tokens, **sampling)
        return talk.answer(on_text).message

    def save(
        self,
        path: str | Path,
        format: str = "huggingface",
        names: str = "as_loaded",
        progress: Progress = silent,
        dequantize: bool = False,
    ) -> None:
        """Writes the model as a directory, all of it or nothing; `load` reads it back bit for bit.

        A whole model has its LoRA folded in, as by `merged`.

        Args:
          path: the directory to write; one that holds nothing but a model is replaced, of an
            adapter one that holds nothing but an adapter.
          format: "huggingface" (config.json and safetensors in published names) or "orbax"; or
            "peft": the LoRA alone, or of a trained prefix what its encoder makes; or "ptuning": the
            prefix alone with its encoder, as ChatGLM's code names it.
          names: of the tensors, for "huggingface" and a LoRA: "as_loaded", "original" (of the code
            the model was published with) or "native" (of transformers).
          progress: for "huggingface", wraps the tensors as they are written.
          dequantize: write quantised matrices as plain ones of `config.param_dtype`. Without it
            they are written as ChatGLM's are published, which "native" names have no way to say.

        Raises:
          UserError: an unknown format or names, names that the model does not have, a LoRA over
            quantised matrices, or a directory that holds something else.
        """
        if format == "huggingface":
            if not dequantize:
                check_foldable(self.params)
            save_directory(
                expanded(path),
                self.config,
                self.params,
                self._origin,
                SaveAs(names, dequantize=dequantize),
                self.tokenizer,
                progress,
            )
        elif format == "orbax":
            from glm_jax.checkpoints.params import save_params  # brings orbax

            dtype = self.config.param_dtype
            params = plain(self.params, dtype) if dequantize else folded(self.params, dtype)
            save_params(expanded(path), self.config, params, self.tokenizer, self._origin)
        elif format in FORMATS:
            self._save_adapter(expanded(path), format, names)
        else:
            raise UserError(
                f"format must be 'huggingface', 'orbax', 'ptuning' or 'peft'; got {format!r}"
            )

    def _placed(self, batch: Batch | Mapping[str, ArrayLike]) -> Batch:
        """The batch, checked, and sharded over the mesh of the parameters where sizes allow it."""
        if not isinstance(batch, Batch):
            if not isinstance(batch, Mapping):
                raise UserError(
                    "a Batch is needed, or a dict with its field names; got "
                    f"{type(batch).__name__} (glm_jax.batches makes Batches from text; lm.score "
                    "and lm.perplexity take ids)"
                )
            batch = Batch.from_dict(batch)
        check_positions(batch, self.config)
        for name in ("tokens", "targets"):
            ids = np.asarray(getattr(batch, name))
            if ids.size and (ids.min() < 0 or ids.max() >= self.config.vocab_size):
                raise UserError(
                    f"Batch.{name} holds ids from {ids.min()} to {ids.max()}; the model's "
                    f"vocabulary has 0..{self.config.vocab_size - 1}"
                )
        mesh = mesh_of(self.params)
        return batch if mesh is None else placed(batch, mesh)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _logits(params: Params, batch: Batch, *, config: ResolvedModel) -> jax.Array:
    model = bind(config, params)
    return model.logits(hidden_of(model, batch))


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _loss(params: Params, batch: Batch, *, config: ResolvedModel) -> jax.Array:
    losses = token_losses(bind(config, params), batch)
    return summarize(objective_sums(losses, batch), "token_mean")["loss"]


def load(
    path: str | Path,
    dtype: str | None = None,
    compute_dtype: str | None = None,
    mesh: Mesh | None = None,
    adapter: str | Path | Mapping[str, str | Path] | None = None,
    quantize: str | Quantize | None = None,
    progress: Progress = silent,
) -> LanguageModel:
    """Loads a model.

    Args:
      path: a Hugging Face directory (config.json and safetensors), a workdir of `glm_jax.train`, or
        one step in its `checkpoints`; "bundled": the small model of the package
        (`glm_jax/bundled/model/README.md`).
      dtype: of the parameters, "float32", "bfloat16" or "float16"; None keeps the checkpoint's.
      compute_dtype: of activations, "float32" or "bfloat16"; None: float32 on CPU; elsewhere
        bfloat16 if the parameters have 16 bits, else the checkpoint's.
      mesh: devices to shard over (`glm_jax.sharding.make_mesh`); None: the first device.
      adapter: what was trained over the model: the workdir of a run, a LoRA of PEFT, or a prefix,
        as ChatGLM's P-Tuning or PEFT (PREFIX_TUNING) writes it. Several by name, {"a": DIR,
        "b": DIR}: the model alone, of which `with_adapter("a")` has the first; arrays are shared.
      quantize: "int8" or "int4": the matrices of the layers as integers, one scale per output, as
        ChatGLM is published; a `glm_jax.Quantize` says more: groups, a search, the embedding. None:
        as they are; a quantised directory stays quantised.
      progress: wraps the iterator over the tensors of a Hugging Face directory.

    Raises:
      UserError: no checkpoint at `path`, or one that cannot be used; names what is missing or
        wrong.
    """
    found = load_model(path, dtype, mesh, progress, quantize)
    several: Mapping[str, str | Path] = {}
    if isinstance(adapter, Mapping):
        several = adapter
        # Once for all: a layer that is taken from stacked ones is a copy.
        found = dataclasses.replace(found, params=unstack_layers(found.params))
    elif adapter is not None:
        found = with_adapter(found, adapter, mesh)

    def model(found: Loaded) -> tuple[ResolvedModel, Params]:
        used = compute_dtype or _compute_dtype(found.config)
        return found.config.with_compute(dtype=used), found.params

    lm = LanguageModel(*model(found), found.tokenizer, found.origin)
    if several:
        members: dict[str | None, tuple[ResolvedModel, Params]] = {None: model(found)}
        members |= {name: model(with_adapter(found, one, mesh)) for name, one in several.items()}
        lm._family = members
    return lm


def _compute_dtype(config: ResolvedModel) -> str:
    if jax.default_backend() == "cpu":
        return "float32"
    return config.compute.dtype if config.param_dtype == "float32" else "bfloat16"
