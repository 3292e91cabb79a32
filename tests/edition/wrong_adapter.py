"""Adapters with one mistake each, as students of this assignment write them."""

from torch import nn
from torch.nn import functional as F

from peft_scratch.methods import AdaptedLayerFF
from peft_scratch.methods.adapter import adapter_places


class Plain(nn.Module):
    """A right bottleneck as a student writes it."""

    def __init__(self, width, bottleneck, device=None):
        super().__init__()
        self.sharif_llm_adapter = nn.Sequential(*self.layers(width, bottleneck)).to(device)
        for name, parameter in self.named_parameters():
            if not name.startswith("sharif_llm_adapter.0.weight"):
                nn.init.zeros_(parameter)

    def layers(self, width, bottleneck):
        return nn.Linear(width, bottleneck), nn.ReLU(), nn.Linear(bottleneck, width)

    def forward(self, x):
        return self.sharif_llm_adapter(x)


def made_of(layers):
    return type("Made", (Plain,), {"layers": lambda self, width, bottleneck: layers(width, bottleneck)})


def computing(forward):
    return type("Computing", (Plain,), {"forward": forward})


class ElsewhereMade(Plain):
    def __init__(self, width, bottleneck, device=None):
        super().__init__(width, bottleneck)


class StartsRandom(Plain):
    def __init__(self, width, bottleneck, device=None):
        super().__init__(width, bottleneck, device)
        nn.init.normal_(self.sharif_llm_adapter[2].weight, std=0.02)


class StartsZero(Plain):
    def __init__(self, width, bottleneck, device=None):
        super().__init__(width, bottleneck, device)
        nn.init.zeros_(self.sharif_llm_adapter[0].weight)


class OtherNames(nn.Module):
    def __init__(self, width, bottleneck, device=None):
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)


def around(forward):
    """An adapted layer whose forward pass is `forward(layer, x, fx)`."""

    class Around(AdaptedLayerFF):
        def forward(self, hidden_states):
            x = hidden_states
            return forward(self, x, self.dropout(self.DenseReluDense(self.layer_norm(x))))

    return Around


class Swapped(AdaptedLayerFF):
    def __init__(self, base, bottleneck):
        super().__init__(base, bottleneck)
        self.adapter = Plain(bottleneck, base.layer_norm.weight.numel())


class NoNorm(AdaptedLayerFF):
    def forward(self, hidden_states):
        h = hidden_states + self.dropout(self.DenseReluDense(hidden_states))
        return h + self.adapter(h)


def _normed(layer, h):
    return F.layer_norm(h, (h.shape[-1],))


def _cross(model):
    return [name for name in adapter_places(model) if name.startswith("encoder")] + [
        f"decoder.block.{i}.layer.1" for i in range(len(model.decoder.block))
    ]


def _attention(model):
    return [
        f"{name}.block.{i}.layer.0"
        for name in ("encoder", "decoder")
        for i in range(len(getattr(model, name).block))
    ]


ADAPTER = [
    ("adapter_names", "Bottleneck", OtherNames),
    ("bottleneck_width", "Bottleneck", made_of(lambda d, k: (nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, d)))),
    ("bottleneck_width", "Bottleneck", made_of(lambda d, k: (nn.Linear(k, d), nn.ReLU(), nn.Linear(d, k)))),
    ("bottleneck_width", "AdaptedLayerFF", Swapped),
    ("bottleneck_device", "Bottleneck", ElsewhereMade),
    (
        "bottleneck_no_bias",
        "Bottleneck",
        made_of(lambda d, k: (nn.Linear(d, k, bias=False), nn.ReLU(), nn.Linear(k, d, bias=False))),
    ),
    (
        "bottleneck_layer_norm",
        "Bottleneck",
        made_of(lambda d, k: (nn.LayerNorm(d), nn.Linear(d, k), nn.ReLU(), nn.Linear(k, d))),
    ),
    (
        "bottleneck_layer_norm",
        "Bottleneck",
        computing(lambda self, x: self.sharif_llm_adapter(_normed(self, x))),
    ),
    ("up_not_zero", "Bottleneck", StartsRandom),
    ("down_zero", "Bottleneck", StartsZero),
    (
        "relu_after_up",
        "Bottleneck",
        made_of(lambda d, k: (nn.Linear(d, k), nn.ReLU(), nn.Linear(k, d), nn.ReLU())),
    ),
    (
        "relu_missing",
        "Bottleneck",
        made_of(lambda d, k: (nn.Linear(d, k), nn.Identity(), nn.Linear(k, d))),
    ),
    (
        "other_activation",
        "Bottleneck",
        made_of(lambda d, k: (nn.Linear(d, k), nn.GELU(), nn.Linear(k, d))),
    ),
    ("residual_inside", "Bottleneck", computing(lambda self, x: x + self.sharif_llm_adapter(x))),
    (
        "adapter_no_gradient",
        "Bottleneck",
        computing(lambda self, x: self.sharif_llm_adapter(x).detach().requires_grad_()),
    ),
    ("residual_missing", "AdaptedLayerFF", around(lambda layer, x, fx: layer.adapter(x + fx))),
    ("residual_twice", "AdaptedLayerFF", around(lambda layer, x, fx: 2 * (x + fx) + layer.adapter(x + fx))),
    ("before_residual", "AdaptedLayerFF", around(lambda layer, x, fx: x + fx + layer.adapter(fx))),
    ("adapter_parallel", "AdaptedLayerFF", around(lambda layer, x, fx: x + fx + layer.adapter(x))),
    (
        "adapter_layer_norm",
        "AdaptedLayerFF",
        around(lambda layer, x, fx: x + fx + layer.adapter(_normed(layer, x + fx))),
    ),
    (
        "adapter_layer_norm",
        "AdaptedLayerFF",
        around(lambda layer, x, fx: x + fx + layer.adapter(layer.layer_norm(x + fx))),
    ),
    ("feed_forward_lost", "AdaptedLayerFF", around(lambda layer, x, fx: x + layer.adapter(x + fx))),
    ("feed_forward_lost", "AdaptedLayerFF", around(lambda layer, x, fx: x + layer.adapter(x))),
    ("input_lost", "AdaptedLayerFF", around(lambda layer, x, fx: fx + layer.adapter(fx))),
    ("base_norm_lost", "AdaptedLayerFF", NoNorm),
    ("adapter_lost", "AdaptedLayerFF", around(lambda layer, x, fx: x + fx)),
    (
        "adapter_no_gradient",
        "AdaptedLayerFF",
        around(lambda layer, x, fx: (x + fx + layer.adapter(x + fx)).detach().requires_grad_()),
    ),
    ("adapter_after_attention", "adapter_places", _attention),
    ("adapter_everywhere", "adapter_places", lambda model: _attention(model) + adapter_places(model)),
    ("adapter_after_cross", "adapter_places", _cross),
    (
        "adapter_encoder_only",
        "adapter_places",
        lambda model: [name for name in adapter_places(model) if name.startswith("encoder")],
    ),
    (
        "adapter_inner",
        "adapter_places",
        lambda model: [name for name, m in model.named_modules() if name.endswith("DenseReluDense")],
    ),
    ("count_decoder", "feed_forward_layers", lambda: "L_enc"),
    ("count_bias", "parameters_of_a_bottleneck", lambda: "d·b + b·d"),
    ("count_bias", "parameters_of_a_bottleneck", lambda: "d·b + b + b·d"),
]
