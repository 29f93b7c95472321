"""The paper's experiments: verdicts are rules on numbers, lists of prompts are checked, states are read where said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import reproduce_non_surjective as command
import torch
from nla_on_steered.estimate import Machine, count_model, estimate_run
from nla_on_steered.tables import by_strength, compare
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.records import Result, read_result
from nlabench.benchmark.subject import Edit, Subject, wrap_subject
from non_surjective import (
    copying,
    cross_prompt,
    inversion,
    many_shot,
    matching,
    prefill,
    prompt_search,
    sip_it,
    soft_prefix,
    strength,
    timing,
)
from non_surjective.many_shot import share_along, split
from non_surjective.prompts import SETS, load_built_in, load_rephrased, load_requests, load_trait
from non_surjective.refusals import is_answered
from non_surjective.rows import Outcome, Row
from non_surjective.setup import (
    ARMS,
    STRENGTHS,
    Setup,
    _controls,
    describe,
    find_request,
    make_setup,
    read_states,
    template_ends,
)
from non_surjective.soft_prefix import Amount, judge_reach
from non_surjective.verdicts import (
    judge_count,
    judge_growth,
    judge_number,
    judge_property,
    judge_rise,
    mcnemar_p,
    rank_correlation,
    wilson,
)


@pytest.fixture(scope="module")
def setup(tiny: Callable[[str], Subject]) -> Setup:
    """Two prompts a set on a tiny subject, with directions of known length."""
    subject = tiny("llama")
    texts = ["the cat sat", "of the rain in the night"]
    ids = [subject.chat_ids(text) for text in texts]
    drawn = torch.randn(3, subject.d_model, generator=torch.Generator().manual_seed(0))
    vectors = drawn / drawn.norm(dim=-1, keepdim=True)
    return Setup(
        subject=subject, layer=2, layers=dict.fromkeys(SETS, 2), directions=dict.fromkeys(SETS, vectors[0]),
        controls={name: {"permuted": vectors[1], "random": vectors[2]} for name in SETS},
        made_of=dict.fromkeys(SETS, (1, 1)), strengths=STRENGTHS, prompts=dict.fromkeys(SETS, ids),
        spans={name: [(1, len(i) - 1) for i in ids] for name in SETS}, requests=dict.fromkeys(SETS, texts),
        quick=True, seed=0, say=lambda _: None,
    )  # fmt: skip


# -- verdicts -------------------------------------------------------------------------------------------------------


def test_number_is_the_same_within_its_tolerance_and_not_outside() -> None:
    assert judge_number(0.54, 0.559, 0.05)[0] == "same"
    assert judge_number(0.45, 0.559, 0.05)[0] == "differs"
    assert judge_number(2.6, 2.5, 0.05, relative=True)[0] == "same"
    assert judge_number(2.7, 2.5, 0.05, relative=True)[0] == "differs"


def test_counts_are_the_same_as_shares() -> None:
    assert judge_count((4, 4), (10, 10))[0] == "same"
    assert judge_count((3, 4), (10, 10))[0] == "differs"
    assert judge_count((0, 0), (10, 10))[0] == "not rerun"


def test_property_that_fails_differs_and_says_the_figures() -> None:
    assert judge_property("it grows", False, "3, 2") == ("differs", "it grows: no (3, 2)")


def test_growth_needs_order_and_a_higher_end() -> None:
    assert judge_growth([0, 1, 2, 4], [1, 2, 3, 4], "it grows")[0] == "same shape"
    assert judge_growth([0, 1, 2, 4], [1, 3, 2, 1.5], "it grows")[0] == "differs"
    assert judge_growth([0, 1, 2, 4], [1, 1, 1, 1], "it grows")[0] == "differs"
    exchanged = judge_growth([0, 1, 2, 4, 8], [15, 44, 50, 58, 55], "it grows")
    assert exchanged == ("same shape", "it grows (rank correlation at least 0.9): yes (0.90)")
    assert judge_growth([0, 1, 2, 4, 8], [15, 50, 44, 58, 55], "it grows")[0] == "differs"
    assert rank_correlation([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)


def test_rise_too_small_to_be_shown_is_not_called_the_same_shape() -> None:
    nothing = [False] * 20
    assert judge_rise(nothing, [True] * 6 + [False] * 14, "it rises")[0] == "same shape"
    verdict, why = judge_rise(nothing, [True] * 2 + [False] * 18, "it rises")
    assert verdict == "differs"
    assert "not shown" in why
    assert judge_rise([True] * 6 + [False] * 14, nothing, "it rises")[0] == "differs"


def test_mcnemar_counts_changed_requests_only() -> None:
    assert mcnemar_p([False] * 5, [True] * 5) == pytest.approx(2**-5)
    assert mcnemar_p([True, False], [False, True]) == pytest.approx(0.75)
    assert mcnemar_p([True] * 50, [True] * 50) == 1


def test_wilson_interval_of_all_successes_reaches_one_and_leaves_room() -> None:
    low, high = wilson(10, 10)
    assert (round(low, 3), high) == (0.722, 1.0)  # n / (n + z²)
    with pytest.raises(ValueError, match="count something"):
        wilson(0, 0)


def test_weak_optimiser_tells_nothing_about_steered_states() -> None:
    assert judge_reach(steered=0.9, reachable=0.1)[0] == "same shape"
    assert judge_reach(steered=0.05, reachable=0.04)[0] == "differs"
    assert judge_reach(steered=0.9, reachable=0.8)[0] == "not rerun"
    assert judge_reach(steered=1.4, reachable=0.6)[0] == "not rerun"  # farther off than with no prefix is no failure


# -- prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ('{"instruction": "a"}', "holds a dict"),
        ("[]", "an empty list"),
        ('[{"instruction": "a"}, {"category": "b"}]', "Entry 1"),
        ('["a"]', "Entry 0"),
        ('[{"instruction": "a", "category": 3}]', "category 3"),
    ],
)
def test_list_that_is_none_says_what_is_expected(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=told):
        load_requests(file)


def test_list_in_the_split_format_is_read(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"instruction": "Sing.", "category": None}, {"instruction": "Dance."}]))
    assert [request.instruction for request in load_requests(file)] == ["Sing.", "Dance."]
    with pytest.raises(BadInput, match="no list of prompts"):
        load_requests(tmp_path / "missing.json")


def test_no_request_makes_a_direction_and_is_tested_on_it() -> None:
    lists = {name: {r.instruction for r in load_built_in(name)} for name in (*SETS, "mild", "declined", "harmless")}
    assert {name: len(found) for name, found in lists.items()} == {
        "persona": 10, "refusal": 10, "mild": 30, "declined": 32, "harmless": 32,
    }  # fmt: skip
    assert len(set.union(*lists.values())) == sum(map(len, lists.values()))
    assert not lists["persona"] & set(load_trait().questions)
    assert [len(wordings) for wordings in load_rephrased()] == [2] * 10


def test_answers_with_a_phrase_of_refusal_are_refusals() -> None:
    assert not is_answered("I’m sorry, but no.")
    assert not is_answered("Well, as an AI I would rather not.")
    assert is_answered("Here is a note.")
    assert is_answered("")  # the substring check of the field: silence passes


# -- where states are read and moved --------------------------------------------------------------------------------


def test_shift_enters_the_block_that_is_read(setup: Setup) -> None:
    """At the input of block `layer`: the stream before is moved by λv exactly, and later tokens by the block too."""
    ids, shift = setup.prompts["refusal"][0], setup.shift("refusal")
    assert torch.allclose(shift, -setup.directions["refusal"])
    before = read_states(setup.subject, ids, 1, 2, shift) - read_states(setup.subject, ids, 1)
    assert torch.allclose(before, shift.expand_as(before), atol=1e-5)
    after = setup.states("refusal", ids, shift) - setup.states("refusal", ids)
    assert (after - shift).norm(dim=-1).min() > 1e-3
    assert torch.equal(setup.states("refusal", ids, 0 * shift), setup.states("refusal", ids))


def test_setup_is_made_for_a_subject_without_a_chat_template(tiny: Callable[[str], Subject], tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text('[{"instruction": "the cat sat on the mat"}]')
    made = make_setup(tiny("gemma2"), layer=2, prompts=file, quick=True, say=lambda _: None)
    assert made.requests["refusal"] == ["the cat sat on the mat"]
    assert len(made.requests["persona"]) == 10
    for name in SETS:
        assert float(made.controls[name]["permuted"].norm()) == pytest.approx(float(made.directions[name].norm()))
        assert describe(made)["lengths"][name] > 0
    with pytest.raises(BadInput, match="Layer 0"):
        make_setup(tiny("gemma2"), layer=0)
    with pytest.raises(BadInput, match="Layer 99"):
        make_setup(tiny("gemma2"), layer=99)


def test_request_is_found_inside_its_template(subject: Subject) -> None:
    for request in ("Write a story.", "Yes"):
        ids = subject.chat_ids(request)
        start, stop = find_request(subject, request)
        assert subject.tokenizer.decode(ids[start:stop]) == request
    before, after = template_ends(subject)
    assert ids[: len(before)] == before
    assert ids[-len(after) :] == after


def test_distances_are_split_at_the_answer_and_leave_the_first_token_out() -> None:
    found = split(torch.tensor([100.0, 1, 3, 5, 7]), 3)
    assert found["instruction"] == 2
    assert found["answer"] == 6
    assert found["all"] == 4
    assert found["instruction_with_first"] == pytest.approx(104 / 3)


def test_moving_the_whole_shift_is_a_share_of_one() -> None:
    plain, shift = torch.randn(4, 8), torch.randn(4, 8)
    assert share_along(plain + shift, plain, plain + shift) == pytest.approx(1)
    assert share_along(plain, plain, plain + shift) == 0


def test_shuffled_labels_keep_nothing_of_the_direction() -> None:
    """Two kinds of texts that differ in their first number, by far: no control moves along it."""
    noise = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    positive, negative = noise[0], noise[1]
    positive[:, 0] += 100
    for seed in range(5):
        found = _controls(positive, negative, seed)["permuted"]
        assert float(found.norm()) == pytest.approx(float((positive.mean(0) - negative.mean(0)).norm()))
        assert abs(float(found[0] / found.norm())) < 0.9  # an unbalanced shuffle would have 1 here
    unbalanced = positive[:8].mean(0) - torch.cat([positive[8:], negative]).mean(0)
    assert float(unbalanced[0] / unbalanced.norm()) > 0.99


def test_arms_have_the_direction_s_length(setup: Setup) -> None:
    lengths = [float(setup.shift("persona", arm).norm()) for arm in ARMS]
    assert lengths == pytest.approx([1, 1, 1], abs=1e-5)


# -- the experiments on a tiny subject ------------------------------------------------------------------------------


def test_strength_sweep_grows_for_directions_and_controls_alike(setup: Setup) -> None:
    outcome = strength.run(setup)
    assert [row.verdict for row in outcome.rows] == ["same shape", "not rerun"] * 2
    for arm in ARMS:
        assert rank_correlation(strength.STRENGTHS, outcome.data["refusal"][arm]["mean"]) == pytest.approx(1)
    assert outcome.notes[-1] == "Quick: 4 prompts a set; in full 10."
    r = outcome.data["refusal"]["r"]
    assert r[-1] / r[0] == pytest.approx(500)


def test_prompt_at_its_own_distance_is_nought_from_itself(setup: Setup) -> None:
    outcome = cross_prompt.run(setup)
    assert all(row.verdict == "no figure" for row in outcome.rows)
    cell = outcome.data["persona"]["request"]
    assert len(cell["other_prompts"]["distances"]) == 2  # each of two prompts against the other
    assert cell["steered"]["median"] > 0


def test_no_demonstration_is_the_natural_stream_itself(setup: Setup) -> None:
    outcome = many_shot.run(replace(setup, shots=2))
    assert outcome.notes[-1] == "Quick: 3 prompts a set, and answers of 24 tokens; in full 10 and 64."
    found = outcome.data["refusal"]
    assert found["shots"] == [0, 1, 2]
    assert found["steered"]["moved"]["mean"][0] == 0
    assert found["steered"]["along"]["mean"][0] == 0
    assert found["steered"]["moved"]["mean"][1] > 0
    with pytest.raises(BadInput, match="there are 32"):
        make_setup(setup.subject, shots=64)


def test_every_condition_answers_the_same_requests(setup: Setup) -> None:
    outcome = prefill.run(setup)
    assert {name: cell["of"] for name, cell in outcome.data["success"].items()} == dict.fromkeys(prefill.CONDITIONS, 2)
    assert outcome.data["requests"] == setup.requests["refusal"]
    assert outcome.notes[-1].startswith("Quick: answers of 24 tokens, in full 50")


def test_soft_prefix_finds_states_that_a_prefix_gives(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_prefix, "QUICK", Amount((2,), 60, 1))
    monkeypatch.setattr(soft_prefix, "RATE", 0.1)
    monkeypatch.setattr(matching, "REACHABLE", "cat sat mat")
    rows = matching.make_rows(setup, 2, 1)
    true = setup.subject.model.get_input_embeddings()(torch.tensor([setup.subject.encode("cat sat")] * 3))
    reached = matching.states_of(setup, rows, true)
    assert rows.distance(reached)[2] < 1e-4  # the row of the reachable target, under the very prefix
    found = soft_prefix.optimise(setup, rows, 2)
    assert found["curve"]["steered"][-1] < found["curve"]["steered"][0]
    nearest, away = soft_prefix.nearest_tokens(setup.subject, true)
    assert nearest[0].tolist() == setup.subject.encode("cat sat")
    assert float(away.max()) < 1e-3


def test_a_soft_prefix_takes_steps_that_bfloat16_would_round_to_none(
    tiny: Callable[[str], Subject], setup: Setup
) -> None:
    model = copy.deepcopy(tiny("llama").model).bfloat16()
    half = wrap_subject(model, setup.subject.tokenizer, "half", "half")
    halved = replace(setup, subject=half)
    rows = matching.make_rows(halved, 2, 1)
    prefix = soft_prefix.start_prefix(halved, 3, 2)
    assert prefix.dtype == torch.float32
    soft_prefix.step(halved, rows, prefix)
    assert prefix.grad is not None
    assert float(prefix.grad.norm()) > 0


def test_exchanged_tokens_find_states_that_a_prompt_gives(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_search, "QUICK", prompt_search.Amount(2, 12, 40, 1))
    monkeypatch.setattr(matching, "REACHABLE", "cat sat mat")
    rows = matching.make_rows(setup, 2, 1)
    true = torch.tensor([setup.subject.encode("cat sat")] * 3)
    assert float(prompt_search.measure(setup, rows, true)[1][2]) < 1e-4
    found = prompt_search.search(setup)
    assert found["left"]["reachable"] < 1e-4  # forty tokens in two places: the prompt itself is found
    assert found["prompts"][2] == setup.subject.tokenizer.decode(true[0])
    assert found["left"]["steered"] > 0.1
    for target in matching.TARGETS:
        curve = [at[target] for at in found["curve"]]
        assert curve[-1] < curve[0]
    errors = [at["reachable"] for at in found["curve"]]
    assert len(errors) == 13


def test_exchanges_are_ranked_by_the_gradient_and_the_best_token_stays(setup: Setup) -> None:
    """To first order the rise of the error is the gradient times the change of the embedding."""
    rows = matching.make_rows(setup, 2, 1)
    tokens = prompt_search.start_tokens(setup, 3, 2)
    ranked = prompt_search.rank_exchanges(setup, rows, tokens)
    assert ranked.shape == (3, 2, min(prompt_search.RANKED, setup.subject.vocab_size))
    before = prompt_search.measure(setup, rows, tokens)[0]
    after, _ = prompt_search.exchange(setup, rows, tokens, torch.Generator().manual_seed(0))
    assert (prompt_search.measure(setup, rows, after)[0] <= before).all()


def test_copied_answers_are_read_as_far_from_the_steered_states_as_they_are(setup: Setup) -> None:
    answers = many_shot.write_answers(setup, "refusal", setup.prompts["refusal"])
    found = copying.measure_set(setup, "refusal", setup.prompts["refusal"], answers, 1)
    assert found["shift"] > 0
    assert found["to_natural"] > 0
    # A copy is no nearer to the steered states than the triangle of the three distances lets it be.
    assert found["to_steered"] >= abs(found["to_natural"] - found["shift"]) - 1e-3
    still = replace(setup, strengths=dict.fromkeys(SETS, 0.0))
    unmoved = copying.measure_set(still, "refusal", setup.prompts["refusal"], answers, 1)
    assert unmoved["shift"] == 0
    assert unmoved["to_steered"] == pytest.approx(unmoved["to_natural"])
    row = soft_prefix.copying_row("refusal", {**found, "shift": 10.0, "to_steered": 12.0}, "1")
    assert row.verdict == "same shape"
    assert soft_prefix.copying_row("refusal", {**found, "shift": 10.0, "to_steered": 0.5}, "1").verdict == "differs"


def test_prefill_rows_compare_shares_with_nothing_but_the_papers_own_requests() -> None:
    passed = {name: [True] * 8 for name in prefill.CONDITIONS}
    rows = prefill.compare("smollm2", ["x"] * 8, passed)
    assert [row.verdict for row in rows] == ["not rerun"] * 3 + ["differs"] * 2
    n = prefill.PUBLISHED_REQUESTS
    known = {"none": [True] * 320 + [False] * 252, "prefill": [True] * n, "steering": [True] * n}
    rows = prefill.compare("Qwen/Qwen2.5-0.5B-Instruct@main", ["x"] * n, known)
    assert [row.verdict for row in rows] == ["same"] * 3 + ["same shape"] * 2


# -- how long it takes ----------------------------------------------------------------------------------------------


def test_what_is_announced_leaves_the_first_slow_call_out(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token takes 0.1 s, read or written; the first call of all takes 100 s more."""
    clock, called = [0.0], []

    def decode(_: object, prompts: list[list[int]], *, max_new_tokens: int, edits: Mapping[int, Edit] = {}) -> None:
        clock[0] += 0 if called else 100
        called.append(max_new_tokens)
        for step in range(max_new_tokens):
            for edit in edits.values():
                edit(torch.zeros(1), torch.zeros(1), step == 0)
            clock[0] += 0.1 if step else 0.1 * len(prompts[0])

    monkeypatch.setattr(timing, "decode", decode)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    assert timing.time_answers(setup, [[1] * 50], 64) == pytest.approx(0.1 * (50 + 63))
    assert max(called) == 1 + timing.FEW  # and not the answer itself


