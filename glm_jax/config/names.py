"""Suggestions for unknown config names: `train.lr` is `optimizer.peak_learning_rate` here."""

from collections.abc import Collection

from glm_jax.errors import did_you_mean

# The names that other projects use, by the name used here.
_OTHER_NAMES = {
    "model.num_layers": "layers n_layer n_layers num_hidden_layers depth",
    "model.embed_dim": "hidden_size hidden_dim hidden d_model dim n_embd emb_dim width",
    "model.num_heads": "heads n_head n_heads num_attention_heads attention_heads",
    "model.num_kv_heads": "kv_heads n_kv_heads num_key_value_heads multi_query_group_num",
    "model.head_dim": "d_head head_size kv_channels",
    "model.mlp_dim": "d_ff ffn_dim ffn_hidden_size intermediate_size mlp ff_dim",
    "model.vocab_size": "vocab n_vocab padded_vocab_size",
    "model.max_positions": "max_position_embeddings n_positions",
    "model.dropout_rate": "dropout hidden_dropout resid_dropout",
    "model.attention_dropout_rate": "attention_dropout attn_dropout",
    "model.prefix_length": "pre_seq_len num_virtual_tokens prefix_len",
    "model.prefix_dropout_rate": "prefix_dropout",
    "compute.dtype": "compute_dtype precision mixed_precision bf16 fp16",
    "compute.remat": "gradient_checkpointing activation_checkpointing",
    "compute.attention_backend": "attention attn attn_implementation flash_attention",
    "data.source": "dataset data_path train_file corpus files text path",
    "data.sequence_length": "seq_len seq_length sequence_len max_length max_len max_seq_length "
    "max_seq_len block_size context_length n_ctx length",
    "data.batch_size": "bs batch batchsize global_batch_size train_batch_size "
    "per_device_train_batch_size per_device_batch_size micro_batch_size",
    "data.eval_fraction": "val_fraction validation_split val_split valid_fraction",
    "data.tokenizer": "vocab_file tokenizer_path tokenizer_name",
    "examples.format": "dataset_format template chat_format",
    "examples.prompt_field": "prompt_column instruction_column",
    "examples.response_field": "response_column output_column",
    "examples.history_field": "history_column",
    "examples.loss_on": "train_on combine completion_only_loss train_on_inputs",
    "examples.max_source_length": "max_input_length",
    "examples.max_target_length": "max_output_length",
    "examples.packed": "packing pack",
    "objective.mask_ratio": "mask_prob mlm_probability masking_ratio noise_density",
    "objective.mean_span_length": "span_length mean_noise_span_length poisson_lambda",
    "objective.span_rate": "objective objectives",
    "optimizer.peak_learning_rate": "lr learning_rate max_lr peak_lr base_lr",
    "optimizer.final_ratio": "min_lr min_lr_ratio final_lr",
    "optimizer.warmup_steps": "warmup num_warmup_steps lr_warmup_steps warmup_ratio",
    "optimizer.decay_steps": "lr_decay_steps lr_decay_iters decay",
    "optimizer.weight_decay": "wd",
    "optimizer.clip_norm": "grad_clip clip max_grad_norm gradient_clip_val gradient_clipping",
    "optimizer.schedule": "scheduler lr_schedule lr_scheduler lr_scheduler_type",
    "optimizer.name": "optim optimizer",
    "optimizer.beta1": "b1 adam_beta1",
    "optimizer.beta2": "b2 adam_beta2",
    "optimizer.epsilon": "eps adam_epsilon",
    "train.num_steps": "steps max_steps train_steps total_steps iters max_iters num_iters epochs "
    "epoch num_epochs max_epochs num_train_epochs",
    "train.seed": "random_seed",
    "train.init_from": "pretrained init resume_from model_name_or_path load",
    "train.accumulation_steps": "accum grad_accum gradient_accumulation_steps grad_acc "
    "accumulate_grad_batches",
    "train.log_every": "log_interval logging_steps",
    "train.eval_every": "eval_interval eval_steps val_every",
    "train.checkpoint_every": "save_every save_steps save_interval ckpt_every checkpoint_steps",
    "train.keep_checkpoints": "save_total_limit max_to_keep keep",
    "lora.rank": "r lora_r lora_rank",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.targets": "target_modules lora_target lora_targets",
    "lora.rank_stabilized": "use_rslora rslora",
    "train.quantize_base": "quantization_bit load_in_4bit load_in_8bit quantization",
    "train.stop_above": "max_kl target_kl early_stopping",
    "preferences.beta": "dpo_beta pref_beta kl_beta",
    "preferences.label_smoothing": "dpo_label_smoothing",
    "preferences.margin": "simpo_gamma gamma",
    "preferences.reference": "ref_model reference_model precompute_ref_log_probs",
    "rollouts.group_size": "num_generations rollout_n n_samples_per_prompt",
    "rollouts.max_new_tokens": "max_completion_length response_length generate_max_len",
    "rollouts.reward": "reward_funcs reward_function custom_reward_function",
    "rollouts.passes": "num_iterations ppo_epochs num_ppo_epochs",
    "rollouts.truncated": "mask_truncated_completions overlong_filtering",
    "policy.clip_low": "epsilon cliprange eps_clip clip_ratio",
    "policy.clip_high": "epsilon_high clip_ratio_high",
    "policy.advantages": "scale_rewards adv_estimator",
    "policy.loss_per": "loss_type loss_agg_mode",
    "policy.kl_estimator": "kl_loss_type",
    "policy.kl_by_ratio": "use_bias_correction_kl",
    "policy.entropy_bonus": "entropy_coeff entropy_coef",
    "policy.value_coefficient": "vf_coef",
    "policy.value_clip": "cliprange_value",
    "policy.gae_lambda": "lam gae_lam",
    "mesh.data": "dp data_parallel",
    "mesh.fsdp": "zero sharding",
    "mesh.tensor": "tp tensor_parallel model_parallel tensor_parallel_size",
    "mesh.sequence": "cp sp context_parallel sequence_parallel",
}
_MEANT = {other: name for name, others in _OTHER_NAMES.items() for other in others.split()}


def suggestion(name: str, names: Collection[str]) -> str:
    """Returns ` (did you mean 'model.num_layers'?)` for an unknown name, or the empty string.

    Tried in this order: the same name in another section, the name in other projects, the nearest
    spelling with its section, the nearest without.

    Args:
      name: the unknown name, dotted or not.
      names: all known names, dotted.
    """
    key = name.rpartition(".")[2].strip().lower().replace("-", "_")
    by_key: dict[str, str] = {}
    for known in names:
        by_key.setdefault(known.rpartition(".")[2], known)
    meant = by_key.get(key) or _MEANT.get(key)
    if meant is None:
        in_section = did_you_mean(name, names)
        if in_section:
            return _with_a_remark(in_section, key)
        close = did_you_mean(key, by_key)
        meant = by_key[close.split("'")[1]] if close else None
    return _with_a_remark(f" (did you mean {meant!r}?)", key) if meant in names else ""


def _with_a_remark(hint: str, key: str) -> str:
    if "epoch" in key:
        return hint[:-1] + " It counts steps; `train` prints how many are an epoch.)"
    return hint
