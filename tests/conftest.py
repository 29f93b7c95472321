"""What the tests share: the default subject, and a small random model of every family that the package promises."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import transformers as hf
import yaml
from nlabench.benchmark.concepts import NEUTRAL_PURPOSES, PURPOSES, Concept, ConceptPack, Text, load_pack
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.records import (
    ConceptRecord,
    GateRow,
    Provenance,
    Result,
    ScorerRecord,
    VerbalizerRecord,
    write_result,
)
from nlabench.benchmark.rescoring import rescore
from nlabench.benchmark.scoring.base import Standardized, score_unique, standardize
from nlabench.benchmark.stored_run import read_run
from nlabench.benchmark.subject import Subject, find_blocks, wrap_subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import load_tasks
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Unless told to sleep (scripts/environment.sh does), torch's threads wait for each other by spinning: with anything
# else on the same cores a test of a tenth of a second takes ten.
if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
    torch.set_num_threads(1)
# And a deadline of hypothesis measures the machine's other work, not ours.
hypothesis.settings.register_profile("shared-cores", deadline=None)
hypothesis.settings.load_profile("shared-cores")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a file is one worker's, and a long one must not be begun last.

    Those are the files beside this one, whole runs and a process for each test, then others with slow tests.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    here = Path(__file__).parent
    items.sort(key=lambda item: (item.path.parent != here, item.path not in slow))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window, for the tests of pages."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no `chromium` on the PATH to open pages in; install the system's package")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


N_BLOCKS, D_MODEL, VOCABULARY, WINDOW = 4, 32, 61, 5

_GROUPED = {
    "vocab_size": VOCABULARY, "hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_MIXED = {
    "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
}  # fmt: skip


def _llama() -> hf.PreTrainedModel:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED))


def _qwen2() -> hf.PreTrainedModel:
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GROUPED))


def _qwen3() -> hf.PreTrainedModel:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GROUPED, head_dim=8))


def _mistral() -> hf.PreTrainedModel:
    return hf.MistralForCausalLM(hf.MistralConfig(**_GROUPED, head_dim=8, sliding_window=WINDOW))


def _gemma2() -> hf.PreTrainedModel:
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GROUPED, **_MIXED))


def _gemma3_text() -> hf.PreTrainedModel:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, **_MIXED))


def _gemma3() -> hf.PreTrainedModel:
    # The vision tower is as deep as the text model on purpose: its list of blocks must not be taken for the subject's.
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = hf.Gemma3Config(
        text_config={**_GROUPED, **_MIXED}, vision_config=vision, tie_word_embeddings=False, mm_tokens_per_image=4,
        image_token_index=VOCABULARY - 1, boi_token_index=VOCABULARY - 2, eoi_token_index=VOCABULARY - 3,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config)


def _gpt2() -> hf.PreTrainedModel:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=D_MODEL, n_layer=N_BLOCKS, n_head=4, n_positions=128, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config)


def _gpt_neox() -> hf.PreTrainedModel:
    plain = {name: value for name, value in _GROUPED.items() if name != "num_key_value_heads"}
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**plain))


_FAMILIES: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "mistral": _mistral, "gemma2": _gemma2,
    "gemma3-text": _gemma3_text, "gemma3": _gemma3, "gpt2": _gpt2, "gpt-neox": _gpt_neox,
}  # fmt: skip


def _draw_weights(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    """Weights large enough that attention is sharp: an error in a mask or a position then shows in the first digit."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # norms and biases
                parameter += 0.1 * noise
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
    return model


_WORDS = ["the", "and", "of", "in", "with", "cat", "sat", "mat", "rain", "fell", "slowly", "night", "home", "late"]


