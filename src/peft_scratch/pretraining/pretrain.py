"""Pre-trains the offline base for a given time. It can be interrupted, and exports the base regularly."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import T5Config, T5ForConditionalGeneration, T5TokenizerFast

from peft_scratch.files import write_atomically
from peft_scratch.methods.checkpoint import serialised
from peft_scratch.paths import BUILD, OFFLINE_BASE
from peft_scratch.pretraining.card import RECORD, write_card
from peft_scratch.pretraining.corpus import Corpus, Sources, tokenizer_texts, training_sources
from peft_scratch.pretraining.embeddings import minilm_embeddings
from peft_scratch.pretraining.optimizer import RMSScaledAdamW
from peft_scratch.pretraining.teacher import Teacher, firmest
from peft_scratch.pretraining.tokenizer import VOCABULARY, train_tokenizer
from peft_scratch.training.device import bfloat16_on_cpu

#: Where the checkpoint of an unfinished run is kept.
WORK = BUILD / "base"
CHECKPOINT_SECONDS = 300.0
CURVE_POINTS = 200


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the base except the budget.

    The defaults made the shipped base, in an hour of one core with bfloat16.
    """

    vocabulary: int = VOCABULARY
    d_model: int = 256
    d_kv: int = 64
    heads: int = 4
    d_ff: int = 768
    layers: int = 3
    decoder_layers: int = 2
    minilm: bool = True  # the embedding starts from its word vectors, and it is the teacher
    learning_rate: float = 0.015  # before it is scaled for each tensor
    warmup: float = 0.03  # this and the next are shares of the budget
    decay_from: float = 0.3
    sequences: int = 32  # unlabelled pieces per step
    continued: float = 0.2  # share of these to be continued; spans of the others are corrupted
    labelled_tokens: int = 2048  # supervised input tokens per step
    # Their kinds: labelled sentences, and parts of sentences and of reviews that the teacher labelled.
    shares: tuple[tuple[str, float], ...] = (("sentences", 0.15), ("phrases", 0.2), ("windows", 0.65))
    teacher_epochs: int = 4
    judged_windows: int = 80_000
    judged_phrases: int = 40_000
    seed: int = 0

    def config(self, vocabulary: int) -> T5Config:
        return T5Config(
            vocab_size=vocabulary,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_heads=self.heads,
            num_layers=self.layers,
            num_decoder_layers=self.decoder_layers,
            dropout_rate=0.1,
            decoder_start_token_id=0,
        )

    @property
    def kinds(self) -> dict[str, float]:
        """`shares`, or only sentences if there is no teacher."""
        return dict(self.shares) if self.minilm else {"sentences": 1.0}

    def rate(self, progress: float) -> float:
        """The share of the peak learning rate at `progress` through the budget: rising, constant, falling."""
        down = (1 - progress) / (1 - self.decay_from)
        return max(0.0, min(1.0, (progress + 1e-3) / self.warmup, down))


@dataclass
class State:
    """An unfinished run: what a checkpoint holds besides the weights and the optimizer."""

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


def pretrain(
    budget_seconds: float,
    out: Path = OFFLINE_BASE,
    *,
    recipe: Recipe | None = None,
    sources: Sources | None = None,
    work: Path = WORK,
    workers: int | None = None,
    stop_after: float | None = None,
    export_seconds: float = 600.0,
) -> dict:
    """Make the base: tokenizer, pre-training for `budget_seconds` of training time, export to `out`.

    An interrupted run continues from its last checkpoint in `work` if this is called again with the same
    recipe, budget and texts. Setting up takes ten minutes, mostly for the teacher, and does not count.

    Args:
        sources: the texts; by default the training parts of the offline split.
        workers: how many processes of one thread share every step; by default one per core. On a busy
            machine they lose far less time than threads, which wait for each other in every operation.
        stop_after: save a checkpoint and stop after so many seconds of this call.
        export_seconds: how often the current weights are written to `out`; the last ones always are.

    Returns:
        What `out`/pretraining.json holds.
    """
    recipe, sources = recipe or Recipe(), sources or training_sources()
    job = _Job(
        recipe=recipe,
        corpus=_prepare(recipe, sources, work),
        texts_seen=sources.fingerprints(),
        budget=budget_seconds,
        out=out,
        checkpoint=work / "checkpoint.pt",
        workers=workers or min(len(os.sched_getaffinity(0)), recipe.sequences),
        stop_after=stop_after if stop_after is not None else float("inf"),
        export_seconds=export_seconds,
    )
    if job.workers == 1:
        _train(0, job, None)
    else:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_train, (job, f"{folder}/meeting"), nprocs=job.workers)
    write_card(out)
    return json.loads((out / RECORD).read_text())


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    corpus: Corpus
    texts_seen: dict[str, str]
    budget: float
    out: Path
    checkpoint: Path
    workers: int
    stop_after: float
    export_seconds: float

    @property
    def identity(self) -> str:
        """A checkpoint with another identity belongs to another run and is not continued."""
        return json.dumps([asdict(self.recipe), self.texts_seen, self.budget])


