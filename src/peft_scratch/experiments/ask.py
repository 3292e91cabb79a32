"""Ask the base and the trained models for their opinions on any text, with one base in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from peft_scratch.assignment import KIND_NAMES, LABEL_WORDS, RUNS, SIZES
from peft_scratch.data.batches import pad, sorted_batches
from peft_scratch.data.text import clean
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.exactness.convert import recognise
from peft_scratch.exactness.folders import alpha_of
from peft_scratch.experiments.remarks import remarks
from peft_scratch.libraries import method_of
from peft_scratch.methods import FullFineTuning, LoRA, Method, Tuned, apply, base_of
from peft_scratch.methods.checkpoint import copy_delta, read_delta
from peft_scratch.methods.parameters import unwrapped
from peft_scratch.results import RunResult
from peft_scratch.training.evaluation import cache_of, generated_texts, require_finite
from peft_scratch.training.float16 import Float16Failed
from peft_scratch.training.progress import progress

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

BASE = "Base, not tuned"
NEITHER = "neither"

#: Into how many parts a long text is cut for occlusion: each costs one more prediction.
OCCLUDED_PARTS = 48

#: How many characters of a text are tokenised for each token that a model reads, unless these are too few.
CHARACTERS_PER_TOKEN = 100


@dataclass(frozen=True)
class Opinion:
    """What one model says about one text.

    Attributes:
        verdict: a label word, or `neither`.
        probabilities: of each label word with the end token after it, among all possible outputs.
        generated: what the model writes if it is neither label word; `None` otherwise.
    """

    model: str
    verdict: str
    probabilities: dict[str, float]
    generated: str | None = None

    @property
    def lean(self) -> float:
        """Probability of `positive` among the two label words."""
        negative, positive = (self.probabilities[word] for word in LABEL_WORDS)
        return positive / (negative + positive) if negative + positive else 0.5


@dataclass(frozen=True)
class Member:
    """A trained method to ask: its title, the method, its trained tensors by name, and their file."""

    title: str
    method: Method
    entries: dict[str, Tensor] = field(repr=False)
    source: str = ""


class Panel:
    """The base and some trained methods, ready to be asked together.

    All share the base's frozen tensors, so only one base is in memory, however many methods there are. Full
    fine-tuning has its own weights. Questions are answered one at a time.
    """

    def __init__(self, session: Session, members: Iterable[Member]) -> None:
        """Apply each of `members` to the session's base.

        Raises:
            UserError: the entries of a member do not fit the base.
        """
        self.session = session
        self._lock = threading.Lock()
        device = session.accelerator.device
        base = session.frozen_base().to(device).eval()
        self.models: dict[str, nn.Module] = {BASE: base}
        self._rooms = {BASE: session.profile.max_tokens}
        self._recipes = {BASE: session.recipe}
        for member in members:
            if isinstance(member.method, FullFineTuning):
                tuned = apply(member.method, session.base())
            else:
                # Another tree of modules over the same frozen tensors: no weight is copied.
                tuned = apply(member.method, base_of(Tuned(base, FullFineTuning(), [])))
            copy_delta(tuned.model, member.entries, member.source or member.title, tuned.method.declares)
            session.recipe.cast_frozen(tuned.model)
            title = _new_title(member, self.models)
            self.models[title] = tuned.model.to(device).eval()
            self._rooms[title] = self._rooms[BASE] - getattr(member.method, "virtual_tokens", 0)
            self._recipes[title] = session.recipe

    @property
    def titles(self) -> list[str]:
        """The titles of the models; the base comes first."""
        return list(self.models)

    def ask(self, texts: Sequence[str], batch_size: int = 64, *, bar: bool = False) -> list[list[Opinion]]:
        """The opinions of every model on each of `texts`, in their order.

        Texts of similar length go through a model together, as in an evaluation.

        Args:
            batch_size: how many texts go through a model at once.
            bar: whether to show a progress bar.
        """
        cleaned = [_clean(text) for text in texts]
        # Models that read the same number of tokens share their rows.
        rows = {room: self._tokenise(cleaned, room) for room in set(self._rooms.values())}
        lengths = [len(row) for row in rows[self._rooms[BASE]]]
        batches = sorted_batches(lengths, batch_size)
        work = [(title, batch) for batch in batches for title in self.models]
        found: list[list[Opinion]] = [[] for _ in texts]
        for title, batch in progress(work, "  asking", "batch") if bar else work:
            of_model = rows[self._rooms[title]]
            with self._lock:
                opinions = self._opinions(title, [of_model[i] for i in batch])
            for i, opinion in zip(batch, opinions, strict=True):
                found[i].append(opinion)
        return found

    def occlusion(self, title: str, text: str) -> list[tuple[str, float]]:
        """How much each word of `text` matters to the opinion of the model called `title`.

        Occlusion (Zeiler and Fergus 2014, section 4.2, who hide patches of a picture): the model predicts the
        text without the word. The number is how much its lean towards `positive` falls, so a positive number
        marks a word that speaks for `positive`. Words that matter only together are missed.

        Args:
            text: the words that the model reads are left out in turn, in at most `OCCLUDED_PARTS` parts of
                equal size.

        Returns:
            The words of each part and its number, from -1 to 1.
        """
        room = self._rooms[title]
        words = self._read_part(_clean(text), room).split()
        size = -(-len(words) // OCCLUDED_PARTS) or 1
        parts = [words[start : start + size] for start in range(0, len(words), size)]
        if not parts:
            return []
        without = [" ".join(words[: i * size] + words[(i + 1) * size :]) for i in range(len(parts))]
        with self._lock:
            whole, *others = self._opinions(title, self._tokenise([" ".join(words), *without], room))
        return [(" ".join(part), whole.lean - other.lean) for part, other in zip(parts, others, strict=True)]

    def remarks(self, text: str) -> list[str]:
        """See `remarks.remarks`, for the model that reads least."""
        room, cleaned = min(self._rooms.values()), _clean(text)
        head = self._head(cleaned, room)
        tokens = len(self.session.tokenizer(head)["input_ids"])
        return remarks(head, tokens, room, more=len(head) < len(cleaned))

    def _tokenise(self, cleaned: list[str], room: int) -> list[list[int]]:
        return tokenise([self._head(text, room) for text in cleaned], self.session.tokenizer, room)

    def _head(self, cleaned: str, room: int) -> str:
        """The beginning of `cleaned`, long enough for `room` tokens; or all of it.

        Only texts that are far too long are cut, because tokenising a megabyte takes seconds.
        """
        size = CHARACTERS_PER_TOKEN * room
        while size < len(cleaned) and len(self.session.tokenizer(cleaned[:size])["input_ids"]) <= room:
            size *= 2
        return cleaned[:size]

    def _read_part(self, cleaned: str, room: int) -> str:
        """The beginning of `cleaned` that fits into `room` tokens, the end token included."""
        cleaned = self._head(cleaned, room)
        encoded = self.session.tokenizer(
            cleaned, truncation=True, max_length=room, return_offsets_mapping=True
        )
        return cleaned[: max((end for _, end in encoded["offset_mapping"]), default=0)]

    def _opinions(self, title: str, rows: list[list[int]]) -> list[Opinion]:
        session, model, tokenizer = self.session, self.models[title], self.session.tokenizer
        device = session.accelerator.device
        inputs = {
            "input_ids": pad(rows, tokenizer.pad_token_id).to(device),
            "attention_mask": pad([[1] * len(row) for row in rows], 0).to(device),
        }
        try:
            with torch.inference_mode(), self._recipes[title].forward_context(model, device):
                probabilities, greedy = label_probabilities(model, inputs, label_ids(tokenizer))
                generated = _generated(model, inputs, tokenizer, greedy < 0)
        except Float16Failed:  # as in an evaluation, which is then done in float32
            self._recipes[title] = session.recipe.in_float32()
            self._recipes[title].cast_frozen(model)
            return self._opinions(title, rows)
        opinions = []
        for row, position in enumerate(greedy.tolist()):
            shares = dict(zip(LABEL_WORDS, probabilities[row].tolist(), strict=True))
            written = LABEL_WORDS[position] if position >= 0 else generated[row]
            if written in LABEL_WORDS:
                opinions.append(Opinion(title, written, shares))
            else:
                opinions.append(Opinion(title, NEITHER, shares, written))
        return opinions


def encodable(text: str) -> str:
    """`text` with a question mark for each half of a surrogate pair, which no tokenizer and no JSON takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _clean(text: str) -> str:
    """`text` as the models read it."""
    return clean(encodable(text))


