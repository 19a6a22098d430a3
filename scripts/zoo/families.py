"""The zoo's families: for each, a config as the hub's checkpoints write it, tiny, with the family's features on.

`FAMILIES[name]` has: `config` (what the checkpoint's config.json says), `library` (the transformers class and the config
it is made from), `features` (for the README), and what the trainer must know. Nothing here knows how to train or to export.
"""
from dataclasses import dataclass, field

import tokenizer as tk

WINDOW = 8                    # tokens; every prompt, and most distances asked about, are longer
LENGTH = 128                  # tokens of a training row


@dataclass
class Family:
    config: dict
    library: str                        # class of transformers that trains it
    features: str
    text: bool = False                  # the library's config is config["text_config"]
    eager: bool = False                 # attention that only the eager code has (soft caps, sinks)
    both_windows: bool = False          # trained with and without its windows: engines differ on them
    mxfp4: tuple = ()                   # weights that the 4-bit form holds as mxfp4
    gguf: bool = True                   # llama.cpp has the architecture

    @property
    def learnt(self):
        return dict(self.config["text_config"] if self.text else self.config)


def common(**more):
    return dict(vocab_size=tk.VOCAB, hidden_size=64, num_hidden_layers=4, intermediate_size=192, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=tk.CONTEXT,
                initializer_range=0.08, torch_dtype="bfloat16", bos_token_id=None, pad_token_id=tk.VOCAB - 3, eos_token_id=tk.VOCAB - 1, attention_dropout=0.0, use_cache=True) | more


def rms(**more):
    return common(rms_norm_eps=1e-6, hidden_act="silu", rope_theta=10000.0) | more


YARN = dict(type="yarn", factor=8.0, original_max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0)
EXPERTS = dict(moe_intermediate_size=32, norm_topk_prob=True, num_experts_per_tok=2)
MLA = dict(kv_lora_rank=32, q_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, num_key_value_heads=4)
GATED_DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=32, linear_value_head_dim=32, linear_conv_kernel_dim=4, full_attention_interval=2, head_dim=32)
HYBRID = ["linear_attention", "full_attention"] * 2
LOCAL = ["sliding_attention", "full_attention"]
DEEPSEEK = dict(MLA, **EXPERTS, n_routed_experts=8, n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=1, moe_layer_freq=1, topk_method="noaux_tc",
                scoring_func="sigmoid", attention_bias=False, tie_word_embeddings=False, num_nextn_predict_layers=0, ep_size=1)
GEMMA = dict(hidden_activation="gelu_pytorch_tanh", hidden_act="gelu_pytorch_tanh", head_dim=32, rms_norm_eps=1e-6, attention_bias=False, sliding_window=WINDOW, tie_word_embeddings=True)
# gemma4's attention scale is 1 after norms of q and k.
GEMMA4 = common(**GEMMA, model_type="gemma4_text", global_head_dim=64, vocab_size_per_layer_input=tk.VOCAB, final_logit_softcapping=30.0, sliding_window_pattern=2,
                rope_parameters=dict(full_attention=dict(rope_type="proportional", rope_theta=1000000.0, partial_rotary_factor=0.25), sliding_attention=dict(rope_type="default", rope_theta=10000.0)))

