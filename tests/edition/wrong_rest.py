"""Finding places, freezing, saving and calling libraries with one mistake each."""

from functools import partial

import torch
from torch import nn

from peft_scratch.methods.checkpoint import entries_of
from peft_scratch.methods.injection import find_in_blocks
from peft_scratch.methods.parameters import freeze_all_but


def _linears(model, blocks=".block."):
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and blocks in f".{n}"]


def _found(keep):
    """`find_in_blocks`, which refuses what is missing, with `keep(name)` of what it finds."""
    return lambda model, targets, kind: [n for n in find_in_blocks(model, targets, kind) if keep(n)]


def _by_part(model, targets, kind):
    find_in_blocks(model, targets, kind)
    return [name for name in _linears(model) if any(target in name for target in targets)]


def _outside(model, targets, kind):
    find_in_blocks(model, targets, kind)
    return [name for name in _linears(model, "") if name == "lm_head" or name.split(".")[-1] in targets]


def _last_part(model, targets, kind, blocks=".block.", of=nn.Module):
    """Looks at the last part of the name and at little else."""
    find_in_blocks(model, targets, kind)
    return [
        name
        for name, module in model.named_modules()
        if name.split(".")[-1] in targets and blocks in f".{name}" and isinstance(module, of)
    ]


def _silent(model, targets, kind):
    return [name for name in _linears(model) if name.split(".")[-1] in targets]


def _also(chosen):
    """Freezes, then lets the parameters train whose name satisfies `chosen`."""

    def freeze(model, declared):
        names = freeze_all_but(model, declared)
        for name, parameter in model.named_parameters():
            if chosen(name):
                parameter.requires_grad_(True)
        return names

    return freeze


def _never_unfrozen(model, declared):
    names = [name for name, _ in model.named_parameters() if declared(name)]
    for name, parameter in model.named_parameters():
        if not declared(name):
            parameter.requires_grad_(False)
    return names


def _never_unfrozen_and_looked_up(model, declared):
    _never_unfrozen(model, declared)
    if not (names := [name for name, p in model.named_parameters() if p.requires_grad]):
        raise ValueError("nothing would train")
    return names


def _without_error(model, declared):
    return freeze_all_but(model, declared) if any(declared(n) for n, _ in model.named_parameters()) else []


