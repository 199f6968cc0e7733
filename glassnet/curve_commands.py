"""What `glassnet lr-range` and `glassnet compare` do once their words are understood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from torch import nn

from glassnet._errors import UsageError
from glassnet.comparison import Comparison, compare
from glassnet.data.examples import Dataset
from glassnet.rate_search import learning_rate_range
from glassnet.training.checkpoint import write_text
from glassnet.training.config import TrainConfig
from glassnet.training.learning_rate_range import LearningRateRange
from glassnet.training.own_loss import LossFunction
from glassnet.views.comparison import render_comparison
from glassnet.views.learning_rate_range import render_range

NOT_IN_TEST = {
    "learning_rate": "the test raises it itself, from --low to --high",
    "epochs": "the test takes --steps steps",
    **dict.fromkeys(
        ("schedule", "warmup", "plateau_patience"), "the test's rate has a course of its own, from --low to --high"
    ),
    **dict.fromkeys(
        ("patience", "validate_every", "ema", "on_nan", "checkpoint_s"), "the test evaluates and saves nothing"
    ),
}
"""Fields of the config that would be ignored, and why."""


def check_fields(names: Iterable[str]) -> None:
    """Refuse a field of the config that the range test has no use for."""
    for name in names:
        if name in NOT_IN_TEST:
            raise UsageError(f"--set {name} has no effect here: {NOT_IN_TEST[name]}. Leave it out.")


def check_page(out: Path) -> None:
    """Refuse a place where no page can be written, before the work and not after it."""
    if out.is_dir() or not out.absolute().parent.is_dir():
        reason = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise UsageError(f"--out names a page to write, such as page.html; got {out}: {reason}.")


def page_line(out: Path) -> str:
    """Return the line that says where the page is."""
    return f"Page           {out}  (open it in any browser: {out.resolve().as_uri()})"


def search_rate(
    network: nn.Module, data: Dataset, config: TrainConfig, loss: LossFunction | None, quiet: bool, **bounds: Any
) -> LearningRateRange:
    """Run the test, with a bar on the error stream where that is a terminal; `bounds` as `learning_rate_range`'s."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("Raising the rate", total=bounds["num_steps"])
        return learning_rate_range(
            network, data, config, loss=loss, on_step=lambda done: bar.update(task, completed=done), **bounds
        )


def write_range(result: LearningRateRange, model_name: str, data_name: str, out: Path) -> None:
    """Write the test's page."""
    write_text(out, render_range(result, model_name, data_name))


def compare_runs(runs: Sequence[Path], sort: str, out: Path) -> Comparison:
    """Compare run folders and write the page."""
    check_page(out)
    comparison = compare(runs, sort=sort)
    write_text(out, render_comparison(comparison))
    return comparison
