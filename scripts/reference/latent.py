"""Latent attention as its makers store it."""
import math

from draw import ROOT3, f32


def as_published(tensors: list) -> list:
    """`embed_q` and `unembed_out` in one matrix, `kv_b_proj`."""
    out, whole = [], {}
    for name, shape, kind, scale, offset in tensors:
        if name.endswith(("embed_q.weight", "unembed_out.weight")):
            heads, rows, rank = shape if "unembed_out" in name else (shape[0], shape[2], shape[1])
            name = name.rsplit(".", 2)[0] + ".kv_b_proj.weight"
            rows = heads * rows + (whole[name][1][0] if name in whole else 0)
            whole[name] = [name, [rows, rank], kind, f32(ROOT3 / math.sqrt(rank)), 0.0]
        else:
            out.append([name, shape, kind, scale, offset])
    return sorted(out + list(whole.values()))
