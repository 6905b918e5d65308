"""Tables in files, text first: what separates their entries, and whether they begin with names."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes import NO_NAMES

__all__ = ["Sheet", "as_numbers", "has_words", "meaning_of", "open_sheet", "read_numbers"]

_SEPARATORS = "\t;, "
"""The first one is taken of those that suit alike: commas and spaces also stand inside numbers."""
_N_HEAD, _N_TAIL = 50, 10
"""First rows, by which the separator is found, and last ones, where HTSeq has its own five."""
_ABSENT = NO_NAMES
_NUMBER = re.compile(r"[+-]?(\d[\d.,'\u2019\u00a0\u202f ]*|\.\d+)(e[+-]?\d+)?\s*%?", re.IGNORECASE)
"""What is meant as a number, also with commas, percent signs or spaces."""
_QUOTED = re.compile(r'"((?:[^"]|\\"|"")*)"')
"""An entry in quotes, and quotes within doubled or, by R, behind a backslash."""
_MOST = 0.9
"""Share of words in a column of words; a sample with gaps in words has fewer."""
_PREAMBLE = re.compile(r'\A(?:#1\.[23][^\n]*\n([^\n]*)|"?sep=."?)\n')
"""What stands before a table in .gct files, version and size, and in files of Excel."""
_GEO = re.compile(r'\A\s*"?!(Series|Sample|series_matrix)_')
_MEANING = {
    "genes": "gene genes geneid genename genesymbol symbol hugosymbol hgncsymbol ensembl ensemblid"
    " ensemblgeneid feature featureid targetid",
    "samples": "sample samples sampleid samplename donor patient subject individual",
    "names": "id name index rownames unnamed:0",
}
"""Words above the first column, by what the names below them are."""


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes
    ----------
    path
        Where it comes from.
    text
        Its lines, without comments and empty ones.
    separator
        What is between two entries.
    first
        Entries of the first row, one for every column.
    names
        Entries of the first column in the first and the last rows below.
    starts_with_numbers
        Whether the first row has numbers wherever the others do, and a name before them, so that
        it may be one of them.
    """

    path: Path
    text: str
    separator: str
    first: list[str]
    names: list[str]
    starts_with_numbers: bool

    def read(self, *, has_names: bool, as_text: Collection[int] = (0,)) -> pd.DataFrame:
        """Return the rows, without the first one if it `has_names`, in columns that are numbered.

        Columns `as_text` and those with anything but numbers hold strings. Columns without a name
        and without entries are left out.
        """
        text = self._below_first() if has_names else self.text
        try:
            frame = pd.read_csv(
                io.StringIO(text),
                sep=self.separator,
                header=None,
                dtype=dict.fromkeys(as_text, str),
                quoting=_quoting(self.separator),
                skipinitialspace=True,
                na_filter=False,  # a gene or a sample may be called NA
                low_memory=False,
            )
        except ValueError as error:
            raise _unreadable(self.path, str(error)) from error
        if len(frame) != text.rstrip("\n").count("\n") + 1:
            raise _unreadable(self.path, _open_quote(frame))
        for column in frame.columns[[not _holds_numbers(kind) for kind in frame.dtypes]]:
            entries = frame[column].astype(str).str.strip()
            entries = entries.map(partial(_unquoted, separator=self.separator))
            numbers = pd.to_numeric(entries, errors="coerce")
            is_text = column in as_text or numbers.isna().any()
            frame[column] = entries if is_text else numbers
            if (entries == "").all() and not (has_names and self.first[column]):
                frame = frame.drop(columns=column)
        if 0 not in frame:
            raise _unreadable(self.path, "its first column is empty")
        return frame

    def _below_first(self) -> str:
        rows = _rows(self.text, self.separator)
        next(rows)
        return self.text.split("\n", rows.line_num)[rows.line_num]


def open_sheet(path: Path) -> Sheet:
    """Find out how a file is to be read: the separator that makes most columns of numbers."""
    text = _text_of(path)
    found = [_head(text, separator) for separator in _SEPARATORS]
    heads = [head for head in found if head is not None]
    if not heads:
        raise _unreadable(path, _fault(text))
    head = max(heads, key=lambda head: (len(head.numeric), head.is_exact))
    first, *rows = head.rows
    below = [first[column] for column in head.numeric]
    text = _cleaned(text, head)
    rows += _cut("\n".join(text.rsplit("\n", _N_TAIL)[1:]), head.separator)
    return Sheet(
        path,
        text,
        head.separator,
        first,
        [row[0] for row in rows],
        starts_with_numbers=bool(first[0]) and _are_numbers(below),
    )


