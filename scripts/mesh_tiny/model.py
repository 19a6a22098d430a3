"""The qwen3 architecture in plain PyTorch, small, with fake-quantised weights for training.

Tensor names are those of the Hugging Face checkpoints, so export is a walk over `state_dict()`.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from quant import fake, fake_bf16


@dataclass
class Shape:
    vocab: int = 1280
    hidden: int = 192
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 384
    theta: float = 10000.0
    eps: float = 1e-6
    context: int = 4096
    compute: torch.dtype = torch.float32     # what matrices are multiplied in; the residual stream stays f32


class Norm(nn.Module):
    def __init__(self, n, s):
        super().__init__()
        self.weight, self.s = nn.Parameter(torch.ones(n)), s

    def forward(self, x, amount):
        return F.rms_norm(x.float(), x.shape[-1:], fake_bf16(self.weight, amount), self.s.eps).to(self.s.compute)


class Matrix(nn.Module):
    """A linear map without bias, seen through its 4-bit form."""

    def __init__(self, n_in, n_out, std):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) * std)

    def forward(self, x, amount):
        return F.linear(x, fake(self.weight, amount).to(x.dtype))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def attend(q, k, v, mask):
    """`mask` is flex attention's BlockMask, a table of booleans, or None for plain causal."""
    if isinstance(mask, BlockMask):
        return flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    n = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1), attn_mask=mask, is_causal=mask is None)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        std = s.hidden ** -0.5
        self.q_proj = Matrix(s.hidden, s.heads * s.head_dim, std)
        self.k_proj = Matrix(s.hidden, s.kv_heads * s.head_dim, std)
        self.v_proj = Matrix(s.hidden, s.kv_heads * s.head_dim, std)
        self.o_proj = Matrix(s.heads * s.head_dim, s.hidden, 0.3 * (s.heads * s.head_dim) ** -0.5)
        self.q_norm, self.k_norm = Norm(s.head_dim, s), Norm(s.head_dim, s)

    def forward(self, x, cos, sin, mask, amount):
        b, n, _ = x.shape
        s = self.s
        q = self.q_norm(self.q_proj(x, amount).view(b, n, s.heads, s.head_dim), amount).transpose(1, 2)
        k = self.k_norm(self.k_proj(x, amount).view(b, n, s.kv_heads, s.head_dim), amount).transpose(1, 2)
        v = self.v_proj(x, amount).view(b, n, s.kv_heads, s.head_dim).transpose(1, 2)
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask)
        return self.o_proj(y.transpose(1, 2).reshape(b, n, -1), amount)


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj = Matrix(s.hidden, s.ffn, s.hidden ** -0.5)
        self.up_proj = Matrix(s.hidden, s.ffn, s.hidden ** -0.5)
        self.down_proj = Matrix(s.ffn, s.hidden, 0.3 * s.ffn ** -0.5)

    def forward(self, x, amount):
        return self.down_proj(F.silu(self.gate_proj(x, amount)) * self.up_proj(x, amount), amount)


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.self_attn, self.mlp = Attention(s), Mlp(s)
        self.input_layernorm, self.post_attention_layernorm = Norm(s.hidden, s), Norm(s.hidden, s)

    def forward(self, x, cos, sin, mask, amount):
        x = x + self.self_attn(self.input_layernorm(x, amount), cos, sin, mask, amount)
        return x + self.mlp(self.post_attention_layernorm(x, amount), amount)


class Body(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s)


class Qwen3(nn.Module):
    """`forward(ids, mask, amount)` gives the logits; `amount` is how far weights are drawn to their 4-bit form."""

    def __init__(self, s=Shape()):
        super().__init__()
        self.s, self.model = s, Body(s)

    def forward(self, ids, mask, amount, where=None):
        m, s = self.model, self.s
        table = fake(m.embed_tokens.weight, amount)
        x = F.embedding(ids, table)
        half = torch.arange(0, s.head_dim, 2, device=ids.device).float() / s.head_dim
        angle = torch.arange(ids.shape[1], device=ids.device).float()[:, None] * s.theta ** -half
        cos, sin = angle.cos(), angle.sin()
        for layer in m.layers:
            x = layer(x, cos, sin, mask, amount)
        x = m.norm(x, amount)
        if where is not None:                  # only the places that are learnt need logits
            x = x.reshape(-1, x.shape[-1])[where]
        return F.linear(x, table.to(s.compute)).float()


if __name__ == "__main__":
    print(sum(p.numel() for p in Qwen3().parameters()), "parameters")
