"""Stops the image's build when pip took another torch than was meant: the CUDA one is gigabytes."""

import sys

import torch

wanted = sys.argv[1]
found = "cuda" if torch.version.cuda else "cpu"
if wanted not in ("cpu", "cuda"):
    sys.exit(f"TORCH={wanted}: choose cpu or cuda")
if found != wanted:
    mend = (
        "tell pip where PyTorch's CPU builds are, by --build-arg PIP_EXTRA_INDEX_URL=…"
        if wanted == "cpu"
        else "leave PIP_EXTRA_INDEX_URL out, so that pip takes the default index's build"
    )
    sys.exit(f"TORCH={wanted}, but pip installed torch {torch.__version__} for {found}: {mend}")
