"""What a study prints."""

import io
import re

import pytest
from rich.console import Console

from polarjax.reports import study_page, table

from .fabricated_study import GAINS


def test_the_printed_table_has_a_row_an_entry(written):
    folder, summary = written
    stream = io.StringIO()
    table.print_study(summary, Console(width=120, file=stream))
    text = stream.getvalue()
    for name in GAINS:
        assert re.search(rf"^ +{name} +0\.\d{{3}}", text, re.MULTILINE)
    assert "failed: minimal, seed 7: exit code 3" in text
    assert text.endswith(f"report: {folder}/study.html\n")


@pytest.mark.parametrize(
    ("width", "shown", "left_out"), [(78, "over seeds", "95 %"), (200, "training", None)]
)
def test_a_narrow_terminal_gets_fewer_columns_and_every_number_whole(written, width, shown, left_out):
    summary, stream = written[1], io.StringIO()
    table.print_study(summary, Console(width=width, file=stream))
    text = re.sub(r"\s+", " ", stream.getvalue())
    assert "…" not in text and shown.split()[1 if " " in shown else 0] in text
    assert left_out is None or left_out not in text
    entry = next(entry for entry in summary["entries"] if entry["difference"])
    assert " ".join(study_page.difference(entry["difference"])[:3]) in text
