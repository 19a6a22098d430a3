"""Builds a family's network from transformers' class, ready for CUDA graphs: no step of it may wait for the GPU.

Three replacements, each the same arithmetic in another order: experts all at once instead of one by one, LongRoPE's
factors fixed, and Kimi delta attention's triangular inverse by a solver. `python nets.py` holds them to the library's own code.
"""
import importlib
import sys

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.kimi_linear import modeling_kimi_linear as kimi

from families import FAMILIES, WINDOW

KDA_CHUNK = 16
LIBRARY_KDA = kimi.chunk_kimi_delta_attention


def all_experts(self, hidden, chosen, weights):
    """Every expert on every token, weighted by the router (0 for those not chosen)."""
    share = torch.zeros(hidden.shape[0], self.num_experts, dtype=hidden.dtype, device=hidden.device).scatter(1, chosen, weights.to(hidden.dtype))
    up, down = (self.gate_up_proj, self.down_proj) if self.is_transposed else (self.gate_up_proj.transpose(1, 2), self.down_proj.transpose(1, 2))
    x = hidden @ up
    if self.has_bias:
        x = x + self.gate_up_proj_bias[:, None]
    x = self._apply_gate(x) @ down
    if self.has_bias:
        x = x + self.down_proj_bias[:, None]
    return (x * share.t()[..., None]).sum(0)


def delta_attention(query, key, value, g, beta, chunk_size=KDA_CHUNK, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=False, **_):
    """Kimi delta attention over chunks, as the library's chunk_kimi_delta_attention; no state in or out."""
    assert initial_state is None and not output_final_state
    q, k, v, beta, g = (x.transpose(1, 2).float() for x in (query, key, value, beta, g))
    if use_qk_l2norm_in_kernel:
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    length = q.shape[2]
    pad = -length % chunk_size
    q, k, v, g = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v, g))
    beta = F.pad(beta, (0, pad))[..., None]
    q = q * q.shape[-1] ** -0.5
    q, k, v, g, vb, kb = (x.unflatten(2, (-1, chunk_size)) for x in (q, k, v, g, v * beta, k * beta))
    g = g.cumsum(-2)
    later = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).triu(1)
    decay = (g.unsqueeze(-2) - g.unsqueeze(-3)).masked_fill(later[..., None], float("-inf")).exp()
    system = torch.einsum("bhnik,bhnjk,bhnijk->bhnij", kb, k, decay)
    inner = torch.einsum("bhnik,bhnjk,bhnijk->bhnij", q, k, decay)
    solved = torch.linalg.solve_triangular(system, torch.cat([vb, kb * g.exp()], -1), upper=False, unitriangular=True)
    fresh, old = solved.split([v.shape[-1], k.shape[-1]], -1)
    q = q * g.exp()
    carried = k * (g[..., -1:, :] - g).exp()
    state, out = 0.0 * (carried[:, :, 0].transpose(-1, -2) @ fresh[:, :, 0]), []
    for i in range(q.shape[2]):
        new = fresh[:, :, i] - old[:, :, i] @ state
        out.append(q[:, :, i] @ state + inner[:, :, i] @ new)
        state = state * g[:, :, i, -1].exp().unsqueeze(-1) + carried[:, :, i].transpose(-1, -2) @ new
    out = torch.stack(out, 2).flatten(2, 3)[:, :, :length]
    return out.transpose(1, 2).contiguous().to(query.dtype), None


ALL_EXPERTS_FUNCTIONS["zoo"] = all_experts


def config_of(family):
    """The library's config object for a family."""
    data = family.learnt
    kind = {"kimi_k2": "deepseek_v3"}.get(data["model_type"], data["model_type"])
    data["model_type"] = kind
    return CONFIG_MAPPING[kind].from_dict(data)


def build(family, seed, plain=False):
    """The network. `plain` leaves the library's own code everywhere (for tests)."""
    torch.manual_seed(seed)
    config = config_of(family)
    config._attn_implementation = "eager" if family.eager else "sdpa"
    config._experts_implementation = "eager" if plain else "zoo"
    model = getattr(transformers, family.library + "ForCausalLM")(config).float().eval()
    kimi.chunk_kimi_delta_attention = LIBRARY_KDA if plain else delta_attention
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):      # a router's biases are set by load, not by gradient: fixed here, above zero
            buffer.copy_(torch.linspace(0.0, 0.06, buffer.numel())[torch.randperm(buffer.numel())].to(torch.bfloat16))
    if family.library == "Phi3":
        fix_longrope(model.model.rotary_emb, config)
    return model


def load(model, path):
    """Puts the weights of a file, under the library's names, into the network; a tied head is not in the file."""
    missing, extra = model.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    tied = set(getattr(model, "_tied_weights_keys", None) or []) if model.config.tie_word_embeddings else set()
    assert not extra and set(missing) <= tied, (path, missing, extra)
    model.tie_weights()
    return model


def fix_longrope(rope, config):
    """Long factors at every length, without asking how long the row is."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    inv, scale = ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=config.max_position_embeddings)
    rope.register_buffer("inv_freq", inv, persistent=False)

    def forward(x, position_ids, layer_type=None):
        angle = position_ids[..., None].float() * rope.inv_freq
        angle = torch.cat([angle, angle], -1)
        return (angle.cos() * scale).to(x.dtype), (angle.sin() * scale).to(x.dtype)
    rope.forward = forward


def masks(family, model, length, device, windows=True):
    """What the network's forward takes as attention_mask: additive masks, one per kind of layer where it has kinds."""
    i, j = torch.arange(length)[:, None], torch.arange(length)
    def additive(seen):
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None].to(device)
    full = additive(j <= i)
    module = importlib.import_module(type(model).__module__)
    with open(module.__file__, encoding="utf-8") as f:
        if "isinstance(causal_mask_mapping := attention_mask, dict)" not in f.read():
            return full
    return dict(full_attention=full, sliding_attention=additive((j <= i) & (i - j < WINDOW)) if windows else full, linear_attention=None, conv=None)


def main():
    """Logits of each network as it is trained and as the library has it, over rows longer than every rope's first length."""
    tokens = torch.randint(0, 288, (2, 100), generator=torch.Generator().manual_seed(1))
    worst = 0.0
    for name, family in FAMILIES.items():
        with torch.no_grad():
            theirs = build(family, 1, plain=True)
            want = theirs(input_ids=tokens, use_cache=False).logits
            ours = build(family, 1)
            ours.load_state_dict(theirs.state_dict())
            got = ours(input_ids=tokens, attention_mask=masks(family, ours, 100, "cpu"), position_ids=torch.arange(100)[None], use_cache=False).logits
        delta = float((want - got).abs().max())
        worst = max(worst, delta)
        print(f"{name:14} {delta:.1e}", flush=True)
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