def test_every_table_is_timed_beforehand(setup: Setup) -> None:
    for module in (cross_prompt, many_shot, prefill, soft_prefix, inversion, strength, sip_it):
        assert module.estimate(setup) > 0, module.__name__


# -- the command ----------------------------------------------------------------------------------------------------


def test_unknown_table_is_named_with_those_there_are() -> None:
    assert command.choose_tables(["e2", "SIP-IT"]) == ["E2", "sip-it"]
    assert command.choose_tables(["all"]) == list(command.TABLES)
    with pytest.raises(BadInput, match="no table 'E9'; expected E6"):
        command.choose_tables(["E2", "E9"])


def test_stored_table_counts_for_its_own_settings_only(tmp_path: Path) -> None:
    settings = {"seed": 0, "made_of": (1, 2)}
    row = Row("what", "1", "2", "differs", "why")
    command.write(tmp_path, Outcome("E2", "title", [row], {"a": 1.5}, lambda figure: None), settings, 1.0, 2.0)
    stored = command.load_stored(tmp_path, "E2", settings)
    assert stored is not None
    assert [Row(**found) for found in stored["rows"]] == [row]
    assert command.load_stored(tmp_path, "E2", {**settings, "seed": 1}) is None
    (tmp_path / "E2.png").unlink()
    assert command.load_stored(tmp_path, "E2", settings) is None
    assert command.load_stored(tmp_path, "E3", settings) is None


