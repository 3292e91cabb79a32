"""Where a library differs from our own method, with the line of its source that shows it.

The line is looked up in the installed library each time. If the library has changed, an error says so, so
the line number is never wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from peft_scratch.errors import UserError

_PACKAGES = {"PEFT": "peft", "AdapterHub": "adapters", "OpenDelta": "opendelta"}


@dataclass(frozen=True)
class Difference:
    """One difference of a library.

    Attributes:
        kind: lora, adapter or soft_prompt.
        library: PEFT, AdapterHub or OpenDelta.
        about: what it is about: placement, activation, scaling, mask, start, order of a sum.
        text: how it differs, and what that does to the comparison.
        file: path of the source file in the package.
        within: the class or function that the line is in.
        code: the line, or a part of it.
    """

    kind: str
    library: str
    about: str
    text: str
    file: str
    within: str
    code: str

    @property
    def package(self) -> str:
        """The library's name, to install and to import."""
        return _PACKAGES[self.library]

    def line(self) -> int:
        """The number of the first line with `code` in it after the line that starts `within`.

        Raises:
            UserError: the package is not installed, or its source has no such line.
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
        return {
            **asdict(self),
            "package": self.package,
            "line": self.line(),
            "version": version(self.package),
        }


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "lora",
        "PEFT",
        "scaling",
        "The update is scaled after the up-projection, on d' columns; ours is scaled in the middle, on r "
        "columns. Here alpha / r is 4 or 0.5, a power of two, so the last bits are the same; at r = 3 they "
        "are not.",
        "tuners/lora/layer.py",
        "class Linear(nn.Module, LoraLayer)",
        "result = result + lora_B(lora_A(dropout(x))) * scaling",
    ),
    Difference(
        "lora",
        "AdapterHub",
        "scaling",
        "The update is scaled after the up-projection, as in PEFT.",
        "methods/lora.py",
        "class LoRA(nn.Module)",
        "hidden_states = hidden_states * self.scaling",
    ),
    Difference(
        "lora",
        "AdapterHub",
        "defaults",
        "By default alpha is 8. It adapts q and v of every attention, cross-attention included, like ours.",
        "configuration/adapter_config.py",
        "class LoRAConfig",
        "alpha: int = 8",
    ),
    Difference(
        "lora",
        "OpenDelta",
        "placement",
        "By default it adapts only self-attention: 12 of t5-small's 18 attention layers, 196,608 "
        "parameters at r = 8. In its map of T5, `attn` means `layer.0`, and cross-attention is `crossattn`. "
        "If `modified_modules` names every attention, it equals ours; by default it equals ours without "
        "cross-attention.",
        "delta_models/lora.py",
        "class LoraModel(DeltaBase)",
        "default_modified_modules = ['attn@.q@', 'attn@.v@']",
    ),
    Difference(
        "lora",
        "OpenDelta",
        "defaults",
        "By default alpha is 16. The update is scaled after the up-projection, as in PEFT.",
        "delta_models/lora.py",
        "class LoraModel(DeltaBase)",
        "lora_alpha=16",
    ),
    Difference(
        "adapter",
        "AdapterHub",
        "start",
        "Both projections start from a normal distribution of standard deviation 0.02, so the adapter is not "
        "quite the identity at the start; our up-projection starts at zero. Only the start differs: with the "
        "same weights there is no difference.",
        "methods/modeling.py",
        "def init_bert_weights",
        "module.weight.data.normal_(mean=0.0, std=0.02)",
    ),
    Difference(
        "adapter",
        "AdapterHub",
        "size",
        "The bottleneck is given as a ratio, by default 16 (b = 32 on t5-small), and is rounded down: in "
        "floating point, 512 // (512 / 5) is 4. The kit chooses a ratio that gives exactly b.",
        "methods/bottleneck.py",
        "def add_adapter",
        "down_sample=int(self.model_config.hidden_size // reduction_factor)",
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "activation",
        "By default it is GELU (its tanh form), with b = 24; here it is set to ReLU.",
        "delta_models/adapter.py",
        "class AdapterModel(DeltaBase)",
        "non_linearity: Optional[str]='gelu_new'",
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "placement",
        "By default there is one adapter after the last projection of self-attention and one after that of "
        "the feed-forward layer, each before the residual connection (602,688 parameters on t5-small). Here "
        "there is one after each feed-forward layer, after its residual connection.",
        "delta_models/adapter.py",
        "class AdapterModel(DeltaBase)",
        'default_modified_modules = ["attn@.proj@", "ff@.w2@"]',
    ),
    Difference(
        "adapter",
        "OpenDelta",
        "order of a sum",
        "It adds the bottleneck to the layer's whole output, `bottleneck(h) + (x + f(x))`; ours, like "
        "AdapterHub, computes `(bottleneck(h) + f(x)) + x`. In floating point, the last bits of a sum depend "
        "on its order. In these rows ours is summed in OpenDelta's order; in our own order the logits differ "
        "by what stands below the table.",
        "delta_models/adapter.py",
        "def post_forward",
        "modified_output = adapter_output + hiddens",
    ),
    Difference(
        "soft_prompt",
        "PEFT",
        "size",
        "By default, on an encoder-decoder it holds 2 N rows, of which prompt tuning uses the first N; "
        "`num_transformer_submodules=1` gives N.",
        "peft_model.py",
        "def _setup_prompt_encoder",
        "config.num_transformer_submodules = 2 if config.task_type == TaskType.SEQ_2_SEQ_LM else 1",
    ),
    Difference(
        "soft_prompt",
        "PEFT",
        "start",
        "By default its rows are drawn from a standard normal distribution; ours are the first rows of the "
        "vocabulary. With the same rows there is no difference.",
        "tuners/prompt_tuning/model.py",
        "class PromptEmbedding",
        "self.embedding = torch.nn.Embedding(total_virtual_tokens, config.token_dim)",
    ),
    Difference(
        "soft_prompt",
        "OpenDelta",
        "mask",
        "It lengthens the caller's attention mask in place, so that the decoder sees it too. A second call "
        "with the same batch would fail, so the kit hands it a copy.",
        "delta_models/soft_prompt.py",
        "def pre_forward",
        "real_tokens.data = torch.cat([pseudo_tokens, real_tokens], dim=-1)",
    ),
    Difference(
        "soft_prompt",
        "OpenDelta",
        "mask",
        "Without a mask it hides token 0 from the encoder but not from the decoder; ours and PEFT hide "
        "nothing, like T5. In that case the kit hands it a mask of ones.",
        "delta_models/soft_prompt.py",
        "def pre_forward",
        "kwargs['attention_mask'] = (input_ids != self.pad_id).to(torch.int64)",
    ),
    Difference(
        "base",
        "AdapterHub",
        "base model",
        "Its T5 copies queries, keys and values before it multiplies them, which changes their layout in "
        "memory. At some lengths the base alone, without any adapter, therefore differs from transformers' "
        "in the last bits. So both sides use its T5, and a column shows how far the base alone differs.",
        "composition.py",
        "def match_attn_matrices_for_parallel",
        "query = query.repeat(max_bsz // query.shape[0], *([1] * len(query.shape[1:])))",
    ),
)
