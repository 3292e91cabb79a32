"""Ask the base and the trained models for their opinion of any text, over one base in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from peft_scratch.assignment import LABEL_WORDS, MAX_LENGTH, RUNS
from peft_scratch.data.batches import pad
from peft_scratch.data.text import clean
from peft_scratch.data.tokens import label_ids, tokenise
from peft_scratch.errors import UserError
from peft_scratch.exactness.convert import recognise
from peft_scratch.libraries import method_of
from peft_scratch.methods import FullFineTuning, Method, Tuned, apply, base_of
from peft_scratch.methods.checkpoint import copy_delta, read_delta
from peft_scratch.results import RunResult

if TYPE_CHECKING:
    from peft_scratch.experiments.session import Session

BASE = "Base, not tuned"
NEITHER = "neither"

#: Into how many parts a long text is cut for occlusion: each costs one more prediction.
OCCLUDED_PARTS = 48

#: If a smaller share of a text's letters is Latin, a remark says that it is not English.
LATIN_SHARE = 0.5


@dataclass(frozen=True)
class Opinion:
    """What one model says about one text.

    Attributes:
        verdict: a label word, or `neither`.
        probabilities: of each label word with the end token after it, among all outputs there are.
        generated: what the model writes if it is neither word; `None` otherwise.
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
    """A trained method to ask: its title, the method, and its trained tensors by name."""

    title: str
    method: Method
    entries: dict[str, Tensor] = field(repr=False)
    source: str = ""