def _new_title(member: Member, taken: Iterable[str]) -> str:
    """The member's title. If it is taken, as with two files of the same name, its source is added."""
    title = member.title
    if title in taken:
        title = f"{title} ({member.source})"
    number = 2
    while title in taken:
        title, number = f"{member.title} ({number})", number + 1
    return title


def label_probabilities(
    model: nn.Module, inputs: dict[str, Tensor], targets: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """How probable each label word is as the whole output, and which one greedy decoding writes.

    The encoder reads the texts once, and the decoder's first step is made once for both words. As in an
    evaluation, the steps are those of `generate`, with its cache.

    Args:
        inputs: `input_ids` and `attention_mask`, each `(B, T)`.
        targets: token ids of each label word, end token included.

    Returns:
        `(B, 2)` probabilities, and `(B,)` positions in `targets`, or -1 where greedy decoding writes
        neither.

    Raises:
        Float16Failed: float16 gave logits that are not finite.
    """
    start = torch.full_like(inputs["input_ids"][:, :1], model.config.decoder_start_token_id)  # (B, 1)
    out, first, written = _next_token(model, **inputs, decoder_input_ids=start)
    cache = cache_of(out)
    (steps,) = cache.values()
    rest = {
        "encoder_outputs": BaseModelOutput(out.encoder_last_hidden_state),  # (B, T, d), or longer by a prompt
        "attention_mask": inputs["attention_mask"],
    }
    columns, greedy = [], torch.full((len(start),), -1, device=start.device)
    for position, target in enumerate(targets):
        summed, agrees = first[:, target[0]], written == target[0]  # (B,)
        for before, token in pairwise(target):
            given = torch.full_like(start, before)
            _, scores, follows = _next_token(model, **rest, decoder_input_ids=given, **cache)
            summed, agrees = summed + scores[:, token], agrees & (follows == token)
        steps.crop(1 - len(target))  # back to the first step, for the other word
        columns.append(summed.exp())
        greedy[agrees] = position
    return torch.stack(columns, 1), greedy


def _next_token(model: nn.Module, **inputs: Any) -> tuple[ModelOutput, Tensor, Tensor]:
    """One step of decoding: the model's output, the next token's log-probabilities `(B, V)`, and the token
    `(B,)` that greedy decoding takes.

    bfloat16 rounds a logit near 10 to a sixteenth, so two models can seem equally certain. In bfloat16 the
    output layer is therefore computed again in float32. The token still comes from the model's own logits,
    as in an evaluation.

    Raises:
        Float16Failed: float16 gave logits that are not finite.
    """
    layer = unwrapped(model).get_output_embeddings()
    read: list[Tensor] = []
    with layer.register_forward_pre_hook(lambda _, given: read.append(given[0])):
        out = model(**inputs, use_cache=True)
    logits = out.logits[:, -1]  # (B, V)
    require_finite(logits)
    token = logits.argmax(-1)
    if logits.dtype == torch.bfloat16:
        with torch.autocast(logits.device.type, enabled=False):
            logits = F.linear(read[0][:, -1].float(), layer.weight.float())
    return out, logits.float().log_softmax(-1), token


def _generated(
    model: nn.Module, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, rows: Tensor
) -> dict[int, str]:
    """What `model` writes for the inputs where `rows` is true, by position."""
    if not rows.any():
        return {}
    some = {name: tensor[rows] for name, tensor in inputs.items()}
    written = generated_texts(model, some, tokenizer)
    positions = rows.nonzero()[:, 0].tolist()
    return {position: text.strip() for position, text in zip(positions, written, strict=True)}


def trained_results(session: Session) -> dict[str, RunResult]:
    """The results of the session's finished runs, by id."""
    return {name: one for name, one in session.results().items() if isinstance(one, RunResult)}


def trained_members(session: Session) -> list[Member]:
    """The runs of the session's output folder that have finished, in the order of the notebooks.

    Raises:
        UserError: a weight file is damaged.
    """
    found = trained_results(session)
    members = []
    for run in RUNS.values():
        if (result := found.get(run.id)) is None:
            continue
        path = session.run_folder(run.id, str(result.fingerprint)) / "best.pt"
        if not path.is_file() and run.weight_file:
            path = session.output / "weights" / run.weight_file
        if path.is_file():
            members.append(Member(run.title, method_of(run), read_delta(path), str(path)))
    return members


def member_of_file(path: Path, alpha: float | None = None) -> Member:
    """A trained method from elsewhere: a `.pt` file of this kit or of another student, or a library's folder.

    Args:
        alpha: LoRA's alpha. By default a folder states it; for a `.pt` file it is the assignment's.

    Raises:
        UserError: `path` is none of these.
    """
    method, entries = recognise(path, alpha=alpha or alpha_of(path) or LoRA().alpha)
    name, letter = SIZES[method.kind]
    title = f"{KIND_NAMES[method.kind]}, {letter} = {getattr(method, name)}, {path.name}"
    return Member(title, method, entries, str(path))


def panel_of(session: Session, files: Sequence[Path] = (), alpha: float | None = None) -> Panel:
    """The session's finished runs and the trained methods in `files`, ready to be asked.

    Args:
        alpha: as for `member_of_file`.

    Raises:
        UserError: a file holds no trained method, or nothing is trained yet.
    """
    members = [*trained_members(session), *(member_of_file(path, alpha) for path in files)]
    if not members:
        raise UserError(
            f"Nothing is trained yet in {session.output}: run a notebook or `peft-scratch run` first, or "
            "give a weight file."
        )
    return Panel(session, members)


def opinions_on(session: Session, text: str) -> list[Opinion]:
    """What the base and every trained run say about `text`; remarks on the text are printed.

    The panel is kept, and built again only after another run has been trained.

    Raises:
        UserError: nothing is trained yet.
    """
    runs = trained_results(session).values()
    trained = tuple(sorted(f"{run.id} {run.fingerprint}" for run in runs))
    if session.panel is None or session.panel[0] != trained:
        session.panel = trained, panel_of(session)
    panel = session.panel[1]
    for remark in panel.remarks(text):
        print(f"note: {remark}")
    (opinions,) = panel.ask([text])
    return opinions
