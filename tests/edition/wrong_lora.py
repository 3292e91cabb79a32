"""LoRA layers with one mistake each, as students of this assignment write them."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from peft_scratch.methods.lora import kaiming_uniform_down


class Plain(nn.Module):
    """A right LoRA layer as a student writes it, with places to go wrong in."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        self.merged = False
        d, e = base.in_features, base.out_features
        self.sharif_llm_A = self.parameter(kaiming_uniform_down(d, rank), base)
        self.sharif_llm_B = self.parameter(torch.zeros(rank, e), base)

    def parameter(self, tensor, base):
        return nn.Parameter(tensor.to(base.weight.device))

    def base(self, x):
        return F.linear(x, self.weight, self.bias)

    def update(self, x):
        return x @ self.sharif_llm_A @ self.sharif_llm_B * self.scaling

    def forward(self, x):
        return self.base(x) if self.merged else self.base(x) + self.update(x)

    def delta(self):
        return (self.sharif_llm_A @ self.sharif_llm_B).T * self.scaling

    def merge(self):
        if not self.merged:
            self.before = self.weight.detach().clone()
            self.weight.data = self.weight.data + self.delta().detach()
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.weight.data = self.before
            self.merged = False


def scaled(factor):
    class Scaled(Plain):
        def __init__(self, base, rank, alpha):
            super().__init__(base, rank, alpha)
            self.scaling = factor(alpha, rank)

    return Scaled


def starting(a=None, b=None):
    class Starting(Plain):
        def __init__(self, base, rank, alpha):
            super().__init__(base, rank, alpha)
            with torch.no_grad():
                if a is not None:
                    a(self.sharif_llm_A)
                if b is not None:
                    b(self.sharif_llm_B)

    return Starting


class OtherNames(Plain):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.lora_A, self.lora_B = self.sharif_llm_A, self.sharif_llm_B
        del self.sharif_llm_A, self.sharif_llm_B


class MovedLast(Plain):
    def parameter(self, tensor, base):
        return nn.Parameter(tensor).to(base.weight.device)


class Turned(Plain):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.sharif_llm_A = nn.Parameter(self.sharif_llm_A.detach().T.clone())
        self.sharif_llm_B = nn.Parameter(self.sharif_llm_B.detach().T.clone())


class InputWide(Plain):
    """B as wide as the input: right by chance where the layer is square."""

    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.sharif_llm_B = nn.Parameter(torch.zeros(rank, base.in_features))


class WithBias(Plain):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.update_bias = nn.Parameter(torch.zeros(base.out_features))


class BiasTwice(Plain):
    def forward(self, x):
        return super().forward(x) + self.bias


class BiasLost(Plain):
    def base(self, x):
        return x @ self.weight.T


class OnTheInput(Plain):
    def forward(self, x):
        return self.base(x + self.update(x))


class OnlyTheUpdate(Plain):
    def base(self, x):
        return torch.zeros(())


class NoUpdate(Plain):
    def forward(self, x):
        return self.base(x)


class WrongOrder(Plain):
    def update(self, x):
        return x @ self.sharif_llm_B.T @ self.sharif_llm_A.T * self.scaling


class OwnWeight(Plain):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.weight = nn.Parameter(torch.randn_like(base.weight))


class Detached(Plain):
    def update(self, x):
        return x @ self.sharif_llm_A.data @ self.sharif_llm_B * self.scaling


class WithoutGradient(Plain):
    def update(self, x):
        with torch.no_grad():
            return super().update(x)


class MergesNothing(Plain):
    def merge(self):
        self.weight.data + self.delta().detach()


class MergesUnscaled(Plain):
    def delta(self):
        return (self.sharif_llm_A @ self.sharif_llm_B).T


class MergesUnturned(Plain):
    def delta(self):
        return self.sharif_llm_A @ self.sharif_llm_B * self.scaling


class MergedAndBeside(Plain):
    def forward(self, x):
        return self.base(x) + self.update(x)


class MergesTwice(Plain):
    def merge(self):
        if not self.merged:
            self.before = self.weight.detach().clone()
        self.weight.data = self.weight.data + self.delta().detach()
        self.merged = True


class Subtracts(Plain):
    def unmerge(self):
        self.weight.data = self.weight.data - self.delta().detach()
        self.merged = False


class NeverUnmerges(Plain):
    def unmerge(self):
        self.merged = False


class MergesInPlace(Plain):
    def merge(self):
        if not self.merged:
            self.before = self.weight.detach().clone()
            self.weight.data += self.delta().detach()
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.weight.data.copy_(self.before)
            self.merged = False


class UnmergesAlways(Plain):
    def unmerge(self):
        self.weight.data = self.before if self.merged else self.weight.data - self.delta().detach()
        self.merged = False


class UnmergesBlindly(Plain):
    def unmerge(self):
        self.weight.data = self.before
        self.merged = False


class StaysMerged(Plain):
    def train(self, mode=True):
        super().train(mode)
        if not mode:
            self.merge()
        return self


def _naive(t):
    nn.init.kaiming_uniform_(t, a=math.sqrt(5))


def _default_gain(t):
    nn.init.kaiming_uniform_(t)


def _right_axis_default_gain(t):
    bound = math.sqrt(6 / len(t))
    nn.init.uniform_(t, -bound, bound)


