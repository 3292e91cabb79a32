"""The recipes: the same verdicts, float32 where it trains, a base that stays, side by side."""

import dataclasses
import itertools
import platform
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from conftest import make_t5
from tiny_bench import tiny_workbench

from peft_scratch.assignment import PROFILES, RUNS, SST2_PREFIX
from peft_scratch.data.base_model import load_base
from peft_scratch.data.batches import Collator
from peft_scratch.data.reviews import load_reviews
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.experiments import session as workbench
from peft_scratch.experiments.session import Session
from peft_scratch.libraries import method_of
from peft_scratch.methods import apply, base_of
from peft_scratch.training import device
from peft_scratch.training import recipe as recipe_module
from peft_scratch.training.evaluation import MALFORMED, predict
from peft_scratch.training.recipe import RECIPES, find_recipe
from peft_scratch.training.trainer import Trainer

COURSE, FAST = RECIPES["reference"], RECIPES["fast"]
CPU = torch.device("cpu")
REVIEWS = [[5 + i % 7, 20 + i % 11, 1] + [9] * (i % 3) for i in range(16)]
COLLATOR = Collator(REVIEWS, [i % 2 for i in range(16)], [[3, 1], [4, 1]], pad_id=0)
METHODS = pytest.mark.parametrize("run_id", RUNS)
PRECISIONS = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture
def precision_is(monkeypatch):
    """Have the machine say that it works in the given type, whatever it has: bfloat16 runs everywhere."""
    return lambda dtype: monkeypatch.setattr(device, "precision_of", lambda: (dtype, "for a test"))


def test_there_are_two_and_a_third_is_refused_in_one_sentence():
    assert [find_recipe(name).name for name in ("reference", "fast")] == ["reference", "fast"]
    with pytest.raises(UserError, match="no recipe 'quick'; choose one of reference, fast"):
        find_recipe("quick")


@PRECISIONS
def test_the_course_works_in_float32_and_fast_in_what_the_machine_has(precision_is, precision):
    precision_is(precision)
    assert COURSE.precision[0] == torch.float32
    assert FAST.precision[0] == precision


@PRECISIONS
@METHODS
def test_a_step_moves_float32_tensors_and_no_bit_of_the_base(run_id, precision, precision_is):
    precision_is(precision)
    tuned = apply(method_of(RUNS[run_id]), make_t5())
    model = FAST.cast_frozen(tuned.model)
    trains = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    start = {name: p.detach().clone() for name, p in trains.items()}
    assert {p.dtype for p in trains.values()} == {torch.float32}
    assert {p.dtype for p in frozen.values()} <= {precision}

    trainer = Trainer(model, accelerator=Accelerator(cpu=True), recipe=FAST, learning_rate=0.01, batch_size=8)
    trainer.micro_batch = 4  # a batch in two parts
    lengths = [len(row) for row in REVIEWS]
    batches = FAST.training_batches(lengths, 8, seed=0)
    gradients = {}
    for name, p in trains.items():
        p.register_post_accumulate_grad_hook(lambda p, name=name: gradients.update({name: p.grad.clone()}))
    losses = [
        loss
        for _ in range(2)  # LoRA's A gets its first gradient in the second step
        for loss in trainer.train_batches(COLLATOR, batches, "a test")
    ]
    assert all(torch.tensor(losses).isfinite())
    assert gradients.keys() == trains.keys()
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients.values())
    assert not any(torch.equal(p, start[name]) for name, p in trains.items())
    assert all(torch.equal(model.get_parameter(name), p) for name, p in frozen.items())


@METHODS
def test_the_base_comes_out_as_it_went_in(run_id, precision_is, batch):
    if run_id == "full":
        pytest.skip("nothing is taken out")
    precision_is(torch.bfloat16)
    base = FAST.cast_frozen(make_t5().requires_grad_(False))
    tuned = apply(method_of(RUNS[run_id]), make_t5())
    FAST.cast_frozen(tuned.model)
    out = base_of(tuned)
    assert all(torch.equal(p, base.get_parameter(name)) for name, p in out.named_parameters())
    with FAST.forward_context(base, CPU):
        expected = base(**batch).logits
    with FAST.forward_context(out, CPU):
        assert torch.equal(out(**batch).logits, expected)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "recomputed"])
def test_pefts_layers_leave_conversions_to_autocast(precision_is, batch, monkeypatch, checkpointed):
    """They convert nothing themselves, and the gradients are those of before to the bit."""
    precision_is(torch.bfloat16)
    model = apply(method_of(RUNS["lora_peft_r8"]), make_t5()).model.train()
    FAST.cast_frozen(model)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    if checkpointed:
        model.gradient_checkpointing_enable()
    seen = set()
    for name, module in model.named_modules():
        if name.endswith(".lora_A.default"):
            module.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))

    def gradients():
        seen.clear()
        torch.manual_seed(0)
        with FAST.forward_context(model, CPU):
            loss = model(**batch, use_cache=False).loss
        during_forward = set(seen)
        trains = [p for p in model.parameters() if p.requires_grad]
        return during_forward, torch.autograd.grad(loss, trains)

    dtypes, ours = gradients()
    assert dtypes == {torch.bfloat16}
    monkeypatch.setattr(recipe_module, "casts_left_to_autocast", lambda model: nullcontext())
    dtypes, before = gradients()
    assert dtypes == {torch.float32}, "PEFT's own setting is back"
    assert all(torch.equal(one, other) for one, other in zip(ours, before, strict=True))