def remarks(text: str, tokens: int, room: int) -> list[str]:
    """What a reader should know about `text` before the opinions: it is empty, cut, or not English.

    Args:
        tokens: how many the text has, the end token included.
        room: how many the model reads.
    """
    found = []
    if not text.strip():
        found.append("The text is empty: the opinions below are about nothing.")
    if tokens > room:
        found.append(f"The text has {tokens:,} tokens and the models read {room:,}: the rest is cut off.")
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(letter.isascii() or "\u00c0" <= letter <= "\u024f" for letter in letters)
    if letters and latin < LATIN_SHARE * len(letters):
        found.append("Most letters are not Latin: the models were trained on English reviews only.")
    return found


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
        self._rows: dict[str, int] = {BASE: 0}
        for member in members:
            if isinstance(member.method, FullFineTuning):
                tuned = apply(member.method, session.base())
            else:
                # Another tree of modules over the same frozen tensors: no weight is copied.
                tuned = apply(member.method, base_of(Tuned(base, FullFineTuning(), [])))
            copy_delta(tuned.model, member.entries, member.source or member.title, tuned.method.declares)
            session.recipe.cast_frozen(tuned.model)
            self.models[member.title] = tuned.model.to(device).eval()
            self._rows[member.title] = getattr(member.method, "virtual_tokens", 0)

    def ask(self, texts: Sequence[str], batch_size: int = 64) -> Iterator[list[Opinion]]:
        """The opinions of every model on each of `texts`, in their order.

        Args:
            batch_size: how many texts go through a model at once.
        """
        cleaned = [clean(text) for text in texts]
        for start in range(0, len(cleaned), batch_size):
            part = cleaned[start : start + batch_size]
            with self._lock:
                columns = [self._opinions(title, part) for title in self.models]
            yield from map(list, zip(*columns, strict=True))

    def occlusion(self, title: str, text: str) -> list[tuple[str, float]]:
        """How much each word of `text` matters to the opinion of the model called `title`, by leaving it out.

        Occlusion (Zeiler and Fergus 2014, section 4.2, who hide patches of a picture): the model predicts the
        text without the word. The number is how much its lean towards `positive` falls, so a positive number
        marks a word that speaks for `positive`. Words that matter only together are missed.

        Args:
            text: of its words, those that the model reads are left out in turn, in at most
                `OCCLUDED_PARTS` parts of equal size.

        Returns:
            Each part's words and its number, from -1 to 1.
        """
        words = clean(text).split()[: self.session.profile.max_tokens]
        size = -(-len(words) // OCCLUDED_PARTS) or 1
        parts = [words[start : start + size] for start in range(0, len(words), size)]
        if not parts:
            return []
        without = [" ".join(words[: i * size] + words[(i + 1) * size :]) for i in range(len(parts))]
        with self._lock:
            whole, *others = self._opinions(title, [" ".join(words), *without])
        return [(" ".join(part), whole.lean - other.lean) for part, other in zip(parts, others, strict=True)]

    def remarks(self, text: str) -> list[str]:
        """See `remarks`, for the model that reads least."""
        room = self.session.profile.max_tokens - max(self._rows.values())
        tokens = len(self.session.tokenizer(clean(text))["input_ids"])
        return remarks(text, tokens, room)

    def _opinions(self, title: str, texts: list[str]) -> list[Opinion]:
        session, model, tokenizer = self.session, self.models[title], self.session.tokenizer
        room = session.profile.max_tokens - self._rows[title]
        rows = tokenise(texts, tokenizer, room)
        device = session.accelerator.device
        inputs = {
            "input_ids": pad(rows, tokenizer.pad_token_id).to(device),
            "attention_mask": pad([[1] * len(row) for row in rows], 0).to(device),
        }
        with torch.inference_mode(), session.recipe.forward_context(model, device):
            probabilities, greedy = label_probabilities(model, inputs, label_ids(tokenizer))
            generated = _generated(model, inputs, tokenizer, greedy < 0)
        opinions = []
        for row in range(len(texts)):
            shares = dict(zip(LABEL_WORDS, probabilities[row].tolist(), strict=True))
            written = generated.get(row)
            if greedy[row] >= 0:
                opinions.append(Opinion(title, LABEL_WORDS[int(greedy[row])], shares))
            elif written in LABEL_WORDS:
                opinions.append(Opinion(title, written, shares))
            else:
                opinions.append(Opinion(title, NEITHER, shares, written))
        return opinions


def label_probabilities(
    model: nn.Module, inputs: dict[str, Tensor], targets: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """How probable each label word is as the whole output, and which one greedy decoding writes.

    Args:
        inputs: `input_ids` and `attention_mask`, each `(B, T)`.
        targets: token ids of each label word, end token included.

    Returns:
        `(B, 2)` probabilities, and `(B,)` positions in `targets`, or -1 where greedy decoding writes
        neither.
    """
    size = len(inputs["input_ids"])
    encoded, columns = None, []
    greedy = torch.full((size,), -1, device=inputs["input_ids"].device)
    for position, target in enumerate(targets):
        labels = torch.tensor([target] * size, device=greedy.device)  # (B, T')
        if encoded is None:
            out = model(**inputs, labels=labels, use_cache=False)
            encoded = out.encoder_last_hidden_state  # (B, T, D), or longer by a prompt's rows
        else:
            out = model(
                encoder_outputs=BaseModelOutput(encoded),
                attention_mask=inputs["attention_mask"],
                labels=labels,
                use_cache=False,
            )
        logits = out.logits.float()  # (B, T', V)
        of_tokens = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]  # (B, T')
        columns.append(of_tokens.sum(1).exp())
        greedy[(logits.argmax(-1) == labels).all(1)] = position
    return torch.stack(columns, 1), greedy


def _generated(
    model: nn.Module, inputs: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, rows: Tensor
) -> dict[int, str]:
    """What `model` writes for the inputs where `rows` is true, by position."""
    if not rows.any():
        return {}
    some = {name: tensor[rows] for name, tensor in inputs.items()}
    output = model.generate(**some, max_length=MAX_LENGTH, do_sample=False, num_beams=1)
    written = tokenizer.batch_decode(output, skip_special_tokens=True)
    positions = rows.nonzero()[:, 0].tolist()
    return {position: text.strip() for position, text in zip(positions, written, strict=True)}


def trained_members(session: Session) -> list[Member]:
    """The runs of the session's output folder that have finished, in the order of the notebooks.

    Raises:
        UserError: a weight file is damaged.
    """
    found = session.results()
    members = []
    for run in RUNS.values():
        result = found.get(run.id)
        if not isinstance(result, RunResult):
            continue
        path = session.run_folder(run.id, str(result.fingerprint)) / "best.pt"
        if not path.is_file() and run.weight_file:
            path = session.output / "weights" / run.weight_file
        if path.is_file():
            members.append(Member(run.title, method_of(run), read_delta(path), str(path)))
    return members


def member_of_file(path: Path) -> Member:
    """A trained method from elsewhere: a `.pt` file of this kit or of another student, or a library's folder.

    Raises:
        UserError: it is none of these.
    """
    method, entries = recognise(path)
    return Member(f"{method!r} from {path.name}", method, entries, str(path))


def panel_of(session: Session, files: Sequence[Path] = ()) -> Panel:
    """The session's finished runs and the trained parts in `files`, ready to be asked.

    Raises:
        UserError: a file is no trained part, or nothing is trained yet.
    """
    members = [*trained_members(session), *map(member_of_file, files)]
    if not members:
        raise UserError(
            f"Nothing is trained yet in {session.output}: run a notebook or `peft-scratch run` first, or "
            "give a weight file."
        )
    return Panel(session, members)


def opinions_on(session: Session, text: str) -> list[Opinion]:
    """What the base and every trained run say about `text`; remarks on the text are printed.

    The panel is built once, and again after another run has been trained.

    Raises:
        UserError: nothing is trained yet.
    """
    runs = [result for result in session.results().values() if isinstance(result, RunResult)]
    trained = tuple(sorted(f"{run.id} {run.fingerprint}" for run in runs))
    if session.panel is None or session.panel[0] != trained:
        session.panel = trained, panel_of(session)
    panel = session.panel[1]
    for remark in panel.remarks(text):
        print(f"note: {remark}")
    (opinions,) = panel.ask([text])
    return opinions
