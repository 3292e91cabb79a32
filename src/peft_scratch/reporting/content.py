"""What the report says: every sentence chosen by the data, every number set as text.

A number is said if it is in a JSON, or follows from the runs' configuration; a run that is missing is
said to be missing. `report.typ` lays this out and knows nothing of the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.reporting import figures
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.tables import Result, numbers, parameters
from peft_scratch.reporting.words import Language

Block = dict[str, Any]

# What the assignment asks for, in the words of the results.
WANTED_BASE, WANTED_REVIEWS = "google-t5/t5-small", "stanfordnlp/imdb"

# The same method with the same size, from scratch and through its library.
TWINS = (
    ("prompt_scratch_n10", "prompt_opendelta_n10"),
    ("adapter_scratch_b8", "adapter_adapterhub_b8"),
    ("lora_scratch_r8", "lora_peft_r8"),
)


@dataclass(frozen=True)
class Student:
    """Who hands in; what is empty is asked for in the report itself."""

    name: str = ""
    number: str = ""


def content(inputs: Inputs, student: Student, language: Language, drawings: dict[str, str]) -> Block:
    """The report as the template lays it out: a head and blocks, each number set as text.

    Args:
        drawings: the figures as SVG, by name, from `figures.draw`.
    """
    say = language.say
    author = say(
        "by",
        name=student.name or f"[{say('no_name')}]",
        number=language.ltr(student.number) or f"[{say('no_number')}]",
    )
    writer = _Writer(inputs, language, drawings)
    return {
        "language": language.code,
        "direction": language.direction,
        "title": say("title"),
        "author": author,
        "anonymous": not (student.name and student.number),
        "page": say("page"),
        "warnings": writer.warnings(),
        "facts": writer.facts(),
        "facts_title": say("what_ran"),
        "blocks": [
            *writer.numbers(),
            *writer.curves(),
            *writer.parameters(),
            *writer.claims(),
            *writer.clock(),
            *writer.twins(),
            *writer.confounds(),
        ],
    }


class _Writer:
    """Chooses the sentences of one language by the data, section by section."""

    def __init__(self, inputs: Inputs, language: Language, drawings: dict[str, str]) -> None:
        self.inputs, self.language, self.drawings = inputs, language, drawings
        self.runs, self.results = inputs.runs, inputs.results
        self.say = language.say

    # Page one

    def warnings(self) -> list[Block]:
        """What a reader must know before the first number: rehearsal, missing runs, mixed settings."""
        warnings = []
        others = [run for run in self.runs.values() if not _as_the_assignment_asks(run)]
        if others or not self.runs:
            text = self.say(
                "rehearsal_text",
                wanted_base=self.language.ltr(WANTED_BASE),
                wanted_reviews=self.language.ltr(WANTED_REVIEWS),
                profile=self._distinct(lambda run: run["profile"], others),
                base=self._distinct(lambda run: run["base_model"]["name"], others),
                reviews=self._distinct(lambda run: run["config"]["reviews"], others),
            )
            warnings.append({"title": self.say("rehearsal"), "text": text})
        if missing := [self.language.run(name) for name in TEN | BASELINES if name not in self.results]:
            warnings.append(
                {"title": "", "text": self.say("incomplete", runs=self.language.join_longer(missing))}
            )
        differ = [
            self.say(word)
            for word, of in _CONDITIONS.items()
            if len({json.dumps(of(run)) for run in self.runs.values()}) > 1
        ]
        if differ:
            warnings.append({"title": "", "text": self.say("mixed", what=self.language.join(differ))})
        return warnings

    def facts(self) -> list[list[str]]:
        """Name and value of what the runs were run with."""
        if not self.runs:
            return []
        number, ltr = self.language.number, self.language.ltr
        distinct = self._distinct

        def base(run: Result) -> str:
            of = run["base_model"]
            return self.say(
                "base_value",
                name=ltr(of["name"]),
                parameters=number(of["parameters"]),
                encoder=number(of["num_layers"]),
                decoder=number(of["num_decoder_layers"]),
                width=number(of["d_model"]),
                sha=ltr(f"SHA-256 {run['config']['base_sha256'][:8]}…"),
            )

        def reviews(run: Result) -> str:
            config = run["config"]
            counts = {
                part: number(count) if (count := figures.reviews(run, part)) else self.say("all")
                for part in ("train", "test")
            }
            return self.say(
                "reviews_value", name=ltr(config["reviews"]), tokens=number(config["max_tokens"]), **counts
            )

        def training(run: Result) -> str:
            config = run["config"]
            return self.say(
                "training_value", epochs=number(config["epochs"]), batch=number(config["batch_size"])
            )

        def device(run: Result) -> str:
            where = run["environment"]
            return ltr(f"{where['device']}, {where['device_name']}, {where['precision']}")

        def versions(run: Result) -> str:
            where = run["environment"]
            named = {"python": where["python"], **where["versions"]}
            return ltr(", ".join(f"{name} {version}" for name, version in named.items() if version))

        totals = {
            kind: sum(run["seconds"][kind] for run in self.runs.values())
            for kind in ("training", "evaluation")
        }
        facts = [
            ("profile", distinct(lambda run: run["profile"])),
            ("base", distinct(base, raw=True)),
            ("reviews", distinct(reviews, raw=True)),
            ("training", distinct(training, raw=True)),
            ("seed", distinct(lambda run: str(run["config"]["seed"]))),
            ("device", distinct(device, raw=True)),
            (
                "time",
                self.say(
                    "time_value",
                    **{kind: self.language.seconds(total) for kind, total in totals.items()},
                    runs=number(len(self.runs)),
                ),
            ),
            ("versions", distinct(versions, raw=True)),
        ]
        if made := self.inputs.pretraining:
            value = self.say(
                "base_made_value", tokens=number(made["tokens"]), minutes=number(made["seconds"] / 60)
            )
            facts.insert(2, ("base_made", value))
        return [[self.say(word), value] for word, value in facts]

    def numbers(self) -> list[Block]:
        """The ten numbers, what they are held against, and what can be said about them."""
        table = numbers(self.results)
        decimal = self._decimal
        rows = []
        for name in table.index:
            row = table.loc[name]
            label = self.language.run(name)
            if pd.isna(row["best"]):
                rows.append([label, _missing(self.say("missing"), span=6)])
                continue
            config = self.results[name].get("config")
            rows.append(
                [
                    label,
                    self.language.rate(config["learning_rate"]) if config else "",
                    _strong(self._at_epoch(row["best"], row["best_epoch"])),
                    decimal(row["last"]),
                    self._at_epoch(row["validation_chosen"], row["validation_epoch"]),
                    decimal(row["malformed"]),
                    "" if pd.isna(row["seconds"]) else self.language.number(row["seconds"]),
                ]
            )
        head = ["run", "rate", "best", "last", "chosen", "malformed", "seconds"]
        return [
            self._heading("numbers"),
            self._table(head, rows, rules=[len(TEN)]),
            self._note("numbers_note"),
            *self._figure("accuracy"),
            *self._findings(self._about_numbers()),
        ]

    def _about_numbers(self) -> Iterable[str]:
        best = {name: run["accuracy"]["best"] for name, run in self.runs.items()}
        if not best:
            return
        number, percent = self.language.number, self.language.percent
        first = max(best, key=best.__getitem__)
        yield self.say("ranking", accuracy=percent(best[first]), run=self.language.run(first))
        if "bag_of_words" in self.results:
            bar = self.results["bag_of_words"]["accuracy"]["best"]
            above = sum(share > bar for share in best.values())
            yield self.say(
                "bag_some" if above else "bag_none",
                above=number(above),
                runs=number(len(best)),
                accuracy=percent(bar),
            )
        zero_shot = [
            self.results[name]["accuracy"]["best"]
            for name in ("zero_shot", "zero_shot_prefix")
            if name in self.results
        ]
        if zero_shot:
            bar = max(zero_shot)
            above = sum(share > bar for share in best.values())
            yield self.say(
                "zero_shot_some", accuracy=percent(bar), above=number(above), runs=number(len(best))
            )
        errors = {name: _error(self.runs[name], share) for name, share in best.items()}
        if len(best) > 1 and None not in errors.values():
            close = sum(
                best[first] - best[name] <= 2 * math.hypot(errors[first], errors[name])
                for name in best
                if name != first
            )
            yield self.say(
                "noise",
                error=number(100 * max(errors.values()), 1),
                reviews=self._distinct(
                    lambda run: self.language.number(figures.reviews(run, "test")), raw=True
                ),
                close=number(close),
                others=number(len(best) - 1),
            )
        accuracies = [run["accuracy"] for run in self.runs.values()]
        yield self.say(
            "selection",
            runs=number(len(best)),
            last=self.language.points(_mean(a["best"] - a["last"] for a in accuracies)),
            chosen=self.language.points(_mean(a["best"] - a["validation_chosen"] for a in accuracies)),
        )

    def curves(self) -> list[Block]:
        if not self.runs:
            return []
        number = self.language.number
        rising = sum(run["accuracy"]["best_epoch"] == len(run["epochs"]) for run in self.runs.values())
        drops = {name: run["accuracy"]["best"] - run["accuracy"]["last"] for name, run in self.runs.items()}
        worst = max(drops, key=drops.__getitem__)
        findings = [
            self.say(
                "rising_some" if rising else "rising_none", runs=number(rising), all=number(len(self.runs))
            )
        ]
        if drops[worst] > 0:
            findings.append(
                self.say("largest_drop", run=self.language.run(worst), points=number(100 * drops[worst], 1))
            )
        return [self._heading("curves"), *self._figure("curves"), *self._findings(findings)]

    def parameters(self) -> list[Block]:
        """The derivation of every count, and whether it is what was counted."""
        table = parameters(self.results)
        number = self.language.number
        rows, right = [], []
        for name in table.index:
            row = table.loc[name]
            if pd.isna(row["added"]):
                rows.append([self.language.run(name), _missing(self.say("missing"), span=4)])
                continue
            right.append(bool(row["difference"] == 0))
            rows.append(
                [
                    self.language.run(name),
                    _maths(f'{row["with_numbers"]} = "{row["added"]:,}"' if row["added"] else "0"),
                    number(row["trainable"]),
                    number(row["whole"]),
                    _check(right[-1]),
                ]
            )
        formulas = {run["config"]["kind"]: table.loc[name, "formula"] for name, run in self.runs.items()}
        items = [
            {"text": self.say(f"parameters_{kind}"), "maths": "" if kind == "full" else formula}
            for kind, formula in formulas.items()
        ]
        base = self._distinct(lambda run: number(run["base_model"]["parameters"]), raw=True)
        findings = []
        if right:
            key = "counts_yes" if all(right) else "counts_no"
            findings = [self.say(key, runs=number(len(right)), wrong=number(right.count(False)))]
        head = ["run", "with_numbers", "trainable", "whole", "equal"]
        return [
            self._heading("parameters"),
            {"kind": "text", "text": self.say("parameters_text", base=base)},
            {"kind": "list", "items": items},
            self._table(head, rows),
            *self._findings(findings),
        ]

    # The three claims

    def claims(self) -> list[Block]:
        return [self._heading("claims"), *self._claim_memory(), *self._claim_disk(), *self._claim_base()]

    def _claim_memory(self) -> list[Block]:
        measured = {name: run["memory"] for name, run in self.runs.items() if run.get("memory")}
        blocks = [self._subheading("claim_memory")]
        if not measured:
            return [*blocks, self._not_measured()]
        return [
            *blocks,
            *self._findings(self._about_memory(measured)),
            *self._figure("memory"),
            self._memory_table(measured),
        ]

    def _about_memory(self, measured: dict[str, Result]) -> Iterable[str]:
        language, number, name_of = self.language, self.language.number, self.language.run
        held = {
            name: of["optimizer"] / self.runs[name]["parameters"]["trainable"]
            for name, of in measured.items()
        }
        low, high = _ends(held)
        alike = held[high] <= 1.1 * held[low]
        several = len({self.runs[name]["config"]["kind"] for name in measured}) > 1
        yield self.say(
            ("per_parameter_yes" if several else "per_parameter_one") if alike else "per_parameter_no",
            bytes=self.language.range(number(held[low], 1), number(held[high], 1)),
            low=number(held[low], 1),
            high=number(held[high], 1),
            low_run=name_of(low),
            high_run=name_of(high),
        )
        if "full" not in measured or len(measured) < 2:
            return
        full = measured["full"]
        others = {name: of for name, of in measured.items() if name != "full"}
        shares = {name: of["optimizer"] / full["optimizer"] for name, of in others.items()}
        low, high = _ends(shares)
        yield self.say(
            "optimizer_share" if len(shares) > 1 else "optimizer_one",
            full=language.bytes(full["optimizer"]),
            low=language.share(shares[low]),
            high=language.share(shares[high]),
            low_run=name_of(low),
            high_run=name_of(high),
        )
        peaks = {name: of["peak"] for name, of in others.items() if of.get("peak") is not None}
        if peaks and full.get("peak") is not None:
            low, _ = _ends(peaks)
            below = sum(peak < full["peak"] for peak in peaks.values())
            yield self.say(
                "peak_lower" if below else "peak_none",
                full=language.bytes(full["peak"]),
                below=number(below),
                runs=number(len(peaks)),
                low=language.bytes(peaks[low]),
                low_run=name_of(low),
                ratio=language.percent(peaks[low] / full["peak"], 0),
            )
            kinds = dict.fromkeys(of["peak_kind"] for of in measured.values() if of.get("peak_kind"))
            if kinds:
                yield self.say(
                    "peak_kinds", kinds=language.join([self.say(f"peak_{kind}") for kind in kinds])
                )
        shares = {
            name: of["activations"] / sum(of[part] for part in figures.PARTS) for name, of in measured.items()
        }
        low, high = _ends(shares)
        yield self.say(
            "activations",
            shares=language.range(language.percent(shares[low], 0), language.percent(shares[high], 0)),
        )

    def _memory_table(self, measured: dict[str, Result]) -> Block:
        rows = []
        for name in TEN:
            of = measured.get(name)
            if of is None:
                rows.append([self.language.run(name), _missing(self.say("not_measured"), span=5)])
                continue
            sizes = [self.language.bytes(of[part]) for part in figures.PARTS]
            peak = self.say("not_measured") if of.get("peak") is None else self.language.bytes(of["peak"])
            rows.append([self.language.run(name), *sizes, peak])
        return self._table(["run", *(f"memory_{part}" for part in figures.PARTS), "peak"], rows)

    def _claim_disk(self) -> list[Block]:
        measured = {name: run["disk"] for name, run in self.runs.items() if run.get("disk")}
        blocks = [self._subheading("claim_disk")]
        if not measured:
            return [*blocks, self._not_measured()]
        language = self.language
        small = {name: of["delta"] for name, of in measured.items() if name != "full"}
        findings = []
        if small:
            base, together = next(iter(measured.values()))["base"], sum(small.values())
            findings.append(
                self.say(
                    "disk_together",
                    runs=language.number(len(small)),
                    together=language.bytes(together),
                    share=language.share(together / base),
                    base=language.bytes(base),
                    with_base=language.bytes(base + together),
                    copies=language.bytes(len(small) * base),
                )
            )
        if "full" in measured:
            findings.append(self.say("disk_full", size=language.bytes(measured["full"]["delta"])))
        off = {
            name: run["knowledge"]
            for name, run in self.runs.items()
            if (run.get("knowledge") or {}).get("off") is not None
        }
        if off:
            distances = [abs(of["off"] - of["base"]) for of in off.values()]
            wrong = sum(distance != 0 for distance in distances)
            findings.append(
                self.say(
                    "serves_no" if wrong else "serves_yes",
                    runs=language.number(len(off)),
                    wrong=language.number(wrong),
                    most=language.ltr(f"{max(distances):.1e}"),
                )
            )
        return [*blocks, *self._findings(findings)]

    def _claim_base(self) -> list[Block]:
        blocks = [self._subheading("claim_base")]
        knows = {name: run["knowledge"] for name, run in self.runs.items() if run.get("knowledge")}
        gaps = {
            name: run["training_accuracy"]["accuracy"] - run["accuracy"]["best"]
            for name, run in self.runs.items()
            if run.get("training_accuracy")
        }
        findings = [*self._about_knowledge(knows), *self._about_gaps(gaps)]
        blocks += self._findings(findings) if findings else [self._not_measured()]
        blocks += self._figure("knowledge")
        if knows or gaps or any(run.get("disk") for run in self.runs.values()):
            blocks.append(self._disk_and_base_table(knows, gaps))
        return [*blocks, *self._findings(self._about_small_data()), *self._figure("small_data")]

    def _about_knowledge(self, knows: dict[str, Result]) -> Iterable[str]:
        if not knows:
            return
        language = self.language
        tuned = {name: of["tuned"] for name, of in knows.items()}
        low, high = _ends(tuned)
        first = next(iter(knows.values()))
        yield self.say(
            "knows",
            reviews=language.number(first["reviews"]),
            base=language.number(first["base"], 3),
            low=language.number(tuned[low], 3),
            high=language.number(tuned[high], 3),
            low_run=language.run(low),
            high_run=language.run(high),
        )
        if "full" in knows and len(knows) > 1:
            moves = {name: of["tuned"] - of["base"] for name, of in knows.items()}
            most = max(moves, key=lambda name: abs(moves[name]))
            yield self.say(
                "knows_full_most" if most == "full" else "knows_full_not_most",
                change=language.number(moves["full"], 3),
                run=language.run(most),
                most=language.number(moves[most], 3),
            )

    def _about_gaps(self, gaps: dict[str, float]) -> Iterable[str]:
        if not gaps:
            return
        language = self.language
        low, high = _ends(gaps)
        yield self.say(
            "gap",
            low=language.points(gaps[low]),
            high=language.points(gaps[high]),
            low_run=language.run(low),
            high_run=language.run(high),
        )
        yield from self._about_the_gap_of_full(gaps)

    def _about_the_gap_of_full(self, gaps: dict[str, float]) -> Iterable[str]:
        if "full" in gaps and len(gaps) > 1:
            widest = _ends(gaps)[1] == "full"
            yield self.say(
                "gap_full_most" if widest else "gap_full_not_most", full=self.language.points(gaps["full"])
            )

    def _disk_and_base_table(self, knows: dict[str, Result], gaps: dict[str, float]) -> Block:
        language = self.language
        rows = []
        for name in TEN:
            run = self.runs.get(name)
            if run is None:
                rows.append([language.run(name), _missing(self.say("missing"), span=5)])
                continue
            absent = _missing("—")
            disk, of = run.get("disk"), knows.get(name)
            rows.append(
                [
                    language.run(name),
                    language.bytes(disk["delta"]) if disk else absent,
                    language.share(disk["delta"] / disk["base"]) if disk else absent,
                    language.number(of["tuned"], 3) if of else absent,
                    language.number(of["off"], 3) if of and of.get("off") is not None else absent,
                    language.points(gaps[name]) if name in gaps else absent,
                ]
            )
        return self._table(["run", "delta", "share_of_base", "tuned_loss", "off_loss", "gap_points"], rows)

    def _about_small_data(self) -> Iterable[str]:
        small = {name: self.inputs.small_data[name] for name in TEN if name in self.inputs.small_data}
        if not small:
            yield self.say("small_missing")
            return
        language = self.language
        gaps = {
            name: _mean(
                run["epochs"][-1]["training_accuracy"] - run["epochs"][-1]["test_accuracy"]
                for run in of["runs"]
            )
            for name, of in small.items()
        }
        low, high = _ends(gaps)

        def distinct(of: Callable[[Result], int]) -> str:
            return language.join([language.number(value) for value in dict.fromkeys(map(of, small.values()))])

        yield self.say(
            "small",
            reviews=distinct(lambda run: run["reviews"]),
            epochs=distinct(lambda run: len(run["runs"][0]["epochs"])),
            seeds=distinct(lambda run: len(run["runs"])),
            low=language.points(gaps[low]),
            high=language.points(gaps[high]),
            low_run=language.run(low),
            high_run=language.run(high),
        )
        yield from self._about_the_gap_of_full(gaps)

    # The rest

    def clock(self) -> list[Block]:
        if not self.runs:
            return []
        language = self.language
        spent = {name: run["seconds"] for name, run in self.runs.items()}
        shares = {name: of["evaluation"] / (of["training"] + of["evaluation"]) for name, of in spent.items()}
        low, high = _ends(shares)
        total = sum(of["training"] + of["evaluation"] for of in spent.values())
        findings = [
            self.say(
                "clock_text",
                share=language.percent(sum(of["evaluation"] for of in spent.values()) / total, 0),
                low=language.percent(shares[low], 0),
                high=language.percent(shares[high], 0),
                low_run=language.run(low),
                high_run=language.run(high),
            )
        ]
        others = {name: of["training"] for name, of in spent.items() if name != "full"}
        if "full" in spent and others:
            full = spent["full"]["training"]
            fastest, _ = _ends(others)
            faster = sum(seconds < full for seconds in others.values())
            findings.append(
                self.say(
                    "faster_yes" if faster else "faster_no",
                    faster=language.number(faster),
                    runs=language.number(len(others)),
                    run=language.run(fastest),
                    share=language.percent(others[fastest] / full, 0),
                )
            )
        return [self._heading("clock"), *self._figure("time"), *self._findings(findings)]

    def twins(self) -> list[Block]:
        """From scratch against the library: with the same weights, and trained apart."""
        language, number = self.language, self.language.number
        blocks = [self._heading("twins")]
        if self.inputs.exactness is None:
            blocks.append({"kind": "text", "text": self.say("exact_missing")})
        else:
            blocks += self._exactness(self.inputs.exactness)
        rows, inside = [], []
        for scratch, library in TWINS:
            title = language.join(
                [language.method_of(scratch), language.size_of(scratch), language.library_of(library)]
            )
            if scratch not in self.runs or library not in self.runs:
                rows.append([title, _missing(self.say("missing"), span=5)])
                continue
            ours, theirs = self.runs[scratch], self.runs[library]
            best = [run["accuracy"]["best"] for run in (ours, theirs)]
            errors = [_error(run, share) for run, share in zip((ours, theirs), best, strict=True)]
            two = None if None in errors else 2 * math.hypot(*errors)
            if two is not None:
                inside.append(abs(best[0] - best[1]) <= two)
            rates = [language.rate(run["config"]["learning_rate"]) for run in (ours, theirs)]
            rows.append(
                [
                    title,
                    *(number(100 * share, 1) for share in best),
                    language.points(best[0] - best[1]),
                    "" if two is None else number(100 * two, 1),
                    language.ltr(" / ").join(dict.fromkeys(rates)),
                ]
            )
        blocks.append(self._table(["twin", "scratch", "library", "difference", "two_errors", "rates"], rows))
        if inside:
            text = self.say("twins_text", inside=number(sum(inside)), pairs=number(len(inside)))
            blocks += self._findings([text])
        return blocks

    def _exactness(self, exactness: Result) -> list[Block]:
        number = self.language.number
        largest = ("logits", "loss", "gradients", "weights_after_steps")
        rows = []
        for base in exactness["bases"]:
            most = max(max(row[part] for part in largest) for row in base["rows"])
            name = self.language.words.get(f"base_{base['name']}", base["title"])
            rows.append(
                [
                    name,
                    number(len(base["rows"])),
                    number(sum(max(row[part] for part in largest) == 0 for row in base["rows"])),
                    self.language.ltr(f"{most:.1e}") if most else "0",
                    number(sum(row["control_detected"] for row in base["rows"])),
                ]
            )
        every = [row for base in exactness["bases"] for row in base["rows"]]
        said = self.say(
            "exact",
            equal=number(sum(max(row[part] for part in largest) == 0 for row in every)),
            rows=number(len(every)),
            within=number(sum(row["equal"] for row in every)),
            controls=number(sum(row["control_detected"] for row in every)),
        )
        places = self.say("exact_places", places=number(len(exactness["differences"])))
        return [
            *self._findings([said]),
            self._table(["on_base", "comparisons", "to_the_bit", "largest", "controls"], rows),
            {"kind": "text", "text": places},
        ]

    def confounds(self) -> list[Block]:
        """Where the contract's constants make two numbers differ in more than they seem to."""
        traps = {
            "trap_alpha": (self._alpha, ("lora_peft_r1", "lora_peft_r8")),
            "trap_rate": (self._rate, ("adapter_scratch_b8", "adapter_adapterhub_b8")),
            "trap_start": (self._start, ("lora_scratch_r8",)),
            "trap_prompt": (self._prompt, ("prompt_opendelta_n1",)),
        }
        items = [
            judge(*(self.runs[name] for name in names))
            if all(name in self.runs for name in names)
            else self.say("confound_missing", trap=self.say(trap))
            for trap, (judge, names) in traps.items()
        ]
        seeds = {run["config"]["seed"] for run in self.runs.values()}
        if len(seeds) == 1:
            items.append(self.say("one_seed", seed=str(seeds.pop())))
        return [
            self._heading("confounds"),
            {"kind": "list", "items": [{"text": item, "maths": ""} for item in items]},
        ]

    def _alpha(self, low: Result, high: Result) -> str:
        ranks = [run["config"]["hyperparameters"]["rank"] for run in (low, high)]
        alphas = [run["config"]["hyperparameters"]["alpha"] for run in (low, high)]
        scales = [alpha / rank for alpha, rank in zip(alphas, ranks, strict=True)]
        same = scales[0] == scales[1]
        return self.say(
            "alpha_yes" if same else "alpha_no",
            low=ranks[0],
            high=ranks[1],
            alpha=self.language.join(dict.fromkeys(f"{alpha:g}" for alpha in alphas)),
            low_scale=self.language.ltr(f"{alphas[0]:g}/{ranks[0]} = {scales[0]:g}"),
            high_scale=self.language.ltr(f"{alphas[1]:g}/{ranks[1]} = {scales[1]:g}"),
        )

    def _rate(self, scratch: Result, library: Result) -> str:
        ours, theirs = (run["config"]["learning_rate"] for run in (scratch, library))
        return self.say(
            "rate_yes" if ours == theirs else "rate_no",
            scratch=self.language.rate(ours),
            library=self.language.rate(theirs),
            factor=self.language.ltr(f"{ours / theirs:.3g}"),
            size=scratch["config"]["hyperparameters"]["bottleneck"],
        )

    def _start(self, run: Result) -> str:
        rank, width = run["config"]["hyperparameters"]["rank"], run["base_model"]["d_model"]
        # sqrt(6 / fan-in), the fan-in read as r, against loralib's 1 / sqrt(d).
        return self.say(
            "start",
            ratio=self.language.number(math.sqrt(6 * width / rank), 1),
            formula=self.language.ltr(f"√(6·d/r) = √(6·{width}/{rank})"),
        )

    def _prompt(self, run: Result) -> str:
        accuracy = run["accuracy"]
        fall = accuracy["best"] - accuracy["last"]
        errors = [_error(run, accuracy[epoch]) for epoch in ("best", "last")]
        clear = None not in errors and fall > 2 * math.hypot(*errors)
        return self.say(
            "prompt_stays" if fall <= 0 else "prompt_falls" if clear else "prompt_falls_little",
            rate=self.language.rate(run["config"]["learning_rate"]),
            epoch=accuracy["best_epoch"],
            best=self.language.percent(accuracy["best"]),
            last=self.language.percent(accuracy["last"]),
        )

    # Blocks and cells

    def _heading(self, word: str) -> Block:
        return {"kind": "heading", "text": self.say(word)}

    def _subheading(self, word: str) -> Block:
        return {"kind": "subheading", "text": self.say(word)}

    def _note(self, word: str) -> Block:
        return {"kind": "note", "text": self.say(word)}

    def _not_measured(self) -> Block:
        return {"kind": "findings", "items": [_capital(self.say("not_measured")) + "."]}

    def _findings(self, sentences: Iterable[str]) -> list[Block]:
        said = [_capital(sentence) for sentence in sentences]
        return [{"kind": "findings", "items": said}] if said else []

    def _figure(self, name: str) -> list[Block]:
        if name not in self.drawings:
            return []
        return [{"kind": "figure", "svg": self.drawings[name], "caption": self.say(f"figure_{name}")}]

    def _table(
        self, head: list[str], rows: list[list[Any]], text_columns: int = 1, rules: Iterable[int] = ()
    ) -> Block:
        return {
            "kind": "table",
            "head": [self.say(word) for word in head],
            "rows": rows,
            "text_columns": text_columns,
            "rules": list(rules),
        }

    def _decimal(self, value: float) -> str:
        return "" if pd.isna(value) else self.language.number(value, 1)

    def _at_epoch(self, value: float, epoch: Any) -> str:
        if pd.isna(epoch):
            return self._decimal(value)
        return self.say("at_epoch", value=self._decimal(value), epoch=self.language.number(epoch))

    def _distinct(
        self, of: Callable[[Result], str], runs: Iterable[Result] | None = None, raw: bool = False
    ) -> str:
        """What `of` says of the runs, each different answer once."""
        answers = dict.fromkeys(of(run) for run in (self.runs.values() if runs is None else runs))
        return self.language.join_longer(answer if raw else self.language.ltr(answer) for answer in answers)