def _train(rank: int, job: _Job, meeting: str | None) -> None:
    """The work of each process: its part of every step. The first also keeps time, saves and exports."""
    recipe, corpus = job.recipe, job.corpus
    if meeting is not None:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=job.workers,
            timeout=timedelta(hours=1),
        )
    model, optimizer, state = _start(job)
    # The data order is not resumed exactly: a continued run draws new batches.
    rng = np.random.default_rng([recipe.seed, state.steps, rank])
    torch.manual_seed(recipe.seed + 1000 * state.steps + rank)
    spans = corpus.span_batches(rng, recipe.sequences // job.workers, recipe.continued)
    labelled = corpus.labelled_batches(rng, recipe.labelled_tokens // job.workers, recipe.kinds)
    gradient = _flat_gradient(model)
    began = last_save = last_export = state.seconds
    losses: dict[str, list[float]] = {"span": [], "label": []}
    bar = tqdm(total=round(job.budget), initial=round(began), unit="s", mininterval=5, disable=rank > 0)
    clock = time.monotonic()
    while state.seconds < job.budget and state.seconds - began < job.stop_after:
        progress = state.seconds / job.budget
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.rate(progress)
        # Unlabelled text is seen only a few times, so without dropout; labelled examples get the config's.
        gradient.zero_()
        losses["span"].append(_backward(model.eval(), batch := next(spans)))
        losses["label"].append(_backward(model.train(), next(labelled)))
        _average(gradient, job.workers)
        gradient.mul_(1 / max(1.0, gradient.norm().item()))
        optimizer.step()
        state.steps += 1
        state.tokens += int(batch["attention_mask"].sum()) * job.workers

        now = time.monotonic()
        state.seconds, clock = _agreed(state.seconds + now - clock), now
        if rank > 0:
            continue
        if state.seconds >= job.budget * (len(state.curve) + 1) / CURVE_POINTS:
            point = {name: sum(values) / len(values) for name, values in losses.items()}
            state.curve.append({"seconds": state.seconds, "steps": state.steps, **point})
            losses = {"span": [], "label": []}
            bar.set_postfix(point | {"step": state.steps}, refresh=False)
        bar.update(round(min(state.seconds, job.budget)) - bar.n)
        if state.seconds - last_save >= CHECKPOINT_SECONDS:
            _save_checkpoint(job, model, optimizer, state)
            last_save = state.seconds
        if state.seconds - last_export >= job.export_seconds:
            _export(job, model, state)
            last_export = state.seconds
    bar.close()
    if rank == 0:
        _save_checkpoint(job, model, optimizer, state)
        _export(job, model, state)
    if meeting is not None:
        dist.destroy_process_group()


def _flat_gradient(model: T5ForConditionalGeneration) -> Tensor:
    """One vector that contains every parameter's gradient, so that all are averaged at once."""
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return flat


def _average(gradient: Tensor, workers: int) -> None:
    if dist.is_initialized():
        dist.all_reduce(gradient)
        gradient /= workers


def _agreed(seconds: float) -> float:
    """The first worker's clock, which all use."""
    if not dist.is_initialized():
        return seconds
    shared = torch.tensor([seconds], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.item()


def _backward(model: T5ForConditionalGeneration, batch: dict[str, Tensor]) -> float:
    # Without bfloat16 in hardware, autocast is slower than float32, ten times in a test.
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_on_cpu()):
        loss = model(**batch, use_cache=False).loss
    loss.backward()
    return loss.item()


def _prepare(recipe: Recipe, sources: Sources, work: Path) -> Corpus:
    """The tokenised texts with the teacher's labels; tokenizer and labels are kept in `work`."""
    key = sha256(f"{recipe.vocabulary} {sources.fingerprints()}".encode()).hexdigest()[:16]
    folder = work / f"tokenizer-{key}"
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        train_tokenizer(tokenizer_texts(sources), draft, recipe.vocabulary)
        draft.replace(folder)
    corpus = Corpus.from_sources(sources, T5TokenizerFast.from_pretrained(folder))
    if recipe.minilm:
        of_teacher = (recipe.seed, recipe.teacher_epochs, recipe.judged_windows, recipe.judged_phrases)
        _label(recipe, corpus, sources, work / f"judged-{key}-{'-'.join(map(str, of_teacher))}.pt")
    return corpus


def _label(recipe: Recipe, corpus: Corpus, sources: Sources, kept: Path) -> None:
    """Let the teacher label what the corpus draws; its scores are kept in `kept` for a resumed run."""
    rng = np.random.default_rng(recipe.seed)
    windows = corpus.draw_windows(rng, recipe.judged_windows)
    phrases = corpus.draw_phrases(rng, recipe.judged_phrases)
    if not kept.exists():
        teacher = Teacher(recipe.seed)
        teacher.train(sources.sentences, sources.labels, recipe.teacher_epochs)
        scores = teacher.scores(corpus.texts(windows + phrases))
        write_atomically(kept, serialised({"scores": torch.from_numpy(scores)}))
    scores = torch.load(kept, weights_only=True)["scores"].numpy()
    corpus.windows = firmest(windows, scores[: len(windows)])
    corpus.phrases = firmest(phrases, scores[len(windows) :])


def _start(job: _Job) -> tuple[T5ForConditionalGeneration, RMSScaledAdamW, State]:
    """A new model and optimizer, or those of the checkpoint if it belongs to this run."""
    recipe, tokenizer = job.recipe, job.corpus.tokenizer
    torch.manual_seed(recipe.seed)
    model = T5ForConditionalGeneration(recipe.config(len(tokenizer)))
    if recipe.minilm:
        with torch.no_grad():
            model.shared.weight.copy_(minilm_embeddings(tokenizer, recipe.d_model, recipe.seed))
    optimizer = RMSScaledAdamW(model.parameters(), lr=recipe.learning_rate)
    state = State()
    if job.checkpoint.exists():
        saved = torch.load(job.checkpoint, weights_only=True)
        if saved["identity"] == job.identity:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            state = State(**saved["state"])
    return model, optimizer, state


def _save_checkpoint(job: _Job, model: nn.Module, optimizer: RMSScaledAdamW, state: State) -> None:
    content = {
        "identity": job.identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": asdict(state),
    }
    write_atomically(job.checkpoint, serialised(content))


def _export(job: _Job, model: T5ForConditionalGeneration, state: State) -> None:
    """Write the model in half precision, its tokenizer and its record to `out`, each file whole."""
    record = {
        "finished": state.seconds >= job.budget,
        "budget_seconds": job.budget,
        **asdict(state),
        "parameters": model.num_parameters(),
        "recipe": asdict(job.recipe),
        "texts_seen": job.texts_seen,
        "workers": job.workers,
        "precision": "bfloat16 autocast" if bfloat16_on_cpu() else "float32",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    draft = job.out.with_name(f".{job.out.name}.{os.getpid()}")
    half = T5ForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(draft)
    job.corpus.tokenizer.save_pretrained(draft)
    (draft / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    job.out.mkdir(parents=True, exist_ok=True)
    for file in draft.iterdir():
        file.replace(job.out / file.name)
    draft.rmdir()
