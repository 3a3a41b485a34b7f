"""Tables and coloured lines, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sbi_physics.cli.terminal import say

if TYPE_CHECKING:
    from sbi_physics.comparison import Comparison
    from sbi_physics.doctor import Diagnosis
    from sbi_physics.scan import Scan
    from sbi_physics.study import ParameterRow, Study
    from sbi_physics.truncation import Truncation

_COLOURS: Final = {"PASS": "green", "MARGINAL": "yellow", "FAIL": "red"}
_WIDTH_ELSEWHERE: Final = 140
"""Columns when standard output is no terminal: tables must not break in logs."""


def show_study(study: Study) -> None:
    """Print the posterior, the verdict, the times and the path of the report."""
    console = _console()
    if study.posterior.context.truncation is not None:
        show_rounds(study.posterior.context.truncation)
    show_table(study.table(), study.observation_source)
    coverage = study.coverage
    colour = _COLOURS.get(coverage.verdict, "magenta")
    labels = f" ({', '.join(coverage.labels)})" if coverage.labels else ""
    console.print(Text.assemble("Verdict: ", (coverage.verdict, f"bold {colour}"), labels))
    console.print(Text(f"  {coverage.reason}"))
    from sbi_physics.study.stages import duration

    times = " · ".join(f"{name} {duration(s)}" for name, s in study.seconds.items())
    console.print(Text(f"Time: {times}"))
    say(f"Report: {study.report_path}")


def show_table(rows: Sequence[ParameterRow], source: str) -> None:
    """Print medians and intervals in physical units."""
    has_truth = any(row.truth is not None for row in rows)
    headings = ["parameter", "unit", "median", "68 % interval", "95 % interval"]
    table = _table(None, headings)
    if has_truth:
        table.add_column("truth", justify="right")
    table.add_column("")
    for row in rows:
        truth = [number(row.truth)] if row.truth is not None else []
        edge = f"reaches the {' and '.join(row.edges)} prior edge" if row.edges else ""
        table.add_row(
            *_texts(
                row.name,
                row.unit,
                number(row.median),
                _interval(row.interval_68),
                _interval(row.interval_95),
                *truth,
                edge,
            )
        )
    console = _console()
    # A line of its own: the title of a table is cut to its width, and a path must not be.
    title = Text(f"Posterior for the observation {source}", style="table.title")
    console.print(title, soft_wrap=True)
    console.print(table)


def show_comparison(comparison: Comparison) -> None:
    """Print scores, verdicts and times of several runs, and their score differences."""
    from sbi_physics.comparison import score_text

    console = _console()
    # What would only repeat the names is left out: the table fits into 100 columns.
    shows_engines = any(row.engine != row.name for row in comparison.table)
    headings = ["run", *(["engine"] if shows_engines else []), "verdict", "NLL", "gain"]
    table = _table("Runs", [*headings, "training", "sampling", "adj. p"])
    table.padding = (0, 1, 0, 0)
    for row in comparison.table:
        table.add_row(
            *_texts(row.name, *([row.engine] if shows_engines else [])),
            Text(row.verdict, f"bold {_COLOURS.get(row.verdict, 'magenta')}"),
            *_texts(
                score_text(row.nll),
                score_text(row.gain),
                _time(row.training_seconds),
                _time(row.sampling_seconds),
                f"{row.p_adjusted:.2g}",
            ),
        )
    console.print(table)
    for row in comparison.table:
        if row.labels:
            console.print(Text(f"{row.name}: {', '.join(row.labels)}"))
    differences = _table(
        "NLL differences, pair by pair", ["NLL of", "minus NLL of", "nats", "better", ""]
    )
    for d in comparison.differences:
        differences.add_row(
            *_texts(d.first, d.second, score_text(d.difference), d.better or "-", d.reason)
        )
    console.print(differences)
    console.print(
        Text(
            f"Not calibrated at a false-discovery rate of {comparison.false_discovery_rate:.0%}: "
            + (", ".join(comparison.not_calibrated) or "none")
        )
    )


def show_scan(scan: Scan) -> None:
    """Print the table of a scan, with widths over the prior and at the first fiducial point."""
    headings, rows = scan.rows(scan.places[:2])
    title = f"{scan.simulator} with {scan.engine}, median posterior widths"
    table = _table(title, [escape(heading) for heading in headings])
    for row in rows:
        table.add_row(*_texts(*row))
    _console().print(table)


def show_rounds(truncation: Truncation) -> None:
    """Print what every truncated round drew from, simulated and reused."""
    names = tuple(truncation.rounds[-1].next_box)
    counts = ["round", "share of prior", "simulated", "reused", "trained on", "loss"]
    table = _table("Truncated rounds", [*counts, *names, "share left"])
    for k, done in enumerate(truncation.rounds, start=1):
        boxes = [_interval(done.box[n]) if n in done.box else "whole prior" for n in names]
        numbers = (str(k), number(done.volume), f"{done.simulated:,}", f"{done.reused:,}")
        loss = "" if done.loss is None else f"{done.loss:.3f}"
        left = number(done.next_volume)
        table.add_row(*_texts(*numbers, f"{done.trained_on:,}", loss, *boxes, left))
    console = _console()
    console.print(table)
    why = "the box would not halve any more" if truncation.stopped == "converged" else "as asked"
    closed = len(truncation.rounds) - truncation.final
    last = ", then trained on more simulations inside the last box" if truncation.final else ""
    console.print(
        Text(
            f"Stopped after round {closed}: {why}{last}. The posterior holds for this "
            "observation only."
        )
    )


def show_record(record: Mapping[str, Any]) -> None:
    """Print what `describe` says about a simulator or an engine."""
    console = _console()
    console.print(Text.assemble((record["name"], "bold"), f"  {record['summary']}"))
    source = f"{record['distribution']} {record['distribution_version']}"
    console.print(
        Text(f"from {source.strip()}; {', '.join(record['references']) or 'no reference'}")
    )
    if record["kind"] == "engine":
        _print_fields("Settings (--setting name=value)", record["settings"])
        for name, values in record["presets"].items():
            listed = ", ".join(f"{k}={v}" for k, v in values.items())
            console.print(Text(f"  preset {record['name']}:{name}: {listed}"))
        return
    table = _table("Parameters", ["name", "role", "unit", "prior", "scale", "description"])
    for p in record["parameters"]:
        table.add_row(
            *_texts(p["name"], p["role"], p["unit"], p["prior_text"], p["scale"], p["description"])
        )
    console.print(table)
    for rule in record["constraints"]:
        console.print(Text(f"  constraint: {rule}"))
    data = record["observable"]
    unit = f" [{data['unit']}]" if data["unit"] else ""
    shape = " x ".join(map(str, data["shape"]))
    files = "reads observations from files" if record["reads_observations"] else "no file reader"
    console.print(Text(f"Data: {data['kind']} of {shape}{unit}; {files}"))
    if record["options"]:
        _print_fields("Options (--set name=value)", record["options"])
    if record["fiducials"]:
        points = _table("Fiducial points (--fiducial name)", ["name", "values"])
        for name, point in record["fiducials"].items():
            points.add_row(*_texts(name, ", ".join(f"{k} {number(v)}" for k, v in point.items())))
        console.print(points)
    budgets = _table("Budgets (--budget name)", ["name", "simulations", "pairs", "training"])
    for name, budget in record["budgets"].items():
        training = ", ".join(f"{k} {v}" for k, v in budget["training"].items())
        budgets.add_row(
            *_texts(name, f"{budget['simulations']:,}", f"{budget['pairs']:,}", training)
        )
    console.print(budgets)
    _print_files(console, record["data_files"])
    for line in record["citation"]:
        console.print(Text(f"Cite: {line}"))


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print what `doctor` found."""
    console = _console()
    machine = diagnosis.machine
    memory = machine.memory_available_gb
    threads = ", ".join(f"{k}={v}" for k, v in machine.threads.items()) or "no limit set"
    for line in (
        f"sbi-physics {diagnosis.version} (plugin contract {diagnosis.api_version})",
        f"Python {diagnosis.python} at {diagnosis.executable}",
        f"{machine.platform}, {machine.cpus} processors, threads: {threads}",
        f"memory available: {'unknown' if memory is None else f'{memory:g} GB'}, "
        f"disk free here: {machine.disk_free_gb:g} GB",
    ):
        console.print(Text(line))
    plugins = _table("Plugins", ["plugin", "distribution", "version"])
    for source in diagnosis.plugins:
        plugins.add_row(*_texts(source.plugin, source.distribution, source.version))
    console.print(plugins)
    parts = _table("Simulators and engines", ["kind", "name", "from", "works"])
    for part in diagnosis.components:
        works = Text("yes", "green") if part.works else Text("no", "bold red")
        parts.add_row(*_texts(part.kind, part.name, part.source), works)
    console.print(parts)
    _print_files(
        console,
        [
            {"name": f.name, "path": f.path, "found": f.found, "how_to_get": f.how_to_get}
            for f in diagnosis.files
        ],
    )
    for failure in diagnosis.failures:
        console.print(Text(f"\n{failure.plugin} ({failure.stage}): {failure.error}", "bold red"))
        console.print(Text(f"  {failure.remedy}"))
        if failure.traceback:
            console.print(Text(failure.traceback, "dim"))
    for part in diagnosis.components:
        if not part.works:
            console.print(Text(f"\n{part.kind} {part.name}: {part.error}", "bold red"))
            console.print(Text(part.traceback, "dim"))
    for remark in diagnosis.warnings:
        console.print(Text(f"Note: {remark}", "yellow"))
    verdict = "everything works" if diagnosis.is_healthy else "something is broken, see above"
    console.print(Text(verdict, "bold green" if diagnosis.is_healthy else "bold red"))