# What must be the same for two rows to be comparable, by the word for it.
_CONDITIONS: dict[str, Callable[[Result], Any]] = {
    "profile": lambda run: run["profile"],
    "base": lambda run: (run["base_model"], run["config"]["base_sha256"]),
    "reviews": lambda run: [
        run["config"][key] for key in ("reviews", "train_reviews", "test_reviews", "max_tokens")
    ],
    "training": lambda run: [run["config"][key] for key in ("epochs", "batch_size")],
    "seed": lambda run: run["config"]["seed"],
    "device": lambda run: [run["environment"][key] for key in ("device", "device_name", "precision")],
    "versions": lambda run: run["environment"]["versions"],
}


def _as_the_assignment_asks(run: Result) -> bool:
    return (run["profile"], run["base_model"]["name"], run["config"]["reviews"]) == (
        "course",
        WANTED_BASE,
        WANTED_REVIEWS,
    )


def _error(run: Result, share: float) -> float | None:
    reviews = figures.reviews(run, "test")
    return figures.standard_error(share, reviews) if reviews else None


def _ends(values: dict[str, float]) -> tuple[str, str]:
    """The names of the smallest and of the largest value."""
    return min(values, key=values.__getitem__), max(values, key=values.__getitem__)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _strong(text: str) -> Block:
    return {"style": "strong", "text": text}


def _maths(text: str) -> Block:
    return {"style": "maths", "text": text}


def _check(right: bool) -> Block:
    return {"style": "right" if right else "wrong", "text": "✓" if right else "✗"}


def _missing(text: str, span: int = 1) -> Block:
    return {"style": "missing", "text": text, "span": span}