def _assigned(model, declared):
    """As if `requires_grad_` were an attribute: nothing is frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_ = declared(name)
    model.train()
    for _, parameter in model.named_parameters():
        parameter.requires_grad = True
    return [name for name, _ in model.named_parameters() if declared(name)]


def _state(model, declared):
    return {name: tensor.detach().float().clone() for name, tensor in model.state_dict().items()}


def _state_of_declared(model, declared):
    return {name: tensor for name, tensor in _state(model, declared).items() if declared(name)}


def _trained(model, declared):
    return {n: p.detach().float().clone() for n, p in model.named_parameters() if p.requires_grad}


def _declared_and_trained(model, declared):
    return {name: tensor for name, tensor in _trained(model, declared).items() if declared(name)}


def _saved(change):
    return lambda model, declared: change(entries_of(model, declared), model)


REST = [
    ("targets_substring", "find_in_blocks", _by_part),
    ("cross_forgotten", "find_in_blocks", _found(lambda name: "EncDecAttention" not in name)),
    ("decoder_forgotten", "find_in_blocks", _found(lambda name: name.startswith("encoder"))),
    ("outside_blocks", "find_in_blocks", _outside),
    ("outside_blocks", "find_in_blocks", partial(_last_part, blocks="", of=nn.Linear)),
    ("outside_blocks", "find_in_blocks", partial(_last_part, blocks="")),
    ("other_kind", "find_in_blocks", _last_part),
    ("missing_silent", "find_in_blocks", _silent),
    ("base_not_frozen", "freeze_all_but", _assigned),
    ("base_not_frozen", "freeze_all_but", _also(lambda name: True)),
    ("norms_unfrozen", "freeze_all_but", _also(lambda name: "layer_norm" in name)),
    ("embedding_unfrozen", "freeze_all_but", _also(lambda name: name.startswith("shared"))),
    ("stays_frozen", "freeze_all_but", _never_unfrozen),
    ("stays_frozen", "freeze_all_but", _never_unfrozen_and_looked_up),
    ("freeze_silent", "freeze_all_but", _without_error),
    ("declared_frozen", "freeze_all_but", lambda model, declared: model.requires_grad_(False) and []),
    ("frozen_names", "freeze_all_but", lambda model, declared: freeze_all_but(model, declared)[:1]),
    ("whole_state", "entries_of", _state),
    ("saved_state", "entries_of", _state_of_declared),
    ("saved_trained", "entries_of", _trained),
    ("saved_trained", "entries_of", _declared_and_trained),
    ("saved_gradient", "entries_of", lambda m, d: {n: p for n, p in m.named_parameters() if d(n)}),
    ("saved_gradient", "entries_of", lambda m, d: {n: p.float() for n, p in m.named_parameters() if d(n)}),
    ("saved_keys", "entries_of", _saved(lambda e, m: {f"model.{name}": t for name, t in e.items()})),
    ("saved_keys", "entries_of", _saved(lambda e, m: list(e.values()))),
    ("saved_missing", "entries_of", _saved(lambda e, m: {n: t for n, t in e.items() if n.endswith("A")})),
    (
        "saved_type",
        "entries_of",
        lambda m, d: {n: p.detach().clone() for n, p in m.named_parameters() if d(n)},
    ),
    ("saved_type", "entries_of", _saved(lambda e, m: {n: t.half() for n, t in e.items()})),
    (
        "saved_storage",
        "entries_of",
        lambda m, d: {n: p.detach().float() for n, p in m.named_parameters() if d(n)},
    ),
    ("saved_values", "entries_of", _saved(lambda e, m: {n: torch.zeros_like(t) for n, t in e.items()})),
]


def _peft(**changed):
    def call(peft, model, rank, alpha, targets):
        settings = {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": list(targets)}
        settings["task_type"] = "SEQ_2_SEQ_LM"
        return peft.get_peft_model(model, peft.LoraConfig(**{**settings, **changed}))

    return call


def _peft_nothing(peft, model, rank, alpha, targets):
    _peft()(peft, model, rank, alpha, targets)


def _also_train(model, name, config):
    model.add_adapter(name, config=config)


def _delta(**changed):
    def call(opendelta, model, rows):
        opendelta.SoftPromptModel(model, **{"soft_token_num": rows, "token_init": True, **changed})

    return call


LIBRARIES = [
    ("peft_rank", "lora_by_peft", _peft(r=1, lora_alpha=4)),
    ("peft_alpha", "lora_by_peft", _peft(lora_alpha=8)),
    ("peft_rslora", "lora_by_peft", _peft(use_rslora=True)),
    ("peft_targets", "lora_by_peft", _peft(target_modules=["q", "k", "v"])),
    ("peft_default_targets", "lora_by_peft", _peft(target_modules=None)),
    ("peft_default_targets", "lora_by_peft", _peft(target_modules=["q", "v"])),
    ("peft_task", "lora_by_peft", _peft(task_type=None)),
    ("peft_task", "lora_by_peft", _peft(task_type="CAUSAL_LM")),
    ("peft_more", "lora_by_peft", _peft(use_dora=True)),
    ("peft_dropout", "lora_by_peft", _peft(lora_dropout=0.1)),
    ("peft_returns", "lora_by_peft", _peft_nothing),
    ("hub_double", "bottleneck_config", lambda a, d, b: a.DoubleSeqBnConfig(reduction_factor=d / b)),
    ("hub_width", "bottleneck_config", lambda a, d, b: a.SeqBnConfig()),
    ("hub_width", "bottleneck_config", lambda a, d, b: a.SeqBnConfig(reduction_factor=b)),
    ("hub_rounding", "bottleneck_config", lambda a, d, b: a.SeqBnConfig(reduction_factor=d / b)),
    ("hub_config", "bottleneck_config", lambda a, d, b: a.LoRAConfig()),
    ("hub_not_added", "adapter_by_adapterhub", lambda model, name, config: None),
    ("hub_not_trained", "adapter_by_adapterhub", _also_train),
    ("delta_rows", "prompt_by_opendelta", _delta(soft_token_num=100)),
    ("delta_start", "prompt_by_opendelta", _delta(token_init=False)),
    ("delta_not_added", "prompt_by_opendelta", lambda opendelta, model, rows: None),
]