def number(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:.4g}"


def _time(seconds: float | None) -> str:
    from sbi_physics.study.stages import duration

    return "-" if seconds is None else duration(seconds)


def _interval(ends: tuple[float, float]) -> str:
    return f"[{number(ends[0])}, {number(ends[1])}]"


def _print_fields(title: str, fields: Iterable[Mapping[str, Any]]) -> None:
    table = _table(title, ["name", "type", "unit", "value", "accepted", "description"])
    for field in fields:
        value = field["value"] if "value" in field else field["default"]
        table.add_row(
            *_texts(
                field["name"],
                field["type"],
                field["unit"],
                "none" if value is None else str(value),
                _accepted(field),
                field["description"],
            )
        )
    _console().print(table)


def _accepted(field: Mapping[str, Any]) -> str:
    if field["choices"]:
        return ", ".join(map(str, field["choices"]))
    limits = []
    for key, sign in (
        ("minimum", "≥"),
        ("exclusive_minimum", ">"),
        ("maximum", "≤"),
        ("exclusive_maximum", "<"),
    ):
        if key in field:
            limits.append(f"{sign} {number(field[key])}")
    if field["optional"]:
        limits.append("or null")
    return " ".join(limits)


def _print_files(console: Console, files: Sequence[Mapping[str, Any]]) -> None:
    if not files:
        return
    table = _table("Optional data", ["what", "found", "path", "how to get it"])
    for file in files:
        found = Text("yes", "green") if file["found"] else Text("no", "yellow")
        advice = "" if file["found"] else file["how_to_get"]
        table.add_row(Text(file["name"]), found, Text(file["path"] or ""), Text(advice))
    console.print(table)


def _texts(*cells: str) -> list[Text]:
    # Text, not str: rich would read [m] as markup.
    return [Text(cell) for cell in cells]


def _table(title: str | None, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_ELSEWHERE)
