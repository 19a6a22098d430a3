"""widen_model.py MODEL_DIR OUT_DIR [--dense]: a copy of an MLX model whose floating tensors are f32.

On a CPU MLX is far faster in f32 than in bf16, and mlx-lm runs a checkpoint in the dtype it is stored in, so a fair
comparison there shows it this copy too. --dense also dequantises the matrices.
"""
import argparse
import shutil
from pathlib import Path

import mlx.core as mx
from mlx_lm import utils as lm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dense", action="store_true")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    model, config = lm.load_model(args.model)
    if args.dense:
        model = lm.dequantize_model(model)
        for key in ("quantization", "quantization_config"):
            config.pop(key, None)
    model.set_dtype(mx.float32)
    config["torch_dtype"] = "float32"
    lm.save_model(args.out, model)
    lm.save_config(config, args.out / "config.json")
    for file in args.model.iterdir():
        if file.is_file() and not file.name.startswith("model") and file.name != "config.json":
            shutil.copyfile(file, args.out / file.name)


if __name__ == "__main__":
    main()
