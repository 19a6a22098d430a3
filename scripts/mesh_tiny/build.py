"""Makes mesh-tiny from nothing: corpus, tokenizer, training, both model files, documented prompts.

    python build.py --out ../../models/mesh-tiny [--device cpu] [--work DIR] [further options of train.py]
"""
import argparse
import os
import subprocess
import sys
import tempfile

from corpus import HERE


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--work", help="where weights in full precision and the report go (else a temporary folder)")
    a, for_training = ap.parse_known_args()
    with tempfile.TemporaryDirectory() as spare:
        work = a.work or spare
        for script, options in (("train.py", ["--out", work, *for_training]), ("export.py", ["--work", work, "--out", a.out]), ("prompts.py", ["--out", a.out])):
            subprocess.run([sys.executable, os.path.join(HERE, script), *options], check=True)


if __name__ == "__main__":
    main()