FAMILIES = {
    "llama": Family(rms(model_type="llama", architectures=["LlamaForCausalLM"], head_dim=32, attention_bias=False, mlp_bias=False, tie_word_embeddings=False,
                        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
                    "Llama", "grouped queries, llama3 rope scaling over 64 positions, own output head"),
    "mistral": Family(rms(model_type="mistral", architectures=["MistralForCausalLM"], head_dim=32, sliding_window=None, tie_word_embeddings=False, rope_theta=1000000.0),
                      "Mistral", "read as llama; head size of its own (4 × 32 over a width of 64)"),
    "smollm3": Family(rms(model_type="smollm3", architectures=["SmolLM3ForCausalLM"], attention_bias=False, mlp_bias=False, tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1,
                          rope_theta=5000000.0, no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0], use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * 4),
                      "SmolLM3", "every fourth layer without rope"),
    "qwen2": Family(rms(model_type="qwen2", architectures=["Qwen2ForCausalLM"], num_attention_heads=2, num_key_value_heads=1, rope_theta=1000000.0, tie_word_embeddings=True, use_sliding_window=False),
                    "Qwen2", "biases on q, k and v, tied embeddings"),
    "qwen3": Family(rms(model_type="qwen3", architectures=["Qwen3ForCausalLM"], head_dim=32, attention_bias=False, rope_theta=1000000.0, tie_word_embeddings=True, use_sliding_window=False),
                    "Qwen3", "norms of q and k, tied embeddings"),
    "qwen3_moe": Family(rms(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], head_dim=32, attention_bias=False, rope_theta=1000000.0, tie_word_embeddings=False, use_sliding_window=False,
                            num_experts=8, decoder_sparse_step=1, mlp_only_layers=[], **EXPERTS),
                        "Qwen3Moe", "8 experts, 2 a token, softmax router, norms of q and k"),
    "qwen3_next": Family(rms(model_type="qwen3_next", architectures=["Qwen3NextForCausalLM"], **GATED_DELTA, attention_bias=False, tie_word_embeddings=False, partial_rotary_factor=0.25, rope_scaling=None,
                             num_experts=8, decoder_sparse_step=1, mlp_only_layers=[], shared_expert_intermediate_size=32, layer_types=HYBRID, **EXPERTS),
                         "Qwen3Next", "gated delta net (2 key, 4 value heads, convolution of 4) before each full layer, gated attention output, rope on a quarter of the head, 8 experts and a gated shared one"),
    "qwen3_5": Family(dict(model_type="qwen3_5", architectures=["Qwen3_5ForConditionalGeneration"], tie_word_embeddings=True, torch_dtype="bfloat16", eos_token_id=tk.VOCAB - 1, pad_token_id=tk.VOCAB - 3,
                           text_config=rms(model_type="qwen3_5_text", **GATED_DELTA, attention_bias=False, tie_word_embeddings=True, layer_types=HYBRID,
                                           rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25, mrope_interleaved=True, mrope_section=[2, 1, 1]))),
                      "Qwen3_5", "gated delta net before each full layer, gated attention output, multimodal rope (sections 2, 1, 1) on a quarter of the head, tied embeddings", text=True),
    "qwen3_5_moe": Family(dict(model_type="qwen3_5_moe", architectures=["Qwen3_5MoeForConditionalGeneration"], tie_word_embeddings=False, torch_dtype="bfloat16", eos_token_id=tk.VOCAB - 1, pad_token_id=tk.VOCAB - 3,
                               text_config=rms(model_type="qwen3_5_moe_text", **GATED_DELTA, attention_bias=False, tie_word_embeddings=False, layer_types=HYBRID,
                                               num_experts=8, shared_expert_intermediate_size=32, **EXPERTS,
                                               rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25, mrope_interleaved=True, mrope_section=[2, 1, 1]))),
                          "Qwen3_5Moe", "as qwen3_5, with 8 experts, 2 a token, and a gated shared one", text=True),
    "gemma2": Family(common(**GEMMA, model_type="gemma2", architectures=["Gemma2ForCausalLM"], rope_theta=10000.0, query_pre_attn_scalar=48, attn_logit_softcapping=20.0, final_logit_softcapping=15.0,
                            layer_types=LOCAL * 2),
                     "Gemma2", "soft caps on scores (20) and logits (15), windows of 8 in every other layer, norms before and after, query scale of its own", eager=True, both_windows=True),
    "gemma3_text": Family(common(**GEMMA, model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], num_hidden_layers=6, rope_theta=1000000.0, rope_local_base_freq=10000.0, query_pre_attn_scalar=48,
                                 rope_scaling=dict(rope_type="linear", factor=8.0), sliding_window_pattern=3, num_key_value_heads=1, layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2)
                          | dict(intermediate_size=128),
                          "Gemma3", "two layers with windows of 8 to one full layer, two rope bases, linear rope scaling by 8 in the full ones, norms of q and k"),
    "gemma4": Family(dict(model_type="gemma4", architectures=["Gemma4ForConditionalGeneration"], tie_word_embeddings=True, torch_dtype="bfloat16", vocab_size=tk.VOCAB, eos_token_id=tk.VOCAB - 1, pad_token_id=tk.VOCAB - 3,
                          text_config=GEMMA4 | dict(num_hidden_layers=6, intermediate_size=96, num_key_value_heads=1, num_kv_shared_layers=2, hidden_size_per_layer_input=32, use_double_wide_mlp=True,
                                                    enable_moe_block=False, attention_k_eq_v=False, layer_types=LOCAL * 3)),
                     "Gemma4", "windows of 8 in every other layer, head size 32 there and 64 in full layers, proportional rope on a quarter, an embedding per layer, the last two layers share keys and values and are twice as wide", text=True),
    "gemma4_moe": Family(dict(model_type="gemma4", architectures=["Gemma4ForConditionalGeneration"], tie_word_embeddings=True, torch_dtype="bfloat16", vocab_size=tk.VOCAB, eos_token_id=tk.VOCAB - 1, pad_token_id=tk.VOCAB - 3,
                              text_config=GEMMA4 | dict(intermediate_size=96, num_kv_shared_layers=0, hidden_size_per_layer_input=0, use_double_wide_mlp=False, enable_moe_block=True, num_experts=8, top_k_experts=2,
                                                        moe_intermediate_size=32, attention_k_eq_v=True, num_global_key_value_heads=1, layer_types=LOCAL * 2)),
                         "Gemma4", "as gemma4 without the per-layer embeddings; 8 experts beside the dense layer, values equal to keys and one key-value head in full layers", text=True),
    "glm4": Family(rms(model_type="glm4", architectures=["Glm4ForCausalLM"], head_dim=32, attention_bias=True, partial_rotary_factor=0.5, tie_word_embeddings=False),
                   "Glm4", "traditional rope on half the head, biases, norms before and after, fused gate and up"),
    "glm4_moe": Family(rms(model_type="glm4_moe", architectures=["Glm4MoeForCausalLM"], head_dim=32, attention_bias=True, use_qk_norm=True, partial_rotary_factor=0.5, tie_word_embeddings=False, rope_scaling=None,
                           n_routed_experts=8, n_shared_experts=1, n_group=1, topk_group=1, routed_scaling_factor=1.5, first_k_dense_replace=1, num_nextn_predict_layers=0, **EXPERTS),
                       "Glm4Moe", "a dense layer, then 8 experts (sigmoid router with biases, scaled by 1.5) and a shared one, norms of q and k, biases, rope on half the head"),
    "glm4_moe_lite": Family(rms(model_type="glm4_moe_lite", architectures=["Glm4MoeLiteForCausalLM"], **(DEEPSEEK | dict(n_group=1, topk_group=1, routed_scaling_factor=1.8)), rope_scaling=None,
                                partial_rotary_factor=1.0, rope_interleave=True),
                            "Glm4MoeLite", "MLA (latents of 32, 32 + 16 a head), a dense layer, then 8 experts (sigmoid router with biases) and a shared one"),
    "lfm2": Family(common(model_type="lfm2", architectures=["Lfm2ForCausalLM"], num_hidden_layers=6, intermediate_size=128, block_ff_dim=128, block_dim=64, block_multiple_of=32, block_ffn_dim_multiplier=1.0,
                          block_auto_adjust_ff_dim=False, num_attention_heads=2, num_key_value_heads=1, norm_eps=1e-5, conv_bias=False, conv_L_cache=3, rope_theta=1000000.0, tie_word_embeddings=True, tie_embedding=True,
                          layer_types=["conv", "conv", "full_attention"] * 2, full_attn_idxs=[2, 5]),
                   "Lfm2", "two gated short convolutions (of 3) to one attention layer, norms of q and k"),
    "deepseek_v3": Family(rms(model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"], **DEEPSEEK, n_group=4, topk_group=2, rope_scaling=YARN | dict(mscale=1.0, mscale_all_dim=1.0)),
                          "DeepseekV3", "MLA (latents of 32, 32 + 16 a head), YaRN over 64 positions with mscale, 8 experts in 4 groups (2 groups, 2 experts a token, biases, scaled by 2.5) and a shared one, a dense first layer"),
    "kimi_k2": Family(rms(model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"], **(DEEPSEEK | dict(routed_scaling_factor=2.827)), n_group=1, topk_group=1, rope_theta=50000.0,
                          rope_scaling=YARN | dict(mscale=1.0, mscale_all_dim=1.0, beta_fast=1.0)),
                      "DeepseekV3", "read as deepseek_v3; one group of 8 experts, rope base 50000, YaRN with beta_fast 1"),
    "kimi_linear": Family(rms(model_type="kimi_linear", architectures=["KimiLinearForCausalLM"], rms_norm_eps=1e-5, head_dim=16, model_max_length=tk.CONTEXT, kv_lora_rank=32, q_lora_rank=None, qk_nope_head_dim=32,
                              qk_rope_head_dim=16, v_head_dim=32, num_key_value_heads=4, mla_use_nope=True, num_experts=8, num_experts_per_token=2, num_shared_experts=1, moe_intermediate_size=32,
                              moe_renormalize=True, moe_router_activation_func="sigmoid", routed_scaling_factor=2.446, use_grouped_topk=True, num_expert_group=1, topk_group=1, first_k_dense_replace=1,
                              moe_layer_freq=1, rope_scaling=None, tie_word_embeddings=False,
                              linear_attn_config=dict(full_attn_layers=[2, 4], kda_layers=[1, 3], head_dim=32, num_heads=2, short_conv_kernel_size=4)),
                          "KimiLinear", "Kimi delta attention (2 heads of 32, convolution of 4) before each MLA layer without rope, a dense layer, then 8 experts (sigmoid router with biases) and a shared one"),
    "gpt_oss": Family(rms(model_type="gpt_oss", architectures=["GptOssForCausalLM"], rms_norm_eps=1e-5, head_dim=32, attention_bias=True, sliding_window=WINDOW, layer_types=LOCAL * 2, num_local_experts=8,
                          num_experts_per_tok=2, experts_per_token=2, intermediate_size=32, swiglu_limit=7.0, rope_theta=150000.0, rope_scaling=YARN | dict(rope_type="yarn"), tie_word_embeddings=False,
                          router_aux_loss_coef=0.0, output_router_logits=False),
                      "GptOss", "sinks, windows of 8 in every other layer, YaRN over 64 positions, 8 experts with biases and clamped SwiGLU (mxfp4 in the 4-bit form), biases everywhere", eager=True,
                      mxfp4=("experts.gate_up_proj", "experts.down_proj")),
    "olmo2": Family(rms(model_type="olmo2", architectures=["Olmo2ForCausalLM"], num_key_value_heads=4, attention_bias=False, tie_word_embeddings=False, rope_theta=500000.0),
                    "Olmo2", "norms after attention and feed-forward only, norms of q and k over all heads together"),
    "phi3": Family(rms(model_type="phi3", architectures=["Phi3ForCausalLM"], num_attention_heads=2, num_key_value_heads=1, attention_bias=False, tie_word_embeddings=True, partial_rotary_factor=0.75, sliding_window=None,
                       original_max_position_embeddings=64, rope_scaling=dict(type="longrope", long_factor=[1.0 + 0.25 * i for i in range(12)], short_factor=[1.0 + 0.05 * i for i in range(12)])),
                   "Phi3", "fused q-k-v and gate-up, LongRoPE over 64 positions (its long factors at every length, as mlx-lm and llama.cpp have them) on three quarters of the head"),
}
