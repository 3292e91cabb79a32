"""What the student edition leaves blank, and what it asks for in its place.

Each text says what is asked, the shapes, and where to read, in words that give no answer away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Blank:
    """A function or class that the student writes.

    Attributes:
        name: in its module and in `layers.py`.
        module: the module of the kit that has the solution.
        group: the section of `layers.py`, and the self-check.
        notebook: the notebook that needs it first.
        points: of the notebook's points in the rubric.
        text: what is asked.
        methods: the same for the methods of a class; one that is not listed here is not shown at all.
    """

    name: str
    module: str
    group: str
    notebook: int
    points: int
    text: str
    methods: Mapping[str, str] = field(default_factory=dict)


#: The sections of `layers.py` in order: the heading and the self-check of each group.
GROUPS = {
    "rest": ("What all methods share (from notebook 2 on)", "check_the_rest"),
    "soft_prompt": ("Soft prompt (notebook 2)", "check_soft_prompt"),
    "adapter": ("Adapter (notebook 3)", "check_adapter"),
    "lora": ("LoRA (notebook 5)", "check_lora"),
    "libraries": ("The libraries (notebooks 2, 4 and 5)", "check_libraries"),
}

_M = "peft_scratch.methods"
_L = "peft_scratch.libraries"

BLANKS: tuple[Blank, ...] = (
    Blank(
        "find_in_blocks",
        f"{_M}.injection",
        "rest",
        2,
        1,
        """Dotted names of the modules inside the model's blocks whose last name part is one of `targets`.

For `("q", "v")`, `encoder.block.0.layer.0.SelfAttention.q` is one. Print `model.named_modules()` first.

Args:
    model: any T5.
    targets: last name parts, such as `("q", "v")`.
    kind: the class that the modules must be of.

Returns:
    The names in model order; none outside the blocks.

Raises:
    UserError: one of the targets matches nothing.""",
    ),
    Blank(
        "freeze_all_but",
        f"{_M}.parameters",
        "rest",
        2,
        2,
        """Let only the parameters whose name satisfies `declared` train, whatever trained before.

Returns:
    The names of the parameters that train, in model order.

Raises:
    ValueError: no name satisfies `declared`.""",
    ),
    Blank(
        "entries_of",
        f"{_M}.checkpoint",
        "rest",
        2,
        2,
        """What the file to hand in holds: the parameters whose name satisfies `declared`, by name.

The tensors are float32, on the CPU, without gradient, and no larger in the file than their shape says:
`torch.save` writes the whole storage that a view looks into.""",
    ),
    Blank(
        "first_rows",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        1,
        """The start of the prompt: the first `n` rows of the vocabulary embedding. `(V, D)` -> `(n, D)`.

Lester et al. 2021, section 3.2, compares ways to start; this is the assignment's.
`generator` is not used.""",
    ),
    Blank(
        "PromptRows",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        3,
        """N trained rows, put before an embedded text: `[P; X]` (Lester et al. 2021, section 2).

The rows are a parameter called `prompt_emb`, float32, `(N, D)`, with memory of its own.""",
        {
            "__init__": "`rows` `(N, D)` is where the parameter starts.",
            "forward": "`(B, T, D)` -> `(B, N + T, D)`.",
        },
    ),
    Blank(
        "lengthened",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        2,
        """The mask of a text, `(B, T)`, as the mask of the rows and the text, `(B, N + T)`.

