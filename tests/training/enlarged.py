"""A T5 whose residual stream is larger by a power of two, and whose function is the same."""

import torch
from torch import nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm


def enlarge(model: T5ForConditionalGeneration, factor: float) -> T5ForConditionalGeneration:
    """`model`, changed in place: what writes on the residual stream writes `factor` times as much.

    Every reader of the stream begins with a layer norm, for which the size does not matter once epsilon has
    grown with it. The output layer, which was the embedding, becomes a layer of its own.
    """
    output = model.lm_head.weight.detach().clone()
    if model.config.tie_word_embeddings:
        output *= model.config.d_model**-0.5
    model.config.tie_word_embeddings = False
    model.config.scale_decoder_outputs = False
    model.lm_head.weight = nn.Parameter(output)
    with torch.no_grad():
        model.shared.weight *= factor
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in ("o", "wo"):
                module.weight *= factor
            elif isinstance(module, T5LayerNorm):
                module.variance_epsilon *= factor**2
    return model