def _word_tokenizer(*, ends: bool = False) -> hf.PreTrainedTokenizerFast:
    """Words as SentencePiece marks them (▁), after a BOS as Llama and Gemma have it; `ends`: with an EOS too."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in _WORDS)]
    vocabulary += [f"t{i}" for i in range(VOCABULARY - len(vocabulary))]
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


@functools.cache
def _tiny(family: str) -> Subject:
    return wrap_subject(_draw_weights(_FAMILIES[family]()), _word_tokenizer(), f"tiny-{family}", f"tiny:{family}")


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Subject]:
    """A small random subject by the name of its family; one per session, so a test that changes one copies it."""
    return _tiny


@pytest.fixture(scope="session", params=list(_FAMILIES))
def any_tiny(request: pytest.FixtureRequest) -> Subject:
    """A small random subject of each family in turn."""
    return _tiny(request.param)


@pytest.fixture(scope="session")
def word_tokenizer() -> Callable[..., hf.PreTrainedTokenizerFast]:
    return _word_tokenizer


@pytest.fixture(scope="session")
def subject() -> Subject:
    """The default subject, from the cache (fetched once)."""
    return load_subject()


@pytest.fixture(scope="session")
def thin_pack() -> ConceptPack:
    """The core pack with every other text of those that a subject reads: reading is much of a small run."""
    core = load_pack()

    def thin(texts: Mapping[str, tuple[Text, ...]]) -> dict[str, tuple[Text, ...]]:
        read = ("direction", "probe", "natural", "readout", "reference")
        return {purpose: some[::2] if purpose in read else some for purpose, some in texts.items()}

    concepts = tuple(dataclasses.replace(concept, texts=thin(concept.texts)) for concept in core.concepts)
    return ConceptPack("thin", concepts, thin(core.neutral))


# -- a checkpoint in the released NLA contract ----------------------------------------------------------------------

NLA_BLOCK = 1  # K: the AR has K + 1 blocks
NLA_SCALE = 20.0
MARKER = "㈎"
_TAGS = [
    "<|user|>", "<|assistant|>", "<concept>", "</concept>", MARKER, "<text>", "</text>", "<summary>", "<explanation>",
    "</explanation>",
]  # fmt: skip


def _nla_tokenizer() -> hf.PreTrainedTokenizerFast:
    """The word tokenizer with the contract's tags and marker as tokens of their own, and a chat template with a BOS."""
    tokenizer = _word_tokenizer()
    filler = tokenizer.convert_ids_to_tokens(range(VOCABULARY - len(_TAGS) - 5, VOCABULARY - 5))  # Gemma has the last 3
    raw = tokenizer.backend_tokenizer.to_str()
    for token, tag in zip([*filler, *(f"▁{word}" for word in _WORDS)], [*_TAGS, *_WORDS], strict=True):
        raw = raw.replace(f'"{token}"', f'"{tag}"')
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(raw), unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<unk>",
        chat_template="{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )  # fmt: skip
    # As added tokens they stay what they are in a Qwen directory, which transformers gives Qwen's own pre-tokenizer.
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in _TAGS])
    tokenizer.add_tokens([AddedToken(word, single_word=True, lstrip=True, normalized=False) for word in _WORDS])
    return tokenizer


def _nla_sidecar(family: str, role: str) -> dict[str, Any]:
    tokens = _nla_tokenizer()
    marker, left, right = tokens.convert_tokens_to_ids([MARKER, "<concept>", "</concept>"])
    suffix = tokens.convert_tokens_to_ids(["</text>", "<summary>"])
    return {
        "kind": "nla_model", "schema_version": 2, "role": role, "stage": "rl", "base_checkpoint": f"tiny-{family}",
        "d_model": D_MODEL, "trained_on": ["nothing"], "parent_checkpoints": [], "created_by": "tests",
        "extraction_layer_index": NLA_BLOCK, "critic": {"extraction_layer_index": NLA_BLOCK},
        "extraction": {"injection_scale": NLA_SCALE if role == "av" else None, "mse_scale": D_MODEL**0.5},
        "tokens": {
            "injection_char": MARKER, "injection_token_id": marker, "injection_left_neighbor_id": left,
            "injection_right_neighbor_id": right, "critic_suffix_ids": suffix,
        },
        "prompt_templates": {
            "av": "the cat sat <concept>{injection_char}</concept> in the night",
            "ar": "of the rain <text>{explanation}</text><summary>",
        },
    }  # fmt: skip


def _truncate(model: hf.PreTrainedModel, n_blocks: int) -> hf.PreTrainedModel:
    owner, blocks = find_blocks(model)
    name = next(name for name, child in owner.named_children() if child is blocks)
    setattr(owner, name, blocks[:n_blocks])
    config = model.config.get_text_config()
    config.num_hidden_layers = n_blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_blocks]
    return model


def _adapt(model: hf.PreTrainedModel, base: Path, folder: Path) -> None:
    """Write a random LoRA adapter over all linear layers of the blocks."""
    import peft  # slow, and most tests need none

    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and "vision" not in name
    ]
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=linear, init_lora_weights=False)
    torch.manual_seed(11)
    adapted = peft.get_peft_model(model, config)
    config.base_model_name_or_path = str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)


