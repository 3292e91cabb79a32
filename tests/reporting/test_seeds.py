"""Results of further seeds, in full and packed into one small file."""

import json

import pytest
from report_documents import as_result, documents

from peft_scratch.errors import UserError
from peft_scratch.seeds import FILE, packed, read_seeds, reduced, with_further


def _seed(name: str, seed: int, **changes):
    run = as_result(documents(seed).results[name])
    run.config.seed, run.config.test_reviews = seed, 500
    run.mistakes = [i for i in range(500) if (i * (seed + 3)) % 7 == 0]
    for key, value in changes.items():
        setattr(run.config, key, value)
    return reduced(run)


def test_packed_seeds_are_the_same_seeds(tmp_path):
    seeds = {name: [_seed(name, seed) for seed in (1, 2, 12)] for name in ("full", "lora_peft_r1")}
    (tmp_path / FILE).write_text(packed(seeds))
    assert read_seeds(tmp_path) == seeds
    assert read_seeds(tmp_path / "none") == {}


@pytest.mark.parametrize("damage", ["{", "[]", '{"conditions": [], "runs": {"full": [{"conditions": 0}]}}'])
def test_a_damaged_file_is_named(tmp_path, damage):
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(UserError, match="does not hold results of seeds: restore it"):
        read_seeds(tmp_path)


def test_bits_that_do_not_fit_the_reviews_are_refused(tmp_path):
    content = json.loads(packed({"full": [_seed("full", 1)]}))
    content["runs"]["full"][0]["mistakes"] = "!"
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not hold results of seeds"):
        read_seeds(tmp_path)


def test_seeds_of_another_base_or_of_other_reviews_are_not_compared():
    first = as_result(documents().results["full"])
    first.config.test_reviews, first.mistakes = 500, []
    others = [
        _seed("full", 1),
        _seed("full", 2, base_sha256="another"),
        _seed("full", 3, test_reviews=400),
    ]
    (found,) = with_further({"full": first}, {"full": others}).values()
    assert [run.seed for run in found] == [0, 1]
    assert with_further({"full": first}, {"full": others[1:]}) == {}