The caller's mask stays as it is: return a new tensor.""",
    ),
    Blank(
        "prepend_prompt",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        3,
        """Before the encoder runs: embed the tokens, put the rows before them, lengthen the mask to match.

A forward pre-hook (see `register_forward_pre_hook` with `with_kwargs=True`): it gets what the encoder is
called with, and returns what the encoder is to be called with. `input_ids` `(B, T)` or `inputs_embeds`
`(B, T, D)` become `inputs_embeds` `(B, N + T, D)`; `attention_mask` `(B, T)`, if there is one, becomes
`(B, N + T)`. The rows are in `encoder.embed_tokens.sharif_llm_soft_prompts`, a `PromptRows`.""",
    ),
    Blank(
        "lengthen_cross_attention_mask",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        3,
        """Before the decoder runs: lengthen the mask with which it reads the encoder's output.

A forward pre-hook too. The decoder is called with `encoder_attention_mask` `(B, T)`, the mask of the text,
and `encoder_hidden_states` `(B, N + T, D)`. Return None if there is nothing to do.""",
    ),
    Blank(
        "hook_prompt",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        2,
        """Register the two hooks above where they belong. An encoder alone has no `model.decoder`.

The second hook needs `rows`, which torch does not hand to a hook; `functools.partial` can.""",
    ),
    Blank(
        "tokens_left",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        1,
        """How many tokens of a text fit into an input of `max_tokens` behind `rows` prompt rows.""",
    ),
    Blank(
        "parameters_of_a_prompt",
        f"{_M}.soft_prompt",
        "soft_prompt",
        2,
        1,
        """How many parameters the prompt has, as a formula in the letters N and d.

A formula is made of letters, whole numbers, `+`, `·` and brackets, such as `"4·d·i + d"`.""",
    ),
    Blank(
        "Bottleneck",
        f"{_M}.adapter",
        "adapter",
        3,
        7,
        """Down to K, ReLU, up to D again (Houlsby et al. 2019, section 2.1 and figure 2).

The residual connection belongs to `AdaptedLayerFF`. No LayerNorm. Biases. The adapter must change nothing
before training. The three steps are an `nn.Sequential` called `sharif_llm_adapter`; its parameters are then
`sharif_llm_adapter.0.weight` `(K, D)`, `.0.bias` `(K)`, `.2.weight` `(D, K)`, `.2.bias` `(D)`, float32.""",
        {
            "__init__": "`width` is D, `bottleneck` is K; make the parameters on `device`.",
            "forward": "`(B, T, D)` -> `(B, T, D)`.",
        },
    ),
    Blank(
        "AdaptedLayerFF",
        f"{_M}.adapter",
        "adapter",
        3,
        6,
        """T5's feed-forward layer with a `Bottleneck`, called `adapter`, after it.

T5's own layer computes `h = x + dropout(DenseReluDense(layer_norm(x)))`. Pfeiffer et al. 2021, section
2.2.3, compare where an adapter can stand; figure 2 of Houlsby et al. shows its residual connection.""",
        {
            "__init__": "Take over the modules of `base`, T5's layer, under their names.",
            "forward": "`(B, T, D)` -> `(B, T, D)`.",
        },
    ),
    Blank(
        "adapter_places",
        f"{_M}.adapter",
        "adapter",
        3,
        3,
        """Dotted names of the layers that get an adapter: every feed-forward layer, in model order.

Such a layer is a T5LayerFF, which has a module called `DenseReluDense`. Encoder and decoder have them at
different numbers.""",
    ),
    Blank(
        "feed_forward_layers",
        f"{_M}.derivation",
        "adapter",
        3,
        1,
        """How many feed-forward layers a T5 has, as a formula: E encoder and D decoder layers.""",
    ),
    Blank(
        "parameters_of_a_bottleneck",
        f"{_M}.adapter",
        "adapter",
        3,
        1,
        """How many parameters one bottleneck has, as a formula in the letters d and b.""",
    ),
    Blank(
        "low_rank_update",
        f"{_M}.lora",
        "lora",
        5,
        3,
        """The update that LoRA adds to a layer's output (Hu et al. 2022, section 4.1, equation 3).

The paper writes a token as a column; here, as in torch, it is a row.

Args:
    x: `(B, T, D)`.
    a: `(D, R)`, projects down.
    b: `(R, E)`, projects up.
    scaling: `alpha / r`.

Returns:
    `(B, T, E)`.""",
    ),
    Blank(
        "kaiming_uniform_down",
        f"{_M}.lora",
        "lora",
        5,
        3,
        """A's first value, `(D, R)`, float32, on `device`: Kaiming-uniform, as `torch.nn.Linear` starts.

That is uniform within `1 / sqrt(fan_in)`. What is the fan-in of A, and where does torch read it?""",
    ),
    Blank(
        "LoRALinear",
        f"{_M}.lora",
        "lora",
        5,
        9,
        """A linear layer with a low-rank update beside it (Hu et al. 2022, section 4.1, equation 3).

It computes with the weight and the bias of the layer it replaces, under the same names. The trained
parameters are `sharif_llm_A` `(D, R)` and `sharif_llm_B` `(R, E)`, float32. Before training, the layer has
to give exactly what its base gives.""",
        {
            "__init__": "`base` `(D)` -> `(E)`; the update is scaled by `alpha / rank`.",
            "merged": "Whether `weight` holds the update at the moment.",
            "forward": "`(B, T, D)` -> `(B, T, E)`.",
            "merge": "Write the update into `weight`: the layer then costs no more than its base (section "
            "4.1).\n\nThe output stays the same up to rounding. Merging twice is merging once.",
            "unmerge": "Put the weight back, to the last bit; nothing if the update is not merged.",
        },
    ),
    Blank(
        "attention_blocks",
        f"{_M}.derivation",
        "lora",
        5,
        1,
        """How many attention blocks a T5 has, as a formula: E encoder and D decoder layers.""",
    ),
    Blank(
        "parameters_of_an_update",
        f"{_M}.lora",
        "lora",
        5,
        1,
        """How many parameters A and B have together, as a formula in the letters d, r and `other`.

`other` is the letter of the width on the other side, `"i"` inside attention: put it into the string.""",
    ),
    Blank(
        "prompt_by_opendelta",
        f"{_L}.opendelta_prompt",
        "libraries",
        2,
        2,
        """Put OpenDelta's `SoftPromptModel` of `rows` rows into `model`, in place.

`opendelta` is the package; its docs have a page on the class. The rows start from the vocabulary.""",
    ),
    Blank(
        "bottleneck_config",
        f"{_L}.adapterhub_adapter",
        "libraries",
        4,
        1,
        """AdapterHub's configuration of a sequential bottleneck after each feed-forward layer (Pfeiffer).

`adapters` is the package, `width` the model's D. The library takes the bottleneck's width as a reduction
factor, and rounds: see “Two traps” in notebook 4.""",
    ),
    Blank(
        "adapter_by_adapterhub",
        f"{_L}.adapterhub_adapter",
        "libraries",
        4,
        1,
        """Add an adapter called `name` of `config` to `model`, then freeze everything else and activate it.

`adapters.init(model)` has been called already.""",
    ),
    Blank(
        "lora_by_peft",
        f"{_L}.peft_lora",
        "libraries",
        5,
        3,
        """Put PEFT's LoRA on the layers `targets` of `model`, without dropout; return PEFT's wrapper.

`peft` is the package. T5 is a sequence-to-sequence model.""",
    ),
)


def by_name() -> dict[str, Blank]:
    """The blanks by name."""
    return {blank.name: blank for blank in BLANKS}
