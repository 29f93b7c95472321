"""A regression check as it is read: a table on the terminal, JUnit XML in a CI, Markdown in a pull request."""

from __future__ import annotations

import re
from xml.etree import ElementTree as XML

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .regression import LEVEL, Comparison, MetricCheck, Verdict

STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "cannot tell": "yellow"}

MARKS: dict[Verdict, str] = {"pass": "✅", "fail": "❌", "cannot tell": "❔"}

#: Characters that XML 1.0 has no way to write, and a name from a result could hold.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def show_comparison(comparison: Comparison) -> RenderableType:
    """The table for the terminal. Names come from result files and are shown as they are, markup and all."""
    table = Table(
        title=Text(f"{comparison.candidate} against {comparison.baseline}"),
        title_justify="left",
        caption=Text(f"{_explain(comparison)} {comparison.benchmark}"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("metric", overflow="fold")
    for column in ("baseline", "candidate", "better by", "verdict", "power"):
        table.add_column(column, no_wrap=True)
    for check in comparison.checks:
        table.add_row(
            Text(check.name + (f"\n{check.note}" if check.note else "")),
            f"{check.baseline:.3f}",
            f"{check.candidate:.3f}",
            Text(_show_difference(check, "\n")),
            Text(check.verdict, STYLES[check.verdict]),
            _show_power(check),
        )
    warnings = [Text(f"{comparison.candidate}: {warning}.", "dim") for warning in comparison.warnings]
    return Group(table, *warnings, Text.assemble("Verdict: ", (comparison.verdict, STYLES[comparison.verdict])))


def print_comparison(comparison: Comparison) -> str:
    """The table as plain text, for a test that fails."""
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(show_comparison(comparison))
    return "\n" + captured.get()


def write_junit(comparison: Comparison) -> str:
    """JUnit XML with a test case per metric. What cannot be told is a skipped case: it neither holds nor fails."""
    verdicts = [check.verdict for check in comparison.checks]
    counts = {
        "tests": str(len(verdicts)), "failures": str(verdicts.count("fail")), "errors": "0",
        "skipped": str(verdicts.count("cannot tell")),
    }  # fmt: skip
    suites = XML.Element("testsuites", {"name": "nlabench check", **counts})
    title = _as_xml(f"{comparison.candidate} against {comparison.baseline}")
    suite = XML.SubElement(suites, "testsuite", {"name": title, "time": "0", **counts})
    for check in comparison.checks:
        case = XML.SubElement(
            suite, "testcase", {"classname": "nlabench.check", "name": _as_xml(check.name), "time": "0"}
        )
        if check.verdict == "fail":
            failure = XML.SubElement(case, "failure", {"message": _as_xml(describe_check(check)), "type": "regression"})
            failure.text = _as_xml(_explain(comparison))
        elif check.verdict == "cannot tell":
            XML.SubElement(case, "skipped", {"message": _as_xml(describe_check(check))})
        XML.SubElement(case, "system-out").text = _as_xml(describe_check(check))
    XML.indent(suites)
    return XML.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def write_markdown(comparison: Comparison) -> str:
    """A summary for a pull request."""
    lines = [
        f"### {MARKS[comparison.verdict]} nlabench check: {comparison.verdict}",
        "",
        f"{_as_markdown(comparison.candidate)} against {_as_markdown(comparison.baseline)}. "
        f"{_as_markdown(comparison.benchmark)}",
        "",
        "| metric | baseline | candidate | better by | verdict | power |",
        "|---|---|---|---|---|---|",
    ]
    for check in comparison.checks:
        note = f" ({check.note})" if check.note else ""
        lines.append(
            f"| {_as_markdown(check.name)} | {check.baseline:.3f} | {check.candidate:.3f} | "
            f"{_show_difference(check, ' ')}{note} | {MARKS[check.verdict]} {check.verdict} | {_show_power(check)} |"
        )
    warnings = [f"- {_as_markdown(warning)}" for warning in comparison.warnings]
    return "\n".join([*lines, "", *warnings, *([""] if warnings else []), _explain(comparison), ""])


def describe_check(check: MetricCheck) -> str:
    """A check in one sentence."""
    power = "" if check.power is None else f", a drop of {2 * check.margin:g} would be found in {check.power:.0%}"
    note = f" ({check.note})" if check.note else ""
    return (
        f"{check.name}: {check.verdict}. baseline {check.baseline:.3f}, candidate {check.candidate:.3f}, better by "
        f"{_show_difference(check, ' ')}{note}; margin {check.margin:g}{power}; {check.n_items} items of each, "
        f"{check.n_concepts} concepts, {check.n_prompts} prompts"
    )


def _explain(comparison: Comparison) -> str:
    (margin,) = {check.margin for check in comparison.checks}
    return (
        f"better by: paired over concepts and prompts, with one-sided {LEVEL:.0%} bounds; below 0 is worse. pass: it "
        f"lost less than the margin of {margin:g}. fail: it lost more. cannot tell: the margin lies between the bounds."
        f" power: how often a loss of {2 * margin:g} would be found."
    )


def _show_difference(check: MetricCheck, between: str) -> str:
    if check.low is None or check.high is None:
        return f"{check.difference:+.3f}"
    return f"{check.difference:+.3f}{between}[{check.low:+.3f}, {check.high:+.3f}]"


def _show_power(check: MetricCheck) -> str:
    return "-" if check.power is None else f"{check.power:.0%}"


def _as_xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _as_markdown(text: str) -> str:
    """A text as code, whatever it holds: a name may not start a table, a link or a tag of its own."""
    plain = " ".join(text.split()).replace("`", "ʼ").replace("|", "¦")
    return f"`{plain}`"
