"""E3, many-shot: do demonstrations with steered answers bring the natural states toward the steered ones?

The target is the steered stream on [request, steered answer]. The natural stream on the same tokens is read after a
prefix of N demonstrations (another request, its own steered answer). N = 0 is the natural stream without a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlabench.benchmark.decoding import decode
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.store import array_fingerprint
from nlabench.benchmark.subject import Subject
from torch import Tensor

from .prompts import SETS, load_built_in
from .rows import Outcome, Row
from .setup import ARMS, Arm, Setup, add_everywhere, read_states
from .states import mean, spread, token_distances
from .timing import time_answers, time_reading
from .verdicts import Judged, judge_growth, judge_property

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOTS = (0, 1, 2, 4, 8, 16, 32)
PARTS = ("instruction", "answer", "all")
MOVED: Judged = ("no figure", "not in the paper: where this exceeds the shift, a growing distance is no surprise")
ALONG: Judged = ("no figure", "not in the paper: 1 would be the whole shift; the random arm is the 0 of this scale")


#: Tokens of an answer, and prompts, in full and in a quick run.
TOKENS, QUICK_TOKENS, PROMPTS, QUICK_PROMPTS = 64, 24, 10, 3


#: Answers that were written in this process: E5 has the subject copy those of E3.
_ANSWERS: dict[tuple[object, ...], list[tuple[int, ...]]] = {}


def list_shots(setup: Setup) -> tuple[int, ...]:
    return tuple(n for n in SHOTS if n <= setup.shots)


def count_prompts(setup: Setup) -> int:
    return QUICK_PROMPTS if setup.quick else PROMPTS


def count_tokens(setup: Setup) -> int:
    return QUICK_TOKENS if setup.quick else TOKENS


def check_context(subject: Subject, requests: Mapping[str, Sequence[str]], shots: int, *, quick: bool) -> None:
    """That the longest prefix, request and answer fit into the subject's context. requests: the texts of every set.

    Counted with answers as long as they may get, before anything is run.

    Raises:
        BadInput: they do not; says how many demonstrations do.
    """
    config = subject.model.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if room is None:
        return
    n_tokens, n_prompts = (QUICK_TOKENS, QUICK_PROMPTS) if quick else (TOKENS, PROMPTS)
    for name, texts in requests.items():
        turns = [len(subject.chat_ids(text)) + n_tokens + 1 for text in list_demonstrated(name)[:shots]]
        own = max(len(subject.chat_ids(text)) for text in texts[:n_prompts]) + n_tokens
        fits = max((n for n in range(len(turns) + 1) if own + sum(turns[:n]) <= room), default=-1)
        if fits < shots:
            mend = f"Pass --shots {fits}" if fits > 0 else "Leave E3 out (--table names the others)"
            raise BadInput(
                f"E3 puts up to {shots} demonstrations before a request of the {name} set: up to "
                f"{own + sum(turns):,} tokens, where the context of {subject.name!r} has {room:,}. {mend}, or take a "
                "subject with a longer context."
            )


def list_demonstrated(name: str) -> list[str]:
    """The requests that a set's demonstrations are made of."""
    return [r.instruction for r in load_built_in("declined" if name == "refusal" else "harmless")]


def estimate(setup: Setup) -> float:
    """From two batches of answers (demonstrations, and the prompts' own), and one reading of four turns."""
    n_tokens, prompts = count_tokens(setup), setup.prompts["refusal"][: count_prompts(setup)]
    demonstrated = [setup.subject.chat_ids(text) for text in list_demonstrated("refusal")[: setup.shots]]
    writing = sum(time_answers(setup, batch, n_tokens) for batch in (demonstrated, prompts))
    a_turn = time_reading(setup, (prompts[0] + [0] * n_tokens) * 4) / 4
    turns = 1 + len(ARMS) + sum(1 + shots for shots in list_shots(setup))  # plain, each arm's target, each N
    return len(SETS) * (writing + count_prompts(setup) * turns * a_turn)


def run(setup: Setup) -> Outcome:
    """Both sets; the steered arm's texts, read naturally and toward the target of every arm."""
    data = {name: measure(setup, name) for name in SETS}
    each, rows = list_shots(setup), []
    for name, found in data.items():
        for part in PARTS:
            curve = found["steered"][part]["mean"]
            told = "; ".join(f"N={n}: {value:.3g}" for n, value in zip(each, curve, strict=True))
            nearest = judge_property("N = 0 has the least distance", min(curve) == curve[0], told)
            rows.append(Row(f"{name}, {part}: which N is nearest", "N = 0", f"N = {each[argmin(curve)]}", *nearest))
            grows = judge_growth(each, curve, "it grows with N")
            rows.append(Row(f"{name}, {part}: distance by N", "grows with N", told, *grows))
        moved, shift = found["steered"]["moved"]["mean"], found["steered"]["all"]["mean"][0]
        told = "; ".join(f"N={n}: {value:.3g}" for n, value in zip(each, moved, strict=True))
        rows.append(
            Row(f"{name}: how far the demonstrations move the states (the shift: {shift:.3g})", "-", told, *MOVED)
        )
        along = {arm: found[arm]["along"]["mean"][-1] for arm in ARMS}
        told = ", ".join(f"{arm} {value:+.2f}" for arm, value in along.items())
        rows.append(Row(f"{name}: share of the shift that {max(each)} demonstrations go along", "-", told, *ALONG))
    notes = [
        "The first token is left out of every mean: without a prefix it is an attention sink of enormous norm, and "
        "under a prefix it is not; with it in, N = 0 would win by that alone (kept in the JSON as *_with_first).",
        "permuted and random: the same tokens, with the target moved along a vector of the same length that means "
        "nothing. Demonstrations that led toward the concept would bring the steered target nearer than those.",
        "A prefix moves the states whatever it says. What demonstrations could bring is the share along the shift.",
    ]
    if setup.quick:
        notes.append(
            f"Quick: {QUICK_PROMPTS} prompts a set, and answers of {QUICK_TOKENS} tokens; in full {PROMPTS} and "
            f"{TOKENS}."
        )
    return Outcome("E3", "Many-shot (Table 2)", rows, data, lambda figure: draw(figure, data), notes)