def _write_nla(family: str, folder: Path, *, adapters: bool = False) -> Path:
    for role in ("av", "ar"):
        home = folder / role
        model = _draw_weights(_FAMILIES[family]())
        if adapters:
            model.save_pretrained(folder / "base")
            _nla_tokenizer().save_pretrained(folder / "base")
        if role == "ar":
            model = _truncate(model, NLA_BLOCK + 1)
            head = torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(13)) / D_MODEL**0.5
        if adapters:
            _adapt(model, folder / "base", home)
        else:
            model.save_pretrained(home)
            _nla_tokenizer().save_pretrained(home)
        if role == "ar":
            safetensors.torch.save_file({"weight": head}, home / "value_head.safetensors")
        sidecar = yaml.safe_dump(_nla_sidecar(family, role), allow_unicode=True)
        (home / "nla_meta.yaml").write_text(sidecar, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_nla() -> Callable[..., Path]:
    """Writes a small random NLA of a family in the released contract: `folder/av` and `folder/ar`.

    `write_nla(family, folder, adapters=True)` writes PEFT adapters over `folder/base` in place of full directories.
    Its site is block NLA_BLOCK of `tiny(family)`.
    """
    return _write_nla


@pytest.fixture(scope="session")
def nla_tokenizer() -> Callable[[], hf.PreTrainedTokenizerFast]:
    return _nla_tokenizer


# -- a run on disk whose texts are planted, and a scorer that reads words -------------------------------------------

PLANTED_CONCEPTS, PLANTED_PROMPTS, PLANTED_GRID = 24, 8, (0.1, 1.0)
PLANTED_TASKS = {task.name: task.version for task in load_tasks(("concept_identification", "confabulation"))}


@dataclasses.dataclass(frozen=True)
class _WordScorer:
    """Scores a text by whether a concept's title is a word of it, and by a little that every text differs in."""

    titles: list[str]
    fingerprint: str
    name: str = "words"

    def score(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([[self._score(text, title) for title in self.titles] for text in texts])

    def _score(self, text: str, title: str) -> float:
        return (title in text.split()) + zlib.crc32(f"{text} {title}".encode()) / 2**33


def _planted_pack(n_concepts: int = PLANTED_CONCEPTS) -> ConceptPack:
    def texts(owner: str, purpose: str, n: int) -> tuple[Text, ...]:
        return tuple(Text(f"{owner}/{purpose}/{i}", f"{purpose} text {i} of {owner}") for i in range(n))

    concepts = tuple(
        Concept(f"c{c}", f"c{c}", f"About c{c}.", f"family {c % 3}", None, {p: texts(f"c{c}", p, 2) for p in PURPOSES})
        for c in range(n_concepts)
    )
    neutral = {p: texts("neutral", p, 8) for p in NEUTRAL_PURPOSES}
    return ConceptPack("planted", concepts, neutral).select(n_concepts)  # the families in turn, as a run has it


def _build_word_scorer(pack: ConceptPack) -> _WordScorer:
    return _WordScorer([c.title for c in pack.concepts], f"words:{pack.fingerprint()}")


def _planted_labels() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []

    def add(arm: str, prompt: str, concept: int | None = None, **more: Any) -> None:
        rows.append(
            {
                "arm": arm, "injection": "none", "level": "grid", "concept": None if concept is None else f"c{concept}",
                "prompt": prompt, "position": 5, "kind": "function", "word": "the", "r": 0.0, "draw": 0, "pair": None,
                "norm": 9.0, "unsteered_norm": 9.0, "displacement": 0.0, "angle": 0.0, "evidence": math.nan,
                "outlier": False, **more,
            }
        )  # fmt: skip

    for c in range(PLANTED_CONCEPTS):
        for k in range(4):
            prompt, text = f"p{(c + 3 * k) % PLANTED_PROMPTS}", f"c{c}/natural/{k}"
            add("natural", text, c)
            add("steered", prompt, c, injection="readout", level="matched", r=0.07, pair=f"{text}@5")
        for r in PLANTED_GRID:
            add("steered", f"p{c % PLANTED_PROMPTS}", c, injection="readout", r=r)
    for p in range(PLANTED_PROMPTS):
        add("neutral", f"p{p}")
        for r in PLANTED_GRID:
            add("permuted", f"p{p}", injection="readout", r=r)
    labels = pd.DataFrame(rows)
    labels.insert(0, "item_id", [hashlib.sha256(repr(row).encode()).hexdigest()[:16] for row in rows])
    return labels.sort_values("item_id", ignore_index=True)


def _planted_result(scorer: Standardized, verbalizers: Sequence[str], **provenance: Any) -> Result:
    suite = QUICK.model_copy(update={"name": "planted", "n_concepts": PLANTED_CONCEPTS, "tasks": tuple(PLANTED_TASKS)})
    sure = dict.fromkeys(("naming", "being", "empty", "all_concepts", "negated", "stuffed"), 1.0)
    return Result(
        provenance=Provenance(
            **{
                "nlabench": "0", "suite": suite.model_dump(mode="json"), "tasks": PLANTED_TASKS, "subject": "planted",
                "subject_fingerprint": "0", "subject_blocks": 4, "dtype": "float32", "device": "cpu", "layer": 2,
                "d_model": 4, "injection_layer": 1, "preamble_tokens": 0, "pack": "planted",
                # Not in the order of their names: that is a thing which only the record knows.
                "readout_prompts": [f"p{3 * p % PLANTED_PROMPTS}" for p in range(PLANTED_PROMPTS)],
                "pack_fingerprint": _planted_pack().fingerprint(), "vectors_fingerprint": "0", "seed": 0,
                "resamples": 200, "libraries": {}, "python": "3", "git": None, "started": "", "seconds": 0.0,
                "arguments": {}, **provenance,
            }
        ),
        findings=[],
        scorers=[
            ScorerRecord(
                name=scorer.name, fingerprint=scorer.fingerprint, ranks=True, foreign=None, naming_top1=1, being_top1=1,
                weakest=[], **sure,
            )
        ],
        scorer_agreement=[],
        verbalizers={
            name: VerbalizerRecord(
                card={"name": name, "role": "submitted"}, fingerprint=name, n_texts=1, n_failed=0, distinct_texts=1,
                seconds=0, texts_per_second=None, rerun_checked=None, rerun_agreed=None,
            )
            for name in verbalizers
        },
        concepts=[
            ConceptRecord(
                name=c.name, title=c.title, family=c.family, description=c.description, method="", contrast="",
                split_half=0.9, split_half_upstream=0.9, length=1.0, matched_r={"readout/function": 0.07},
                natural_evidence={"readout/function": 0.1}, excluded={},
            )
            for c in _planted_pack().concepts
        ],
        gate=[
            GateRow(
                concept="c0", r=0.3, score=1, permuted=0, p=0.01, q=0.01, loss=2, distinct_2=1, steers=True, example=""
            )
        ],
        arms=[],
        excluded_items={},
        metrics=[],
    )  # fmt: skip


def _write_planted_run(folder: Path, said: Mapping[str, Sequence[str]], **provenance: Any) -> Path:
    pack = _planted_pack()
    scorer = standardize(_build_word_scorer(pack), [text.text for text in pack.neutral["reference"]])
    labels, result = _planted_labels(), _planted_result(scorer, list(said), **provenance)
    tables = [
        labels.assign(
            verbalizer=name, text=list(texts), logprob=math.nan, error=None,
            score_words=list(score_unique([scorer], texts)[0].astype(np.float32)),
        )
        for name, texts in said.items()
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(tables, ignore_index=True).to_parquet(folder / "items.parquet", index=False)
    write_result(result, folder / "result.json")
    write_result(rescore(read_run(folder)), folder / "result.json")
    return folder


@pytest.fixture(scope="session")
def planted_labels() -> pd.DataFrame:
    """The labels of a planted run, in the order in which `write_planted_run` takes texts."""
    return _planted_labels()


@pytest.fixture(scope="session")
def write_planted_run() -> Callable[..., Path]:
    """Writes a run as `nlabench run` leaves it, of given texts: `write_planted_run(folder, {verbalizer: texts})`.

    Its one scorer finds words. Further arguments are fields of the provenance.
    """
    return _write_planted_run


@pytest.fixture
def planted_pack(monkeypatch: pytest.MonkeyPatch) -> ConceptPack:
    """The pack of a planted run; its scorer is known while the test runs."""
    monkeypatch.setattr("nlabench.benchmark.scoring.base.known_scorers", lambda: {"words": _build_word_scorer})
    return _planted_pack()


@pytest.fixture(scope="session")
def say_planted(planted_labels: pd.DataFrame) -> Callable[..., list[str]]:
    """Texts that name their item's concept, but for a share, with words of their own: `say_planted(0.2, seed=1)`."""

    def say(silent: float = 0.0, *, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        words = rng.integers(0, 10_000, len(planted_labels))
        quiet = rng.random(len(planted_labels)) < silent
        return [
            f"text {word}" if no or concept is None else f"text {word} {concept}"
            for word, no, concept in zip(words, quiet, planted_labels["concept"], strict=True)
        ]

    return say
