"""What counts as a T5: its stacks of blocks, its real sizes, and which models are refused."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PretrainedConfig

from peft_scratch.errors import UserError
from peft_scratch.methods.parameters import unwrapped

#: The top-level parts of a T5. Any other part is an extra head.
_PARTS = ("shared", "encoder", "decoder", "lm_head")


def stacks(model: nn.Module) -> dict[str, nn.Module]:
    """The model's stacks of blocks, `encoder` and, unless it is an encoder alone, `decoder`."""
    found = {name: getattr(model, name, None) for name in ("encoder", "decoder")}
    return {name: stack for name, stack in found.items() if isinstance(stack, nn.Module)}


def config_as_built(model: nn.Module) -> PretrainedConfig:
    """A copy of the model's configuration, with the numbers of layers that the model really has.

    The configuration of an encoder alone (of umT5, say) may still say encoder and decoder, and after layers
    were cut off it may still have their old number.
    """
    config, found = copy.deepcopy(model.config), stacks(model)
    config.is_encoder_decoder = "decoder" in found
    config.num_layers = len(found["encoder"].block)
    if "decoder" in found:
        config.num_decoder_layers = len(found["decoder"].block)
    return config


def require_t5(model: object, method: object) -> None:
    """Raise a UserError unless `method` can be applied to `model`; nothing is changed.

    T5, T5 v1.1, flan-T5, mT5, umT5, LongT5 and ByT5 are accepted, and the encoder of each.
    """
    if not isinstance(model, nn.Module):
        there = repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
        raise UserError(
            f"{method!r} goes into a model, not into {there}: load one with "
            "T5ForConditionalGeneration.from_pretrained first."
        )
    name = type(model).__name__
    if (inner := unwrapped(model)) is not model:
        raise UserError(
            f"The model is in a wrapper, a {name} around a {type(inner).__name__}: apply {method!r} to the "
            "model itself, then wrap the model that it returns."
        )
    children = {child for child, _ in model.named_children()}
    blocks = [block for stack in stacks(model).values() for block in getattr(stack, "block", ())]
    if "encoder" not in children or not blocks or not all(map(_is_t5_block, blocks)):
        raise UserError(
            f"{method!r} goes into a T5 (T5, flan-T5, mT5, umT5, LongT5, ByT5) or into the encoder of one; "
            f"this is a {name}, made of {', '.join(sorted(children)) or 'nothing'}."
        )
    if heads := sorted({name.partition(".")[0] for name, _ in model.named_parameters()} - set(_PARTS)):
        raise UserError(
            f"This {name} has a part of its own, {', '.join(heads)}, that {method!r} would freeze untrained; "
            "load the weights as a T5ForConditionalGeneration or a T5EncoderModel."
        )
    if any(p.is_meta for p in model.parameters()) and any(hasattr(m, "_hf_hook") for m in model.modules()):
        raise UserError(
            f"Weights of this {name} are offloaded to memory or disk, where nothing can be trained: load it "
            "without device_map, or with one that has room for all of it."
        )
    if any(p.is_inference() for p in model.parameters()):
        raise UserError(f"This {name} was made within torch.inference_mode: load it again outside of it.")
    if difference := _unlike_its_configuration(model):
        raise UserError(
            f"This {name} is not what its configuration says, {difference}: load a fresh base model."
        )
    if getattr(model.config, "pruned_heads", None):
        raise UserError("Attention heads of this model were pruned: load a fresh base model.")
    for parameter_name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise UserError(
                f"This {name} is quantised (its {parameter_name} is {parameter.dtype}): load it without "
                "quantisation, in float32, bfloat16 or float16."
            )


def _unlike_its_configuration(model: nn.Module) -> str | None:
    """The first linear layer that is missing, shared or of another size, in words; None if all are right."""
    config, seen = config_as_built(model), set()
    width, inner = config.d_model, config.num_heads * config.d_kv
    shapes = {**dict.fromkeys(("q", "k", "v"), (inner, width)), "o": (width, inner)}
    shapes |= {**dict.fromkeys(("wi", "wi_0", "wi_1"), (config.d_ff, width)), "wo": (width, config.d_ff)}
    for stack_name, stack in stacks(model).items():
        for number, block in enumerate(stack.block):
            where, there = f"{stack_name}.block.{number}", dict.fromkeys(shapes, 0)
            for layer_name, layer in block.named_modules():
                last = layer_name.rpartition(".")[2]
                if last not in shapes or getattr(layer, "weight", None) is None:
                    continue
                if (found := tuple(layer.weight.shape)) != shapes[last]:
                    return f"{where}.{layer_name} being {found} and not {shapes[last]}"
                if layer in seen:
                    return f"{where}.{layer_name} being the same as in another block"
                seen.add(layer)
                there[last] += 1
            attentions = len(block.layer) - 1
            if missing := [last for last in ("q", "k", "v", "o") if there[last] != attentions]:
                return f"{where} lacking a layer {missing[0]}"
    return None


def _is_t5_block(block: nn.Module) -> bool:
    return hasattr(block, "layer") and hasattr(block.layer[-1], "DenseReluDense")
