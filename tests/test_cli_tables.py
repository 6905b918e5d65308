"""Tables and groups of types that `scovert deconvolve` takes besides the samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scovert.cli._tables import group_types, read_groups, read_measured, read_sizes

MEASURED = pd.DataFrame(
    {"T, CD4": [0.5, 0.25, np.nan], "0": [0.125, np.nan, 0.5], "T; 2": [0.25, 0.5, 0.0]},
    ["1.10", "001", "NA"],
)
SIZES = {"T, CD4": 1.0, "0": 2.5, "NA": 3.0}

FORMS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "commas": lambda t: t.to_csv().encode(),
    "semicolons": lambda t: t.to_csv(sep=";").encode(),
    "tabs": lambda t: t.to_csv(sep="\t", index_label="sample").encode(),
    "of R": lambda t: t.to_csv(sep=" ", index_label=False, na_rep="NA").encode(),
    "of Excel": lambda t: t.to_csv(sep="\t", lineterminator="\r\n").encode("utf-16"),
    "a mark": lambda t: t.to_csv().encode("utf-8-sig"),
    "gaps": lambda t: t.to_csv(na_rep="n/a").encode(),
    "comments": lambda t: b"# flow cytometry, 2024\n" + t.to_csv().encode() + b",,,\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_measured_fractions(form: str, tmp_path: Path) -> None:
    (tmp_path / "measured.txt").write_bytes(FORMS[form](MEASURED))
    pd.testing.assert_frame_equal(read_measured(tmp_path / "measured.txt"), MEASURED)


def test_a_column_that_was_not_measured_stays(tmp_path: Path) -> None:
    """Also the last one, whose entries are empty."""
    table = MEASURED.assign(B=np.nan)
    for label in (None, "sample", "x"):
        table.to_csv(tmp_path / "measured.csv", index_label=label)
        pd.testing.assert_frame_equal(read_measured(tmp_path / "measured.csv"), table)


def test_types_that_are_numbers(tmp_path: Path) -> None:
    """Clusters, below a word that says nothing."""
    table = MEASURED.set_axis(["0", "1", "10"], axis=1)
    table.to_csv(tmp_path / "measured.csv", index_label="tube")
    pd.testing.assert_frame_equal(read_measured(tmp_path / "measured.csv"), table)


REFUSED_MEASURED = {
    "decimal commas": (MEASURED.to_csv(sep=";", decimal=","), "'0,25' .*a point for decimals"),
    "per cent": ("sample,T,B\na,50%,20%\n", "'50%' .*without per cent"),
    "words": (MEASURED.assign(method="flow").to_csv(), "holds 'flow' .*column 'method'; 3 such"),
    "infinite": ("sample,T,B\na,inf,1\n", "holds 'inf'"),
    "short": ("sample,T,B\na,1,0\nb,1\n", "row 3 has 2 entries, and others have 3"),
    "empty": ("", "is not a table that can be read"),
}


@pytest.mark.parametrize("case", REFUSED_MEASURED)
def test_what_is_no_table_of_fractions(case: str, tmp_path: Path) -> None:
    text, match = REFUSED_MEASURED[case]
    (tmp_path / "measured.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_measured(tmp_path / "measured.csv")


@pytest.mark.parametrize("form", ["commas", "semicolons", "tabs", "of Excel", "a mark"])
@pytest.mark.parametrize("header", ["rna", "0", None])
def test_sizes(form: str, header: str | None, tmp_path: Path) -> None:
    """With a first row of names, with that of a series of pandas, or without one."""
    text = FORMS[form](pd.DataFrame({header or "x": SIZES}))
    if header is None:
        encoding = "utf-16" if form == "of Excel" else "utf-8-sig"
        text = text.decode(encoding).split("\n", 1)[1].encode(encoding)
    (tmp_path / "sizes.txt").write_bytes(text.replace(b"sample\t0", b"\t0"))
    assert read_sizes(str(tmp_path / "sizes.txt")) == SIZES


def test_groups_keep_their_text() -> None:
    assert read_groups([" T = a, b=c", "B=d"]) == {"T": " a, b=c", "B": "d"}
    assert read_groups(None) == {}
    assert group_types({}, ["a"]) is None
    assert group_types({"T": " a, b=c"}, ["a, b=c"]) == {"T": ["a, b=c"]}


GROUPS = {
    "a,b": ["a", "b"],
    " a , b ,": ["a", "b"],
    "T, CD4,a": ["T, CD4", "a"],
    "a,T, CD4, naive,b": ["a", "T, CD4, naive", "b"],
    "T, CD4": ["T, CD4"],
    "c,T, CD8": ["c", "T", "CD8"],
    "T,CD4": ["T", "CD4"],
    "": [],
}


@pytest.mark.parametrize("text", GROUPS)
def test_the_longest_type_is_taken(text: str) -> None:
    known = ["a", "b", "T", "T, CD4", "T, CD4, naive"]
    assert group_types({"x": text}, known) == {"x": GROUPS[text]}