def read_numbers(path: Path, *, has_names: bool | None = None) -> pd.DataFrame:
    """Read a table with names in its first row and column; empty entries are NaN.

    `has_names` is `None` if there may be no first row of names: columns are numbered then.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Name a table, such as a .csv file.")
    sheet = open_sheet(path)
    if has_names is None:
        has_names = not sheet.starts_with_numbers
    frame = sheet.read(has_names=has_names)
    labels = pd.Index([sheet.first[c] if has_names else str(c) for c in frame.columns[1:]])
    rows = pd.Index(frame.pop(0)).rename(None)
    return pd.DataFrame(as_numbers(frame, rows, labels, path, may_lack=True), rows, labels)


def as_numbers(
    body: pd.DataFrame, rows: pd.Index, columns: pd.Index, path: Path, *, may_lack: bool = False
) -> NDArray:
    """Return the entries as numbers, or refuse the first that is none; what lacks is NaN."""
    is_text = np.array([not _holds_numbers(kind) for kind in body.dtypes], bool)
    numbers, words = body.copy(), body.loc[:, is_text]
    if words.shape[1]:
        numbers[words.columns] = words.apply(pd.to_numeric, errors="coerce")
    values = numbers.to_numpy(float)
    is_bad = ~np.isfinite(values)
    if may_lack and is_bad.any():
        is_bad &= ~body.map(lambda entry: str(entry).lower() in _ABSENT).to_numpy(bool)
    if is_bad.any():
        _refuse_entry(body, is_bad, (rows, columns), path)
    return values


def has_words(column: pd.Series) -> bool:
    """Whether nearly all entries of a column of text are words, and not numbers."""
    is_word = [_is_word(entry) for entry in column]
    n_there = sum(entry.lower() not in _ABSENT for entry in column)
    return n_there > 0 and sum(is_word) >= _MOST * n_there


def meaning_of(name: str) -> str | None:
    """Return what a word above the first column says of it: genes, samples or just names."""
    word = re.sub(r"[\s._#-]", "", name).lower()
    return next((what for what, words in _MEANING.items() if word in words.split()), None)


@dataclass(frozen=True)
class _Head:
    """The first rows as a separator cuts them, and which columns hold numbers below the first."""

    separator: str
    rows: list[list[str]]
    is_exact: bool
    numeric: list[int]
    n_comments: int


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} of {error.encoding}: save it as UTF-8, in Excel as 'CSV UTF-8'"
        if content.startswith(b"PK"):
            reason = "it is a spreadsheet or an archive: save it as .csv"
        raise _unreadable(path, reason) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, str(error)) from error
    if "\0" in text:
        raise _unreadable(path, "it is no text")
    return _without_preamble(text.replace("\r\n", "\n").replace("\r", "\n"))


def _without_preamble(text: str) -> str:
    """Leave out what stands before a table, and rows below its names that describe samples."""
    preamble = _PREAMBLE.match(text)
    if preamble is None:
        return text
    sizes = (preamble[1] or "").split()  # of .gct 1.3: genes, samples, and what describes each
    n_described = int(sizes[3]) if len(sizes) == 4 and sizes[3].isdigit() else 0
    lines = text[preamble.end() :].split("\n", n_described + 1)
    return "\n".join([lines[0], *lines[n_described + 1 :]])


def _head(text: str, separator: str) -> _Head | None:
    """Cut the first rows, if that makes a rectangle with two columns or more."""
    rows = _cut(text, separator)
    if not rows:
        return None
    width = _width(rows)
    n_comments = _n_comments(rows)
    rows = [row for row in rows[n_comments:] if not _is_comment(row, width)]
    first, body = (rows[0], rows[1:]) if rows else ([], [])
    if not body or width < 2 or any(len(row) != width for row in body):
        return None
    names = _with_corner(first, body)
    if names is None:
        return None
    columns = list(zip(*body, strict=True))
    numeric = [i for i in range(1, width) if _are_numbers(columns[i])]
    return _Head(separator, [names, *body], names == first, numeric, n_comments)


def _quoting(separator: str) -> int:
    """Return how entries are quoted: between tabs none needs to be, and many open no quote."""
    return csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL


def _rows(text: str, separator: str) -> csv.reader:
    return csv.reader(
        io.StringIO(text),
        delimiter=separator,
        quoting=_quoting(separator),
        skipinitialspace=True,
    )


def _unquoted(entry: str, separator: str) -> str:
    """Take the quotes off an entry between tabs that begins and ends with one."""
    is_quoted = _QUOTED.fullmatch(entry) if separator == "\t" else None
    return re.sub(r'[\\"]"', '"', is_quoted[1]).strip() if is_quoted else entry


def _open_quote(frame: pd.DataFrame) -> str:
    """Say which entry runs over the end of its line."""
    entries = frame.select_dtypes(exclude="number").astype(str).to_numpy().ravel()
    entry = next((entry for entry in entries if "\n" in entry), "").split("\n")[0]
    return f"a quote before {entry[:40]!r} does not end in its line: take it off, or end it there"


def _cut(text: str, separator: str) -> list[list[str]]:
    lines = islice(_rows(text, separator), _N_HEAD)
    try:
        rows = [[_unquoted(entry.strip(), separator) for entry in row] for row in lines]
    except csv.Error:  # an entry is longer than any name: not this separator
        return []
    return [row for row in rows if any(row)]


def _width(rows: list[list[str]]) -> int:
    plain = [row for row in rows if not row[0].startswith("#")]
    return len((plain or rows)[-1])


def _n_comments(rows: list[list[str]]) -> int:
    """Count the comments at the top; the last of them may be names, with numbers below."""
    n = next((i for i, row in enumerate(rows) if not row[0].startswith("#")), 0)
    return n - (n > 0 and any(map(_NUMBER.fullmatch, rows[n][1:])))


def _is_comment(row: list[str], width: int) -> bool:
    """Tell a comment from a row that begins with #, which has an entry for every column."""
    return row[0].startswith("#") and len(row) != width