#: (mistake, blank, what stands in layers.py in place of the solution)
LORA = [
    ("lora_names", "LoRALinear", OtherNames),
    ("not_registered", "LoRALinear", MovedLast),
    ("lora_turned", "LoRALinear", Turned),
    ("lora_shapes", "LoRALinear", InputWide),
    ("update_bias", "LoRALinear", WithBias),
    ("both_zero", "LoRALinear", starting(a=nn.init.zeros_)),
    ("a_zero", "LoRALinear", starting(a=nn.init.zeros_, b=nn.init.normal_)),
    ("b_random", "LoRALinear", starting(b=nn.init.normal_)),
    ("a_fan_in", "LoRALinear", starting(a=_naive)),
    ("a_fan_in", "LoRALinear", starting(a=_default_gain)),
    ("a_gain", "LoRALinear", starting(a=_right_axis_default_gain)),
    ("a_start", "LoRALinear", starting(a=nn.init.normal_)),
    ("scaling_missing", "LoRALinear", scaled(lambda alpha, r: 1.0)),
    ("alpha_missing", "LoRALinear", scaled(lambda alpha, r: 1 / r)),
    ("rank_missing", "LoRALinear", scaled(lambda alpha, r: alpha)),
    ("scaling_twice", "LoRALinear", scaled(lambda alpha, r: (alpha / r) ** 2)),
    ("scaling_inverted", "LoRALinear", scaled(lambda alpha, r: r / alpha)),
    ("scaling_sqrt", "LoRALinear", scaled(lambda alpha, r: alpha / math.sqrt(r))),
    ("base_bias_twice", "LoRALinear", BiasTwice),
    ("base_bias_lost", "LoRALinear", BiasLost),
    ("input_side", "LoRALinear", OnTheInput),
    ("base_lost", "LoRALinear", OnlyTheUpdate),
    ("update_lost", "LoRALinear", NoUpdate),
    ("update_order", "LoRALinear", WrongOrder),
    ("weight_not_taken", "LoRALinear", OwnWeight),
    ("lora_no_gradient", "LoRALinear", Detached),
    ("lora_no_gradient", "LoRALinear", WithoutGradient),
    ("merge_nothing", "LoRALinear.merge", MergesNothing),
    ("merge_unscaled", "LoRALinear.merge", MergesUnscaled),
    ("merge_turned", "LoRALinear.merge", MergesUnturned),
    ("merge_beside", "LoRALinear.merge", MergedAndBeside),
    ("merge_twice", "LoRALinear.merge", MergesTwice),
    ("unmerge_rounding", "LoRALinear.merge", Subtracts),
    ("unmerge_wrong", "LoRALinear.merge", NeverUnmerges),
    ("merge_in_place", "LoRALinear.merge", MergesInPlace),
    ("unmerge_unguarded", "LoRALinear.merge", UnmergesAlways),
    ("unmerge_unguarded", "LoRALinear.merge", UnmergesBlindly),
    ("merged_in_training", "LoRALinear.merge", StaysMerged),
    ("scaling_missing", "low_rank_update", lambda x, a, b, scaling: x @ a @ b),
    ("scaling_twice", "low_rank_update", lambda x, a, b, scaling: x @ a * scaling @ b * scaling),
    ("shapes", "low_rank_update", lambda x, a, b, scaling: x @ a.T @ b * scaling),
    ("shapes", "low_rank_update", lambda x, a, b, scaling: x @ a @ b.T * scaling),
    ("shapes", "low_rank_update", lambda x, a, b, scaling: x @ b @ a * scaling),
    ("a_turned", "kaiming_uniform_down", lambda d, r, device=None: kaiming_uniform_down(d, r, device).T),
    ("a_shape", "kaiming_uniform_down", lambda d, r, device=None: kaiming_uniform_down(d, d, device)),
    ("a_zero", "kaiming_uniform_down", lambda d, r, device=None: torch.zeros(d, r, device=device)),
    ("a_device", "kaiming_uniform_down", lambda d, r, device=None: kaiming_uniform_down(d, r)),
    (
        "a_fan_in",
        "kaiming_uniform_down",
        lambda d, r, device=None: nn.init.kaiming_uniform_(torch.empty(d, r), a=math.sqrt(5)),
    ),
    ("count_cross", "attention_blocks", lambda: "L_enc + L_dec"),
    ("count_decoder", "attention_blocks", lambda: "L_enc"),
    ("count_one_matrix", "parameters_of_an_update", lambda other: "d·r"),
    ("count_square", "parameters_of_an_update", lambda other: "2·d·r"),
    ("count_square", "parameters_of_an_update", lambda other: "r·(d + d)"),
    ("count_other", "parameters_of_an_update", lambda other: "d·r + r·d'"),
    ("count_other", "parameters_of_an_update", lambda other: "r·(d + other)"),
    ("count_letters", "parameters_of_an_update", lambda other: "d*r + r*i"),
    ("count_letters", "parameters_of_an_update", lambda other: f"(d·r + r·{other}"),
    ("count_letters", "parameters_of_an_update", lambda other: f"d·r + r·{other} +"),
    ("count_letters", "attention_blocks", lambda: "layers·3"),
    ("count_sign", "attention_blocks", lambda: "L_enc + 2L_dec"),
    ("count_sign", "parameters_of_an_update", lambda other: f"dr + r·{other}"),
    ("count_sign", "parameters_of_an_update", lambda other: f"r(d + {other})"),
    ("count_sign", "parameters_of_an_update", lambda other: f"(d + {other}) r"),
    ("count_number", "attention_blocks", lambda: 18),
]