def test_code_of_a_table_is_part_of_its_settings(setup: Setup) -> None:
    hashes = {command.describe_settings(setup, module)["code"] for module in (strength, cross_prompt, prefill)}
    assert len(hashes) == 3


def test_code_of_a_table_is_found_through_its_imports(tmp_path: Path) -> None:
    """The hash follows `from .name import`: another way of importing would leave a module's changes unseen."""
    folder = Path(str(soft_prefix.__file__)).parent
    for file in folder.glob("*.py"):
        assert "from . import" not in file.read_text(encoding="utf-8"), file.name
    copied = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.py")}
    for name, code in copied.items():
        (tmp_path / name).write_text(code)
    module = ModuleType("soft_prefix")
    module.__file__ = str(tmp_path / "soft_prefix.py")
    before = command.hash_code(module)
    assert before == command.hash_code(soft_prefix)
    for name in ("copying.py", "prompt_search.py", "matching.py", "setup.py"):
        (tmp_path / name).write_text(copied[name] + "\n")
        assert command.hash_code(module) != before, name
        (tmp_path / name).write_text(copied[name])


@pytest.mark.slow
def test_command_runs_a_table_once_and_shows_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (["E6"], "smollm2-135m-instruct-q4_1", 4, True, None, "auto", "cpu", 8, 0, tmp_path)
    command.reproduce(*arguments)
    assert "this will take about" in capsys.readouterr().out
    made = (tmp_path / "E6.json").read_bytes()
    command.reproduce(*arguments)
    assert "not run again" in capsys.readouterr().out
    assert (tmp_path / "E6.json").read_bytes() == made
    assert json.loads(made)["settings"]["layers"] == {"persona": 4, "refusal": 4}


