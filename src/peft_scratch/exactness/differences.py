"""Where a library does otherwise than our own method, with the line of its source that shows it.

The line is looked up in the installed library each time, so it cannot point to the wrong place: a
library that has changed raises instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from peft_scratch.errors import UserError


@dataclass(frozen=True)
class Difference:
    """One thing that a library does otherwise.

    Attributes:
        kind: lora, adapter or soft_prompt.
        library: PEFT, AdapterHub or OpenDelta.
        about: what it is about: placement, activation, scaling, mask, start, order of a sum.
        text: how it differs, and what that does to the comparison.
        package: the library's name, to install and to import.
        file: path of the source file in the package.
        within: the class or function that the line is in.
        code: the line, or a part of it.
    """

    kind: str
    library: str
    about: str
    text: str
    package: str
    file: str
    within: str
    code: str

    def line(self) -> int:
        """The number of the first line with `code` in it after the line that starts `within`.

        Raises:
            UserError: the package is not installed, or its source reads otherwise.
        """
        try:
            path = distribution(self.package).locate_file(f"{self.package}/{self.file}")
        except PackageNotFoundError:
            raise UserError(
                f"The library {self.package} is not installed: install the version in constraints.txt."
            ) from None
        lines = Path(str(path)).read_text(encoding="utf-8").splitlines()
        starts = [n for n, line in enumerate(lines) if line.strip().startswith(self.within)]
        found = [n for n, line in enumerate(lines) if starts and n >= starts[0] and self.code in line]
        if not found:
            raise UserError(
                f"{self.package} {version(self.package)} has no line `{self.code}` in {self.file}: "
                "install the version in constraints.txt."
            )
        return found[0] + 1

    def record(self) -> dict:
        """The difference as JSON holds it, with the line and the library's version."""
        return {**asdict(self), "line": self.line(), "version": version(self.package)}


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "lora",
        "PEFT",
        "scaling",
        "The update is scaled after the up-projection, on E columns; ours is scaled in the middle, on R. "
        "The last bits are the same because alpha / r, 4 and 0.5 here, is a power of two; at r = 3 they "
        "are not.",
        "peft",
        "tuners/lora/layer.py",
        "class Linear(nn.Module, LoraLayer)",
        "result = result + lora_B(lora_A(dropout(x))) * scaling",
    ),
    Difference(
        "lora",
        "AdapterHub",
        "scaling",
        "Scaled after the up-projection, as PEFT does.",
        "adapters",
        "methods/lora.py",
        "class LoRA(nn.Module)",
        "hidden_states = hidden_states * self.scaling",
    ),
    Difference(
        "lora",
        "AdapterHub",
        "defaults",
        "Left alone, alpha is 8; q and v of every attention are adapted, cross-attention too, as ours.",
        "adapters",
        "configuration/adapter_config.py",
        "class LoRAConfig",
        "alpha: int = 8",
    ),
    Difference(
        "lora",
        "OpenDelta",
        "placement",
        "Left alone it covers self-attention only: 12 of t5-small's 18 attention blocks, 196,608 "
        "parameters at r = 8. `attn` stands for `layer.0` alone in its map of T5, and cross-attention is "
        "`crossattn`. With every attention named in `modified_modules` it is ours; at its default, ours "
        "without cross-attention.",
        "opendelta",
        "delta_models/lora.py",
        "class LoraModel(DeltaBase)",
        "default_modified_modules = ['attn@.q@', 'attn@.v@']",
    ),
    Difference(
        "lora",
        "OpenDelta",
        "defaults",
        "Left alone, alpha is 16. Scaled after the up-projection, as PEFT does.",
        "opendelta",
        "delta_models/lora.py",
        "class LoraModel(DeltaBase)",
        "lora_alpha=16",
    ),
    Difference(
        "adapter",
        "AdapterHub",
        "start",
        "Both projections start normal with deviation 0.02, so the adapter is not quite the identity at the "
        "start; our up-projection starts at zero. It is a difference of the start alone: with the weights "
        "copied there is none.",
        "adapters",
        "methods/modeling.py",
        "def init_bert_weights",
        "module.weight.data.normal_(mean=0.0, std=0.02)",
    ),
    Difference(
        "adapter",
        "AdapterHub",
        "size",
        "The bottleneck is given as a ratio and rounded down, 16 (b = 32 on t5-small) if left alone: in "
        "floating point 512 // (512 / 5) is 4. The kit chooses a ratio that gives b exactly.",
        "adapters",
        "methods/bottleneck.py",
        "def add_adapter",
        "down_sample=int(self.model_config.hidden_size // reduction_factor)",
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "activation",
        "Left alone it is GELU (its tanh form), with b = 24; here it is set to ReLU.",
        "opendelta",
        "delta_models/adapter.py",
        "class AdapterModel(DeltaBase)",
        "non_linearity: Optional[str]='gelu_new'",
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "placement",
        "Left alone it stands after the last projection of attention and of the feed-forward layer, "
        "before the residual connection of each (602,688 parameters on t5-small); here it is set to the "
        "feed-forward layers as a whole, after their residual connection.",
        "opendelta",
        "delta_models/adapter.py",
        "class AdapterModel(DeltaBase)",
        'default_modified_modules = ["attn@.proj@", "ff@.w2@"]',
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "order of a sum",
        "It adds the bottleneck to the layer's whole output, `bottleneck(h) + (x + f(x))`; ours, as "
        "AdapterHub, adds up `(bottleneck(h) + f(x)) + x`. A sum in floating point depends on its order "
        "in the last bits. In these rows ours is summed in its order; in our own order the logits differ "
        "by what the table says.",
        "opendelta",
        "delta_models/adapter.py",
        "def post_forward",
        "modified_output = adapter_output + hiddens",
    ),
    Difference(
        "soft_prompt",
        "PEFT",
        "size",
        "Left alone, on an encoder-decoder it holds 2 N rows, of which prompt tuning uses the first N; "
        "`num_transformer_submodules=1` gives N.",
        "peft",
        "peft_model.py",
        "def _setup_prompt_encoder",
        "config.num_transformer_submodules = 2 if config.task_type == TaskType.SEQ_2_SEQ_LM else 1",
    ),
    Difference(
        "soft_prompt",
        "PEFT",
        "start",
        "Left alone its rows are drawn from a standard normal; ours are the first rows of the vocabulary. "
        "With the rows copied there is no difference.",
        "peft",
        "tuners/prompt_tuning/model.py",
        "class PromptEmbedding",
        "self.embedding = torch.nn.Embedding(total_virtual_tokens, config.token_dim)",
    ),
    Difference(
        "soft_prompt",
        "OpenDelta",
        "mask",
        "It lengthens the caller's attention mask in place, so that the decoder sees it too: the second call "
        "with the same batch fails. The kit hands it a copy.",
        "opendelta",
        "delta_models/soft_prompt.py",
        "def pre_forward",
        "real_tokens.data = torch.cat([pseudo_tokens, real_tokens], dim=-1)",
    ),
    Difference(
        "soft_prompt",
        "OpenDelta",
        "mask",
        "Given no mask, it hides token 0 from the encoder but not from the decoder; ours and PEFT, as T5, "
        "hide nothing. The kit hands it a mask of ones then.",
        "opendelta",
        "delta_models/soft_prompt.py",
        "def pre_forward",
        "kwargs['attention_mask'] = (input_ids != self.pad_id).to(torch.int64)",
    ),
    Difference(
        "base",
        "AdapterHub",
        "base model",
        "Its T5 copies queries, keys and values before they are multiplied, which lays them out otherwise "
        "in memory: at some lengths the base alone, with no adapter in it, differs from transformers' in "
        "the last bits. So both sides stand on its T5, and what the base alone differs by has a column of "
        "its own.",
        "adapters",
        "composition.py",
        "def match_attn_matrices_for_parallel",
        "query = query.repeat(max_bsz // query.shape[0], *([1] * len(query.shape[1:])))",
    ),
)
