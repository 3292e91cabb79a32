"""What each mistake is called, what a student is told of it, and where to read.

A sentence names the mistake and never the code that would be right.
"""

from __future__ import annotations

from dataclasses import dataclass

_LORA = "Hu et al. 2022, section 4.1"
_START = "Hu et al. 2022, section 4.1, on how A and B start"
_MERGE = "Hu et al. 2022, section 4.1, “No Additional Inference Latency”"
_WHERE = "Hu et al. 2022, section 4.2"
_BOTTLENECK = "Houlsby et al. 2019, section 2.1 and figure 2"
_PLACE = "Pfeiffer et al. 2021, section 2.2.3"
_PROMPT = "Lester et al. 2021, section 2"
_ROWS = "Lester et al. 2021, section 3.2"
_FILES = "the handout, “Files to hand in”"
_CONSTANTS = "the handout, “Constants”"
_COUNT = "the handout, “The parameters”"


@dataclass(frozen=True)
class Diagnosis:
    """A mistake by name: the sentence for the student, and where to read."""

    sentence: str
    read: str

    def __str__(self) -> str:
        return f"{self.sentence} Read {self.read}."


DIAGNOSES: dict[str, Diagnosis] = {
    name: Diagnosis(sentence, read)
    for name, sentence, read in (
        # LoRA: how the layer starts
        ("lora_names", "The layer has no parameters called sharif_llm_A and sharif_llm_B.", _FILES),
        (
            "not_registered",
            "A trained tensor is no parameter of its module: on another device, `.to(device)` turns an "
            "nn.Parameter into an ordinary tensor, so move the tensor first and wrap it last.",
            "PyTorch's page on torch.nn.parameter.Parameter",
        ),
        ("lora_shapes", "A and B do not have the shapes (d, r) and (r, d').", _FILES),
        (
            "lora_turned",
            "A and B are stored as (r, d) and (d', r), the transposes of what the file has.",
            _FILES,
        ),
        (
            "update_bias",
            "The update has a bias of its own; it is made of A and B alone.",
            f"{_LORA}, equation 3",
        ),
        ("both_zero", "A and B both start at zero, so neither ever gets a gradient.", _START),
        ("a_zero", "A starts at zero and B does not; it is the other one that has to be zero.", _START),
        ("b_random", "B does not start at zero, so the layer is not its base before training.", _START),
        (
            "a_fan_in",
            "A starts too large by the square root of d / r or more: its fan-in was read off the wrong axis.",
            "PyTorch's page on torch.nn.init.kaiming_uniform_, on fan_in and the shape (out, in)",
        ),
        (
            "a_gain",
            "A is Kaiming-uniform over the right axis, but with the default gain: about 2.4 times too large.",
            "PyTorch's page on torch.nn.init.kaiming_uniform_, argument a, and torch.nn.Linear's own start",
        ),
        ("a_start", "A does not start Kaiming-uniform.", _CONSTANTS),
        # LoRA: what it computes
        ("scaling_missing", "The update is not scaled.", f"{_LORA}, the paragraph after equation 3"),
        ("alpha_missing", "The update is divided by r but alpha is missing.", f"{_LORA}, after equation 3"),
        (
            "rank_missing",
            "The update is multiplied by alpha but not divided by r.",
            f"{_LORA}, after equation 3",
        ),
        ("scaling_twice", "The scaling is applied twice.", f"{_LORA}, after equation 3"),
        ("scaling_inverted", "The scaling is upside down: r / alpha.", f"{_LORA}, after equation 3"),
        ("scaling_sqrt", "The scaling divides by the square root of r, as a later variant does.", _CONSTANTS),
        ("base_bias_twice", "The base's bias is added twice.", f"{_LORA}, equation 3"),
        ("base_bias_lost", "The base's bias is lost.", f"{_LORA}, equation 3"),
        (
            "input_side",
            "The update is added to the layer's input; it belongs to its output.",
            f"{_LORA}, eq. 3",
        ),
        (
            "base_lost",
            "Only the update is returned; the frozen layer's own output is missing.",
            f"{_LORA}, eq. 3",
        ),
        ("update_lost", "The update is not added: the output is the base's alone.", f"{_LORA}, equation 3"),
        ("update_order", "A and B are multiplied in the wrong order or turned.", f"{_LORA}, equation 3"),
        ("weight_not_taken", "The layer does not compute with the weight of the layer it replaces.", _LORA),
        ("lora_no_gradient", "A or B gets no gradient: it is detached on the way to the output.", _LORA),
        ("lora_forward", "The output is not that of equation 3.", f"{_LORA}, equation 3"),
        # LoRA: merging
        ("merge_nothing", "merge() leaves the weight as it was.", _MERGE),
        ("merge_unscaled", "merge() writes the update without its scaling.", _MERGE),
        ("merge_turned", "merge() adds A B without turning it: the weight is stored as (d', d).", _MERGE),
        ("merge_beside", "After merge() the update is counted twice: in the weight and beside it.", _MERGE),
        ("merge_twice", "A second merge() adds the update a second time.", _MERGE),
        ("merge_wrong", "merge() changes what the layer computes.", _MERGE),
        (
            "unmerge_rounding",
            "unmerge() does not bring the weight back to the last bit: subtracting leaves rounding errors.",
            _MERGE,
        ),
        ("unmerge_wrong", "unmerge() does not bring the weight back.", _MERGE),
        (
            "merged_in_training",
            "The update stays merged in training mode, so A and B get no gradient there.",
            _MERGE,
        ),
        # Adapter
        ("adapter_names", "The bottleneck's parameters are not called sharif_llm_adapter.0 and .2.", _FILES),
        ("bottleneck_width", "The bottleneck does not have the width that it is told.", _CONSTANTS),
        ("bottleneck_no_bias", "The projections have no biases.", _BOTTLENECK),
        (
            "bottleneck_layer_norm",
            "There is a LayerNorm in the bottleneck; the assignment has none.",
            _CONSTANTS,
        ),
        (
            "up_not_zero",
            "The up-projection does not start at zero, so the adapter changes the model.",
            _BOTTLENECK,
        ),
        (
            "down_zero",
            "The down-projection starts at zero too, so nothing ever gets a gradient.",
            _BOTTLENECK,
        ),
        (
            "relu_after_up",
            "There is a ReLU after the up-projection: nothing negative can be added.",
            _BOTTLENECK,
        ),
        ("relu_missing", "There is no ReLU between the two projections.", _BOTTLENECK),
        ("other_activation", "The activation in the middle is not a ReLU.", _CONSTANTS),
        (
            "residual_inside",
            "The residual connection stands inside the bottleneck; it belongs to the layer around it.",
            _BOTTLENECK,
        ),
        ("bottleneck_forward", "The bottleneck does not compute down, ReLU, up.", _BOTTLENECK),
        ("residual_missing", "The residual connection around the adapter is missing.", _BOTTLENECK),
        ("residual_twice", "The residual connection around the adapter is added twice.", _BOTTLENECK),
        (
            "before_residual",
            "The adapter reads the feed-forward output before the residual sum; it has to read it after.",
            _PLACE,
        ),
        ("adapter_parallel", "The adapter reads the layer's input, beside the feed-forward layer.", _PLACE),
        (
            "adapter_layer_norm",
            "The adapter reads a layer-normed input; the assignment has no LayerNorm.",
            _CONSTANTS,
        ),
        ("feed_forward_lost", "The feed-forward layer's own output is lost.", _PLACE),
        ("input_lost", "The layer's input, its own residual connection, is lost.", _PLACE),
        ("base_norm_lost", "The feed-forward layer's own layer norm is skipped.", _PLACE),
        ("adapter_lost", "The adapter's output is not added.", _BOTTLENECK),
        ("adapted_forward", "The adapted layer's output is not h + bottleneck(h).", _BOTTLENECK),
        ("adapter_no_gradient", "The adapter gets no gradient: it is detached on the way.", _BOTTLENECK),
        (
            "adapter_after_attention",
            "The adapter stands after attention, not after the feed-forward layer.",
            _PLACE,
        ),
        (
            "adapter_everywhere",
            "The adapter stands after attention as well, in twice the places or more.",
            _PLACE,
        ),
        (
            "adapter_after_cross",
            "The decoder's adapter stands after cross-attention, which is the second layer of a block there.",
            _PLACE,
        ),
        ("adapter_encoder_only", "The decoder's feed-forward layers are forgotten.", _PLACE),
        (
            "adapter_inner",
            "The names are those of what is inside the feed-forward layer, not of the layer.",
            _PLACE,
        ),
        ("adapter_places", "The places are not all feed-forward layers in model order.", _PLACE),
        # Soft prompt
        ("prompt_names", "The rows are not a parameter called prompt_emb.", _FILES),
        (
            "prompt_not_trained",
            "The rows are not trained: they are no parameter, or need no gradient.",
            _PROMPT,
        ),
        (
            "prompt_copied",
            "The rows are copied at every step, so no gradient reaches the parameter.",
            _PROMPT,
        ),
        (
            "prompt_view",
            "The rows share memory with the embedding: training them changes the vocabulary.",
            _ROWS,
        ),
        ("prompt_start", "The rows do not start as the first rows of the vocabulary embedding.", _CONSTANTS),
        ("rows_behind", "The rows stand behind the text.", f"{_PROMPT}, [P; X]"),
        (
            "rows_added",
            "The rows are added to the text's own rows; they have to be put before them.",
            _PROMPT,
        ),
        ("rows_lost", "The encoder's input has no more rows than before.", _PROMPT),
        ("rows_wrong", "The encoder's input is not the rows and then the text.", f"{_PROMPT}, [P; X]"),
        ("mask_encoder", "The encoder's attention mask is not lengthened.", _PROMPT),
        (
            "mask_decoder",
            "The mask with which the decoder reads the encoder's output is not lengthened.",
            _PROMPT,
        ),
        ("mask_zeros", "The mask hides the rows: its new columns have to be ones.", _PROMPT),
        ("mask_behind", "The mask's new columns stand behind the text's; the rows stand before it.", _PROMPT),
        ("mask_in_place", "The caller's mask is changed in place, so its next call fails.", _PROMPT),
        ("mask_wrong", "The mask is not ones for the rows and then the text's own.", _PROMPT),
        (
            "prompt_in_decoder",
            "The rows are put into the decoder as well; they belong to the encoder.",
            _PROMPT,
        ),
        ("encoder_not_hooked", "The encoder gets no rows when the model runs.", _PROMPT),
        ("prompt_twice", "The rows are put before the text twice.", _PROMPT),
        (
            "beyond_length",
            "The rows are counted beyond the input's length; they count towards it.",
            _CONSTANTS,
        ),
        ("tokens_wrong", "The number of tokens left for the text is wrong.", _CONSTANTS),
        # Freezing, places, files
        ("base_not_frozen", "The base is not frozen: its parameters still train.", "the handout, “Task”"),
        ("norms_unfrozen", "The layer norms still train.", "the handout, “Task”"),
        ("embedding_unfrozen", "The embedding still trains.", "the handout, “Task”"),
        ("declared_frozen", "Parameters that the method declares do not train.", "the handout, “Task”"),
        (
            "frozen_names",
            "The names that are returned are not those of the parameters that train.",
            "its docstring",
        ),
        (
            "targets_substring",
            "Targets are matched as part of the name: `o` is in `block`, so every layer is hit.",
            "the names that model.named_modules() gives",
        ),
        ("cross_forgotten", "The decoder's cross-attention is forgotten.", _WHERE),
        ("decoder_forgotten", "The decoder is forgotten.", _WHERE),
        ("outside_blocks", "A layer outside the blocks is hit: lm_head may share its weight.", _WHERE),
        ("missing_silent", "A target that matches nothing is passed over in silence.", "its docstring"),
        ("places_wrong", "The names found are not those of the targets, in model order.", _WHERE),
        ("whole_state", "The whole model is saved; only the declared entries are asked for.", _FILES),
        ("saved_gradient", "The saved tensors carry a gradient, or are parameters.", _FILES),
        ("saved_keys", "The keys are not the parameters' names in the model.", _FILES),
        ("saved_missing", "Some of the declared entries are not saved.", _FILES),
        ("saved_type", "The saved tensors are not float32.", _FILES),
        ("saved_storage", "A saved tensor is a view: torch.save writes the whole storage behind it.", _FILES),
        ("saved_values", "The saved values are not the parameters' values.", _FILES),
        # Counts
        ("count_cross", "The decoder's second attention is not counted.", _COUNT),
        ("count_decoder", "The decoder is not counted.", _COUNT),
        ("count_bias", "A bias is missing from the count.", _COUNT),
        ("count_one_matrix", "Only one of the two matrices is counted.", _COUNT),
        ("count_twice", "The count is twice what it should be.", _COUNT),
        ("count_letters", "The formula is not made of the letters, digits, +, · and brackets.", _COUNT),
        ("count_wrong", "The formula does not give the number of parameters.", _COUNT),
        # The libraries
        ("peft_rank", "PEFT is not given the rank.", "PEFT's page on LoraConfig"),
        ("peft_alpha", "PEFT is not given alpha, or another one.", "PEFT's page on LoraConfig"),
        ("peft_targets", "PEFT's update is not on the targets alone.", "PEFT's page on LoraConfig"),
        ("peft_dropout", "PEFT's dropout is not zero.", _CONSTANTS),
        ("peft_returns", "What is returned is not PEFT's wrapper.", "PEFT's page on get_peft_model"),
        (
            "hub_double",
            "This configuration has adapters after attention too.",
            "AdapterHub's page on adapter methods",
        ),
        (
            "hub_width",
            "The reduction factor does not give the bottleneck's width.",
            "AdapterHub's page on SeqBnConfig",
        ),
        (
            "hub_rounding",
            "The reduction factor d / b gives one less than b for some widths, such as b = 5 at d = 512.",
            "notebook 4, “Two traps”",
        ),
        (
            "hub_config",
            "This is no configuration of a sequential bottleneck.",
            "AdapterHub's page on SeqBnConfig",
        ),
        ("hub_not_added", "No adapter of that name is added.", "AdapterHub's page on add_adapter"),
        (
            "hub_not_trained",
            "The adapter is added, but nothing else is frozen.",
            "AdapterHub's page on train_adapter",
        ),
        (
            "delta_rows",
            "OpenDelta's prompt does not have the rows it is told.",
            "OpenDelta's page on SoftPromptModel",
        ),
        (
            "delta_start",
            "OpenDelta's rows do not start from the vocabulary.",
            "OpenDelta's page on SoftPromptModel",
        ),
        (
            "delta_not_added",
            "OpenDelta's prompt is not put into the model.",
            "OpenDelta's page on SoftPromptModel",
        ),
    )
}