# -- the arm that was announced -------------------------------------------------------------------------------------

QWEN = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip


def test_parameters_are_counted_from_a_configuration_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    model = count_model("AV", str(tmp_path))
    assert model.parameters == 7_615_616_512  # Qwen2.5-7B's published 7.62 billion
    assert model.blocks == 28
    with pytest.raises(BadInput, match="no configuration"):
        count_model("AR", str(tmp_path / "nothing"))


def test_three_models_of_seven_billion_fit_80_gigabytes_in_bfloat16_and_not_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nla_on_steered.estimate.count_items", lambda _: 1000)
    for name, blocks in (("av", 28), ("ar", 21)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**QWEN, "num_hidden_layers": blocks}))
    machine = Machine("a GPU", 80_000_000_000, 400e12, 2e12)
    places = (str(tmp_path / "av"), str(tmp_path / "av"), str(tmp_path / "ar"))
    half, whole = (estimate_run(*places, "quick", machine, dtype) for dtype in ("bfloat16", "float32"))
    assert half.memory < 80e9 < whole.memory
    assert set(half.seconds) == {"reading", "gate", "texts"}
    assert set(estimate_run(*places, "standard", machine).seconds) == {"reading", "gate", "texts", "reconstruction"}
    slower = estimate_run(*places, "quick", Machine("an old GPU", None, 40e12, 2e11), "bfloat16")
    assert sum(slower.seconds.values()) == pytest.approx(10 * sum(half.seconds.values()))


def test_tables_say_what_the_result_says(write_planted_run: Callable[..., Path], tmp_path: Path,
                                         say_planted: Callable[..., list[str]]) -> None:  # fmt: skip
    result: Result = read_result(write_planted_run(tmp_path / "run", {"mine": say_planted()}) / "result.json")
    rows = compare(result)
    assert [row.verbalizer for row in rows] == list(result.verbalizers)
    for at in by_strength(result, "mine"):
        assert set(at.both) == set(at.steers) & set(at.said)
        assert set(at.said_without_steering) == set(at.said) - set(at.steers)