def argmin(values: Sequence[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)


def measure(setup: Setup, name: str) -> dict[str, Any]:
    """Per arm and part, the mean distance a token by N (mean and deviation over prompts)."""
    prompts = setup.prompts[name][: count_prompts(setup)]
    demonstrations = write_demonstrations(setup, name)
    answers = write_answers(setup, name, prompts)
    layer = setup.layer_of(name)
    found: dict[str, Any] = {arm: {} for arm in ARMS}
    per_prompt: dict[tuple[Arm, str], list[list[float]]] = {}
    for number, (ids, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = [*ids, *answer]
        targets = {arm: setup.states(name, whole, setup.shift(name, arm)) for arm in ARMS}
        plain = read_states(setup.subject, whole, layer)
        curves: dict[tuple[Arm, str], list[float]] = {}
        for shots in list_shots(setup):
            prefix = [token for turn in demonstrations[:shots] for token in turn]
            natural = read_states(setup.subject, [*prefix, *whole], layer)[len(prefix) :]
            for arm, target in targets.items():
                for part, value in split(token_distances(target, natural), len(ids)).items():
                    curves.setdefault((arm, part), []).append(value)
                curves.setdefault((arm, "moved"), []).append(float(token_distances(natural, plain)[1:].mean()))
                curves.setdefault((arm, "along"), []).append(share_along(natural, plain, target))
        for key, curve in curves.items():
            per_prompt.setdefault(key, []).append(curve)
        setup.say(f"E3 {name}: {number + 1} of {len(prompts)} prompts")
    for (arm, part), curves_of in per_prompt.items():
        by_shots = list(zip(*curves_of, strict=True))
        found[arm][part] = {"mean": [mean(c) for c in by_shots], "sd": [spread(c) for c in by_shots]}
    found["shots"] = list(list_shots(setup))
    found["answers"] = [setup.subject.tokenizer.decode(answer) for answer in answers]
    return found


def split(distances: Tensor, n_instruction: int) -> dict[str, float]:
    """Mean distance a token over the instruction, the answer and both, the first token left out and kept."""
    parts = {
        "instruction": distances[1:n_instruction],
        "answer": distances[n_instruction:],
        "all": distances[1:],
        "instruction_with_first": distances[:n_instruction],
        "all_with_first": distances,
    }
    return {part: float(values.mean()) for part, values in parts.items()}


def share_along(natural: Tensor, plain: Tensor, target: Tensor) -> float:
    """How far a prefix moves the states along the shift, as a share of its length: mean over tokens but the first."""
    shift, moved = (target - plain)[1:], (natural - plain)[1:]
    return float(((shift * moved).sum(-1) / shift.square().sum(-1)).mean())


def write_answers(setup: Setup, name: str, prompts: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """Greedy answers under steering, as token ids; a prompt that is answered with nothing keeps one stop token."""
    shift, block, n_tokens = setup.shift(name), setup.layer_of(name) - 1, count_tokens(setup)
    key = (setup.subject.fingerprint, block, n_tokens, array_fingerprint(shift.numpy()), *map(tuple, prompts))
    if key not in _ANSWERS:
        edits = {block: add_everywhere(setup.subject, shift.expand(len(prompts), -1))}
        stop = min(setup.subject.stop_ids())
        decoded = decode(setup.subject, prompts, max_new_tokens=n_tokens, edits=edits)
        _ANSWERS[key] = [answer.ids or (stop,) for answer in decoded]
    return _ANSWERS[key]


def write_demonstrations(setup: Setup, name: str) -> list[list[int]]:
    """Turns of other requests with their steered answers, each closed by the stop token."""
    prompts = [setup.subject.chat_ids(request) for request in list_demonstrated(name)[: setup.shots]]
    stop = setup.subject.tokenizer.eos_token_id
    return [[*ids, *answer, stop] for ids, answer in zip(prompts, write_answers(setup, name, prompts), strict=True)]


def draw(figure: Figure, data: dict[str, Any]) -> None:
    """A panel for each set: distance against N on the steered arm, and the two control arms over all tokens."""
    axes = figure.subplots(1, len(data))
    for axis, (name, found) in zip(axes, data.items(), strict=True):
        shots = found["shots"]
        for part, style in zip(PARTS, ("o-", "s-", "^-"), strict=True):
            cell = found["steered"][part]
            axis.errorbar(shots, cell["mean"], yerr=cell["sd"], fmt=style, capsize=2, markersize=4, label=part)
        for arm, style in (("permuted", "--"), ("random", ":")):
            axis.plot(shots, found[arm]["all"]["mean"], style, color="0.4", linewidth=1.2, label=f"all, {arm} target")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(shots, [str(n) for n in shots])
        axis.set_title(name)
        axis.set_xlabel("demonstrations N")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean L2 distance a token")
    axes[0].legend(fontsize=7)
