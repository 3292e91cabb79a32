"""The course profile and a Hub on this machine: loaded by the real clients, and every way to fail."""

import errno
import json
import re
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import datasets.config
import huggingface_hub
import pytest
import torch
import transformers.utils.hub
from conftest import make_t5
from local_hub import model_folder, serving, write_reviews

from peft_scratch.assignment import HUB_BASE, HUB_REVIEWS, PROFILES, REVISIONS
from peft_scratch.data import hub as hub_module
from peft_scratch.data.base_model import base_fingerprint, base_origin, load_base
from peft_scratch.data.reviews import load_reviews
from peft_scratch.errors import UserError
from peft_scratch.experiments.profile_choice import choose_profile
from peft_scratch.paths import OFFLINE_BASE

COURSE = PROFILES["course"]
TEXTS = ["A DULL film.<br />It drags.", "A warm film.", "Dull again.", "Warm again."]
TOKENIZER = ("spiece.model", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """The two repositories of the course: a tiny T5 with the offline base's tokenizer, and reviews."""
    folder = tmp_path_factory.mktemp("repositories")
    make_t5(vocab_size=8192).save_pretrained(model_folder(folder))
    for name in TOKENIZER:
        shutil.copy(OFFLINE_BASE / name, model_folder(folder))
    labelled = TEXTS, [0, 1, 0, 1]
    write_reviews(folder, {"train": labelled, "test": labelled, "unsupervised": (TEXTS[:2], [-1, -1])})
    return folder


def _close_sessions() -> None:
    """Have huggingface_hub open its connections again; before its version 1, the call had another name."""
    utils = huggingface_hub.utils
    (utils.close_session if hasattr(utils, "close_session") else utils.reset_sessions)()


class Machine:
    """A machine with an empty cache, seen by the libraries of this process."""

    def __init__(self, monkeypatch, folder: Path) -> None:
        self.hub_cache, self.datasets_cache = folder / "hub", folder / "datasets"
        self._set = monkeypatch.setattr
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            self._set(huggingface_hub.constants, name, str(self.hub_cache))
        # A name of transformers 4; version 5 asks huggingface_hub each time.
        self._set(transformers.utils.hub, "TRANSFORMERS_CACHE", str(self.hub_cache), raising=False)
        self._set(datasets.config, "HF_DATASETS_CACHE", self.datasets_cache)
        self._set(hub_module, "BY_HAND", hub_module.ROOT / "no such folder")
        self._set(time, "sleep", lambda seconds: None)  # between one attempt and the next

    def connect(self, url: str | None) -> None:
        """Let the Hub be at `url`; for `None`, forbid to look for it, as HF_HUB_OFFLINE does."""
        offline, url = url is None, url or "http://127.0.0.1:9"
        for module in (huggingface_hub.constants, datasets.config):
            self._set(module, "HF_HUB_OFFLINE", offline)
        self._set(transformers.utils.hub, "_is_offline_mode", offline, raising=False)
        self._set(huggingface_hub.constants, "ENDPOINT", url)
        self._set(huggingface_hub.hf_api.api, "endpoint", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (huggingface_hub.constants, huggingface_hub.file_download):  # of version 1, and before
            self._set(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        self._set(datasets.config, "HF_ENDPOINT", url)
        _close_sessions()
        huggingface_hub.HfFileSystem.clear_instance_cache()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    yield Machine(monkeypatch, tmp_path)
    monkeypatch.undo()
    _close_sessions()  # of this Hub
    huggingface_hub.HfFileSystem.clear_instance_cache()


@pytest.fixture
def hub(repositories, machine, tmp_path):
    """A Hub with repositories of its own, which a test may spoil, and a machine that is connected to it."""
    shutil.copytree(repositories, tmp_path / "repositories")
    with serving(tmp_path / "repositories") as hub:
        machine.connect(hub.url)
        yield hub


def _load():
    reviews = load_reviews(COURSE)
    return load_base(COURSE), base_fingerprint(COURSE), reviews


def _sentence(load) -> str:
    with pytest.raises(UserError) as raised:
        load(COURSE)
    sentence = str(raised.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert "use the offline profile" in sentence
    assert "put them into hub/" in sentence or "put them into no such folder/" in sentence
    return sentence


def test_what_is_loaded_once_is_found_again_without_a_hub(hub, machine):
    (model, tokenizer), fingerprint, reviews = _load()
    assert len(tokenizer) <= model.config.vocab_size == 8192
    assert reviews.train["text"] == [text.lower().replace("<br />", " ") for text in TEXTS]
    assert reviews.train["label"] == reviews.test["label"] == [0, 1, 0, 1]
    # The cache that the real client made, in its real layout.
    cached = machine.hub_cache / "models--google-t5--t5-small"
    assert [snapshot.name for snapshot in (cached / "snapshots").iterdir()] == [REVISIONS[HUB_BASE]]
    weights = cached / "snapshots" / REVISIONS[HUB_BASE] / "model.safetensors"
    assert weights.resolve() == cached / "blobs" / fingerprint, "not the content that was asked for"

    asked = len(hub.asked)
    machine.connect(None)
    (again, _), same, found = _load()
    assert len(hub.asked) == asked
    assert same == fingerprint
    assert found.train["text"] == reviews.train["text"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_copy_serves_where_the_hub_does_not_answer(hub, machine):
    _load()
    hub.fault = "out of order"
    _load()
    hub.shutdown()
    hub.server_close()
    _load()


def test_a_renamed_repository_is_followed(hub):
    (hub.folder / "models" / "google-t5").rename(hub.folder / "models" / "google")
    hub.moved[HUB_BASE] = "google/t5-small"
    assert len(base_fingerprint(COURSE)) == 64
    load_base(COURSE)


@pytest.mark.parametrize("load", [load_base, base_fingerprint, load_reviews])
@pytest.mark.parametrize(
    ("fault", "cause", "remedy"),
    [
        ("gated", "only to accounts that have permission", "log in with `hf auth login`"),
        ("gone", "has nothing of that name", "see on https://huggingface.co/"),
        ("no such version", "does not have its version", "take a newer release of this kit, or write there"),
        ("out of order", "does not deliver it", "check the connection and run again"),
    ],
)
def test_a_hub_that_refuses_is_named(hub, load, fault, cause, remedy):
    hub.fault = fault
    sentence = _sentence(load)
    assert cause in sentence and remedy in sentence


def test_the_pinned_versions_are_loaded_and_no_other(hub):
    _load()
    versions = {found[1] for asked in hub.asked if (found := re.search(r"/resolve/([^/]+)/", asked))}
    assert versions == set(REVISIONS.values())


@pytest.mark.parametrize("load", [load_base, base_fingerprint, load_reviews])
def test_a_pin_that_is_no_longer_there_is_named(hub, load):
    """The repository is there, but not that version: the sentence says what to write where."""
    hub.commits = dict.fromkeys(REVISIONS, "0" * 40)
    sentence = _sentence(load)
    name = HUB_REVIEWS if load is load_reviews else HUB_BASE
    assert f"does not have its version {REVISIONS[name]}" in sentence
    assert "src/peft_scratch/assignment.py, under REVISIONS" in sentence
    page = f"https://huggingface.co/{'datasets/' * (load is load_reviews)}{name}"
    assert f"a version that {page}/commits/main lists" in sentence
    assert f"from {page}/tree/main in a browser" in sentence


def test_a_copy_serves_where_the_pin_is_gone(hub):
    _load()
    hub.commits = dict.fromkeys(REVISIONS, "0" * 40)
    load_base(COURSE)


def test_the_files_to_fetch_by_hand_are_those_of_the_pinned_version(hub):
    hub.fault = "out of order"
    assert f"/tree/{REVISIONS[HUB_BASE]} in a browser" in _sentence(load_base)
    assert f"/tree/{REVISIONS[HUB_REVIEWS]} in a browser" in _sentence(load_reviews)


def test_the_record_says_what_was_loaded_and_not_what_was_asked_for(hub, machine, monkeypatch):
    """Offline, `datasets` takes whatever copy it has."""
    other = "1" * 40
    monkeypatch.setitem(REVISIONS, HUB_REVIEWS, other)
    hub.commits[HUB_REVIEWS] = other
    first = load_reviews(COURSE).origin
    machine.connect(None)
    monkeypatch.setitem(REVISIONS, HUB_REVIEWS, "2" * 40)
    again = load_reviews(COURSE).origin
    assert first.revision == again.revision == other
    assert first.sha256 == again.sha256 and len(first.sha256) == 64


def test_results_record_what_came_from_the_hub(hub):
    base, reviews = base_origin(COURSE), load_reviews(COURSE).origin
    assert (base.name, base.revision) == (HUB_BASE, REVISIONS[HUB_BASE])
    assert base.sha256 == base_fingerprint(COURSE)
    assert (reviews.name, reviews.revision) == (HUB_REVIEWS, REVISIONS[HUB_REVIEWS])
    # Another label, or another text, is another hash.
    file = next((hub.folder / "datasets").rglob("test-*.parquet"))
    write_reviews(hub.folder / "other", {"test": (TEXTS, [1, 1, 0, 0])})
    shutil.copy(next((hub.folder / "other").rglob("test-*.parquet")), file)
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    shutil.rmtree(datasets.config.HF_DATASETS_CACHE)
    assert load_reviews(COURSE).origin.sha256 != reviews.sha256


@pytest.mark.parametrize("load", [load_base, base_fingerprint, load_reviews])
def test_a_hub_that_cannot_be_reached_is_named(machine, load):
    machine.connect("http://127.0.0.1:9")  # nobody listens there
    sentence = _sentence(load)
    assert "does not deliver it" in sentence and "check the connection" in sentence


@pytest.mark.parametrize("load", [load_base, base_fingerprint, load_reviews])
def test_an_offline_flag_without_a_copy_is_named(machine, load):
    machine.connect(None)
    assert "HF_HUB_OFFLINE" in _sentence(load)


@pytest.mark.parametrize("load", [base_fingerprint, load_reviews])
def test_a_download_that_breaks_off_is_named_and_begun_again(hub, machine, load):
    hub.fault = "cut"
    sentence = _sentence(load)
    assert "does not deliver it" in sentence and "complete files are kept" in sentence
    whole = {path for path in machine.hub_cache.glob("*/blobs/*") if path.suffix != ".incomplete"}
    hub.fault = None
    load(COURSE)
    assert whole < set(machine.hub_cache.glob("*/blobs/*"))
    assert not list(machine.hub_cache.glob("*/blobs/*.incomplete"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_copy_of_the_base_is_named(hub, machine, name):
    load_base(COURSE)
    file = next(machine.hub_cache.glob(f"models--*/snapshots/*/{name}")).resolve()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    machine.connect(None)
    sentence = _sentence(load_base)
    assert "a file of it is damaged or missing" in sentence
    assert f"delete {machine.hub_cache / 'models--google-t5--t5-small'} and run again" in sentence


def test_a_cache_without_its_snapshot_is_named(hub, machine):
    load_base(COURSE)
    shutil.rmtree(machine.hub_cache / "models--google-t5--t5-small" / "snapshots")
    machine.connect(None)
    assert "there is no complete copy here" in _sentence(load_base)


def test_damaged_reviews_are_named(hub, machine):
    file = next((hub.folder / "datasets").rglob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    sentence = _sentence(load_reviews)
    assert "a file of it is damaged or missing (DatasetGenerationError" in sentence
    assert str(machine.hub_cache / "datasets--stanfordnlp--imdb") in sentence


def test_reviews_without_a_test_split_are_named(hub):
    root = hub.folder / "datasets" / COURSE.reviews
    next(root.rglob("test-*.parquet")).unlink()
    (root / "README.md").unlink()
    assert "damaged or missing (KeyError: 'test')" in _sentence(load_reviews)


def test_a_pickle_in_place_of_the_weights_is_not_read(hub):
    folder = model_folder(hub.folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in _sentence(load_base)
    assert not [asked for asked in hub.asked if asked.startswith("GET") and "pytorch_model.bin" in asked]


def test_a_poisoned_configuration_runs_no_code(hub):
    """It names code of its own repository and a kernel of another, and says that it may be trusted."""
    folder = model_folder(hub.folder)
    (folder / "evil.py").write_text("raise SystemExit('this must never run')\n")
    poison = {
        "auto_map": {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForSeq2SeqLM", "AutoTokenizer")},
        "trust_remote_code": True,
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "_attn_implementation_internal": "someone/kernel",
    }
    for name in ("config.json", "tokenizer_config.json"):
        entries = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**entries, **poison}))
    with suppress(UserError):  # to refuse it is as good as to pass over it
        model, _ = load_base(COURSE)
        assert type(model).__module__ == "transformers.models.t5.modeling_t5"
    assert any("config.json" in asked for asked in hub.asked)
    assert not [
        asked for asked in hub.asked if "someone" in asked or (asked.startswith("GET") and "evil" in asked)
    ]
    assert not [name for name in sys.modules if "evil" in name]


def test_a_script_among_the_reviews_is_not_run(hub):
    """Of the repository's own name, as `datasets` once ran such a one."""
    (hub.folder / "datasets" / HUB_REVIEWS / "imdb.py").write_text(
        "raise SystemExit('this must never run')\n"
    )
    with suppress(UserError):  # to refuse it is as good as to pass over it
        assert load_reviews(COURSE).test["label"] == [0, 1, 0, 1]
    assert not [name for name in sys.modules if name.rpartition(".")[2] == "imdb"]


def test_a_cache_that_cannot_be_written_is_named(hub, machine, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    for load in (load_base, load_reviews):
        sentence = _sentence(load)
        assert "No space left on device" in sentence and "set the environment variable HF_HOME" in sentence


def test_files_put_there_by_hand_stand_in_for_the_hub(repositories, machine, monkeypatch, tmp_path):
    machine.connect("http://127.0.0.1:9")
    by_hand = tmp_path / "by hand"
    monkeypatch.setattr(hub_module, "BY_HAND", by_hand)
    shutil.copytree(model_folder(repositories), by_hand / COURSE.base)
    (by_hand / COURSE.base / "spiece.model").unlink()  # the sentence does not ask for it
    (by_hand / COURSE.base / "generation_config.json").unlink()
    (by_hand / COURSE.reviews).mkdir(parents=True)
    for split in ("train", "test"):
        source = next(repositories.rglob(f"{split}-*.parquet"))
        shutil.copy(source, by_hand / COURSE.reviews)
    (model, tokenizer), fingerprint, reviews = _load()
    assert tokenizer("positive").input_ids[-1] == model.config.eos_token_id
    assert reviews.test["label"] == [0, 1, 0, 1]
    assert len(fingerprint) == 64
    # Nobody knows which version a hand took: the hashes say what it is.
    assert base_origin(COURSE).revision is reviews.origin.revision is None
    assert base_origin(COURSE).sha256 == fingerprint and len(reviews.origin.sha256) == 64


def test_auto_takes_the_course_where_there_is_a_gpu_and_the_hub_answers(hub, monkeypatch):
    assert choose_profile().profile.name == "offline" or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_profile().profile.name == "course"
    hub.fault = "out of order"
    choice = choose_profile()
    assert choice.profile.name == "offline"
    assert "the Hugging Face Hub cannot be reached" in choice.reason


def test_the_stand_in_serves_what_it_says(hub):
    """The oracle's own check: the client's view of the repository is the folder's."""
    info = huggingface_hub.HfApi().dataset_info(COURSE.reviews)
    parquet = {f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test", "unsupervised")}
    assert {entry.rfilename for entry in info.siblings} == {"README.md", *parquet}
    downloaded = huggingface_hub.hf_hub_download(HUB_BASE, "config.json")
    assert json.loads(Path(downloaded).read_text())["d_model"] == 32
