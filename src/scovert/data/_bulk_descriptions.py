"""Columns of tables that are no samples: descriptions, second measures, numbers of rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["ambiguous", "descriptions", "refuse_mixed_measures", "refuse_no_expression"]

_CHROMOSOME = frozenset(
    "chr chrom chromosome chromosomename chromosomescaffoldname genechr seqname seqnames".split()
)
_POSITION = frozenset({"start", "end"})
_OF_GENES = _CHROMOSOME | set(
    # positions and sizes
    "strand startposition endposition genestart geneend txstart txend transcriptionstartsite tss"
    " length width genelength transcriptlength txlength cdslength exonlength exoniclength"
    " efflength effectivelength medianlength meanlength averagelength avglength mergedlength"
    " exons exoncount numexons nexons gccontent genegccontent percentgc percentagegc"
    " percentagegenegccontent percentagegccontent mappability"
    # identifiers
    " geneid entrez entrezid entrezgene entrezgeneid entrezgeneaccession ncbigene ncbigeneid"
    " ncbiid hgncid mgiid taxid locusid"
    # results of limma, edgeR and DESeq2
    " basemean log2foldchange log2fc foldchange lfcse logfc logcpm aveexpr pvalue padj pval qvalue"
    " qval fdr adjpval adjpvalue bonferroni dispersion".split()
)
"""Names of columns that describe a gene, in numbers too, in small letters and digits alone."""
_AMBIGUOUS = _POSITION | set(
    "total totals sum sums rowsum rowsums mean means rowmean rowmeans meanexpression average avg"
    " averageexpression median stdev variance stat rank index position row number no".split()
)
"""The same, but samples may be called so: fractions of RNA, say. Shorter words may be initials."""
_UNNAMED = re.compile(r"unnamed\d+")
"""What pandas calls a column without a name, such as the numbers of rows."""
_BESIDE = re.compile(r"(?<=.)([(\[].*?[)\]]|(?<![a-z])(bp|kb|nt)$)", re.IGNORECASE)
"""Units and remarks in brackets."""
_FEWEST_ROWS, _MANY_ROWS = 50, 500
"""Rows: as many genes are not expressed alike or in steps of one; or all, and all differently."""

_MEASURES = frozenset(
    "count counts reads readcount readcounts numreads rawcount rawcounts estcounts fpkm rpkm tpm"
    " cpm rpm abundance length efflength coverage expectedcount umi umis norm normalized"
    " normalised log logs vst rlog".split()
)
_OF_MEASURES = _MEASURES | set("raw read est eff expected unique total gene uq".split())
"""Words that say what was measured of a sample, beside its name."""


def descriptions(labels: Collection[str]) -> list[str]:
    """Return which names of columns describe genes; start and end do beside a chromosome."""
    known = _OF_GENES
    if any(_plain(label) in _CHROMOSOME for label in labels):
        known = known | _POSITION
    return [
        label for label in labels if _plain(label) in known or _UNNAMED.fullmatch(_plain(label))
    ]


def _plain(label: str) -> str:
    """Return the small letters and digits of a name, without units and remarks."""
    return re.sub(r"[^a-z0-9]", "", _BESIDE.sub("", label).lower())


def ambiguous(labels: Sequence[str]) -> list[str]:
    """Return which names may be those of positions or summaries, or of samples."""
    return [label for label in labels if re.sub(r"[^a-z0-9]", "", label.lower()) in _AMBIGUOUS]


def refuse_mixed_measures(labels: Sequence[str], path: Path) -> None:
    """Refuse counts, lengths or FPKM of one sample beside each other, as if they were samples."""
    first: dict[str, tuple[str, frozenset[str]]] = {}
    for label in labels:
        name, measure = _measure_of(label)
        other, before = first.setdefault(name, (label, measure))
        if measure != before and (measure | before) & _MEASURES:
            raise ValueError(
                f"{path} has {other!r} and {label!r}, which look like two measures of one sample. "
                "One of each sample is accepted: keep the counts, or else the TPM or FPKM."
            )


def refuse_no_expression(values: NDArray, samples: Sequence[str], path: Path) -> None:
    """Refuse a sample that is the same in all genes, or numbers them.

    Parameters
    ----------
    values
        Numbers, shape ``(n_genes, n_samples)``.
    samples, path
        Their names, and the file.
    """
    if len(values) < _FEWEST_ROWS:
        return
    steps = np.diff(values, axis=0)
    is_same, is_index = (steps == 0).all(0) & (values[0] != 0), (steps == 1).all(0)
    is_distinct = _are_distinct(values)
    bad = np.flatnonzero(is_same | is_index | (is_distinct & ~is_distinct.all()))
    if len(bad):
        at = bad[0]
        what = (
            f"{values[0, at]:.6g} in all genes" if is_same[at] else "another number in each gene"
        )
        raise ValueError(
            f"{path} has a sample {samples[at]!r} with {what}, as identifiers or descriptions are "
            "and expression is not. Leave it out."
        )


def _are_distinct(values: NDArray) -> NDArray:
    """Return which samples have whole numbers above zero that are all different."""
    if len(values) < _MANY_ROWS:
        return np.zeros(values.shape[1], bool)
    ordered = np.sort(values, axis=0)
    is_whole = (values == np.rint(values)).all(0)
    return is_whole & (ordered[0] > 0) & (np.diff(ordered, axis=0) > 0).all(0)


def _measure_of(label: str) -> tuple[str, frozenset[str]]:
    """Return the name of a sample without words for measures, and those words."""
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"log(2|10|1p)", "log", label.lower()))
    name = " ".join(word for word in words if word not in _OF_MEASURES)
    return name, frozenset(words) & _OF_MEASURES