def test_tied_tensors_stay_tied_and_are_held_once(precision_is):
    precision_is(torch.bfloat16)
    model = FAST.cast_frozen(make_t5().requires_grad_(False))
    assert model.lm_head.weight is model.shared.weight is model.encoder.embed_tokens.weight
    assert model.shared.weight.dtype == torch.bfloat16


def test_batches_at_random_or_by_length():
    lengths = [1 + i % 50 for i in range(200)]

    def padding(batches):
        return sum(max(lengths[i] for i in b) * len(b) for b in batches) / sum(lengths)

    for recipe, lower, upper in ((COURSE, 1.5, 3), (FAST, 1, 1.4)):
        training = [list(recipe.training_batches(lengths, 16, seed)) for seed in (1, 1, 2)]
        assert training[0] == training[1] != training[2]
        assert sorted(i for b in training[0] for i in b) == list(range(200))
        assert lower < padding(training[0]) < upper
    assert [i for b in COURSE.evaluation_batches(lengths, 16) for i in b] == list(range(200))
    assert padding(FAST.evaluation_batches(lengths, 16)) < 1.1


# On real reviews, with the base that ships


@pytest.fixture(scope="module")
def reviews():
    return load_reviews(dataclasses.replace(PROFILES["offline"], test_reviews=60, train_reviews=6)).test


@pytest.fixture(scope="module")
def shipped():
    return load_base(PROFILES["offline"])


def _collator(reviews, tokenizer, max_tokens=48):
    texts = [SST2_PREFIX + text if i % 2 else text for i, text in enumerate(reviews["text"])]
    inputs = tokenise(texts, tokenizer, max_tokens)
    return Collator(inputs, reviews["label"], label_ids(tokenizer), tokenizer.pad_token_id)


@METHODS
def test_verdicts_are_those_of_generation(run_id, reviews, shipped):
    """Half the reviews carry the prefix that the base was trained on; of the others it says anything."""
    tokenizer = shipped[1]
    model = apply(method_of(RUNS[run_id]), load_base(PROFILES["offline"])[0]).model
    for recipe in (dataclasses.replace(FAST, low_precision=False), FAST):
        recipe.cast_frozen(model)
        options = (_collator(reviews, tokenizer), tokenizer, Accelerator(cpu=True), 16)
        said = predict(model, *options, recipe).predictions
        generated = predict(model, *options, dataclasses.replace(recipe, scoring=False)).predictions
        assert said == generated
        assert set(said) == {MALFORMED, 0, 1}, "the comparison is worth something only with all three"


# Workbenches


def test_two_recipes_work_side_by_side_in_one_process(tmp_path):
    Accelerator(cpu=True)
    benches = [Session.open("smoke", output=tmp_path, recipe=name) for name in ("fast", "reference", "fast")]
    assert [bench.recipe.name for bench in benches] == ["fast", "reference", "fast"]
    assert [bench.precision for bench in benches][1] == "float32"
    shown = [str(benches[n]) for n in (0, 1)]
    assert "recipe     fast: " in shown[0]
    assert "recipe     reference: " in shown[1]


def test_a_result_says_which_recipe_and_what_generation_said(tmp_path):
    bench = tiny_workbench(tmp_path)
    results = {}
    for name in ("fast", "reference"):
        bench.recipe = dataclasses.replace(RECIPES[name], low_precision=False)
        results[name] = bench.prepare("lora_scratch_r8").train()
        assert results[name].config.recipe == name
        assert dict(results[name].generation) == {"reviews": 10, "of": 10, "differ": 0}
    assert results["fast"].fingerprint != results["reference"].fingerprint
    assert results["fast"].curve != results["reference"].curve, "one run was taken for the other"


def test_a_verdict_that_differs_is_counted(tmp_path, monkeypatch):
    from peft_scratch.training import evaluation

    bench = tiny_workbench(tmp_path)
    monkeypatch.setattr(
        evaluation, "generated_predictions", lambda _, inputs, *__: inputs["input_ids"][:, 0] * 0 + 1
    )
    monkeypatch.setattr(evaluation, "scored_predictions", lambda _, batch, *__: (batch["index"] > 2).long())
    prepared = bench.prepare("lora_scratch_r8")
    compared = prepared.compared_with_generation(prepared.collator(bench.reviews.test))
    assert dict(compared) == {
        "reviews": 10,
        "of": 10,
        "differ": 3,
    }


def test_reviews_are_tokenised_once_and_never_taken_for_others(tmp_path, monkeypatch):
    bench, calls = tiny_workbench(tmp_path), []
    monkeypatch.setattr(
        workbench, "tokenise_cached", lambda *given: (calls.append(given), tokenise(*given))[1]
    )
    test, train = bench.reviews.test, bench.reviews.train
    first, again = bench.collator(test, 16), bench.collator(test, 16)
    assert first == again
    assert len(calls) == 1
    others = [
        bench.collator(test, 4),
        bench.collator(test, 16, prefix="x: "),
        bench.collator(train, 16),
        bench.collator(test.select(range(4)), 16),
        bench.collator(test.select(range(4, 8)), 16),
    ]
    assert len(calls) == 6
    assert all(one.inputs != other.inputs for one, other in itertools.combinations([first, *others], 2))


FREED = """
import resource, torch
from peft_scratch.training.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        [torch.zeros(10 * 2**20) for _ in range(10)]  # of 40 MiB: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
keep_freed_memory()
print(plain, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back")
def test_freed_memory_is_kept_for_the_next_step():
    """In a process of its own, since it is for the whole of one."""
    said = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    plain, kept = map(int, said.split())
    assert plain > 100, "nothing was given back in the first place"
    assert kept < plain / 2  # not none: memory is asked for once, and a few bytes can make a gap too small