def _with_corner(first: list[str], body: list[list[str]]) -> list[str] | None:
    """Return the first row with an entry for every column, if it can be told which is which."""
    width = len(body[0])
    if len(first) > width:
        return None if any(first[width:]) else first[:width]
    n_blank = min(width - max(i + 1 for i, entry in enumerate(row) if entry) for row in body)
    if len(first) == width - 1 and first[0] and not meaning_of(first[0]):
        return ["", *first]  # R leaves out the name of the first column
    n_missing = width - len(first)
    return first + [""] * n_missing if n_missing <= n_blank else None


def _cleaned(text: str, head: _Head) -> str:
    """Leave out empty lines and comments."""
    blank, width = head.separator + ' "', len(head.rows[0])
    lines = [line for line in text.split("\n") if line.strip(blank)][head.n_comments :]

    def is_row(line: str) -> bool:
        return not line.startswith("#") or not _is_comment(_cut(line, head.separator)[0], width)

    return "\n".join(filter(is_row, lines))


def _fault(text: str) -> str:
    """Say why no separator makes a table."""
    if _GEO.match(text):
        return (
            "it is a series matrix of GEO, with the study above its table: take the counts among "
            "the supplementary files, or the rows between '!series_matrix_table_begin' and its end"
        )
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    line = lines[0] if lines else ""
    separator = max(_SEPARATORS[:3], key=line.count)
    rows = _cut("\n".join(lines), separator)
    if separator not in line or len(rows) < 2:
        return f"its first row is {line.strip()[:40]!r}"
    first, width = rows[0], max(map(len, rows[1:]), key=[len(row) for row in rows].count)
    odd = next((i for i, row in enumerate(rows[1:], 2) if len(row) != width), None)
    if odd is None:
        return (
            f"{len(first)} names in the first row, and {width} entries in the others: every "
            "column needs one name"
        )
    return f"row {odd} has {len(rows[odd - 1])} entries, and others have {width}"


def _unreadable(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not a table that can be read ({reason}). Tables have names in the first row "
        "and column and numbers besides, separated by tabs, commas or semicolons."
    )


def _refuse_entry(
    body: pd.DataFrame, is_bad: NDArray, names: tuple[pd.Index, pd.Index], path: Path
) -> None:
    column = is_bad.sum(axis=0).argmax()  # one of words rather than one with a single bad entry
    row = is_bad[:, column].argmax()
    entry = str(body.iloc[row, column])
    place = f"{entry!r} (row {names[0][row]!r}, column {names[1][column]!r}"
    advice = "leave out rows and columns with anything else, and fill in what is missing"
    if _NUMBER.fullmatch(entry):
        advice = (
            "write them with a point for decimals, without commas or other signs for thousands "
            "and without per cent"
        )
    if is_bad.all():
        raise ValueError(
            f"{path} has no numbers: its first entry is {place}). Only finite numbers are "
            f"accepted: {advice}."
        )
    raise ValueError(
        f"{path} holds {place}; {is_bad.sum()} such entries in {is_bad.any(axis=0).sum()} "
        f"columns). Only finite numbers are accepted: {advice}."
    )


def _are_numbers(entries: Sequence[str]) -> bool:
    """Whether there are numbers, and nothing else besides missing entries."""
    there = [entry for entry in entries if entry.lower() not in _ABSENT]
    return bool(there) and all(_NUMBER.fullmatch(entry) for entry in there)


def _is_word(entry: str) -> bool:
    is_there = entry.lower() not in _ABSENT and not _NUMBER.fullmatch(entry)
    return is_there and any(letter.isalpha() for letter in entry)


def _holds_numbers(kind: np.dtype) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
