"""What programs that count reads write into tables besides genes and samples."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.data._bulk_tables import Sheet

__all__ = [
    "STAR",
    "are_no_genes",
    "descriptions",
    "looks_like_position",
    "refuse_mixed_measures",
    "refuse_no_expression",
    "refuse_one_sample",
]

_HTSEQ = ("no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique")
STAR = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
_NO_GENES = frozenset((*_HTSEQ, *(f"__{name}" for name in _HTSEQ), *STAR))
"""Rows that count reads outside of genes; HTSeq before 0.6 wrote them without underscores."""

_CHROMOSOME = frozenset(
    {"chr", "chrom", "chromosome", "chromosomename", "genechr", "seqname", "seqnames"}
)
_POSITION = frozenset({"start", "end"})
_OF_GENES = _CHROMOSOME | set(
    # positions and sizes
    "strand startposition endposition genestart geneend txstart txend length width genelength"
    " transcriptlength exonlength exoniclength efflength effectivelength medianlength meanlength"
    " averagelength mergedlength exons exoncount numexons nexons gccontent percentgc"
    " percentagegc percentagegenegccontent percentagegccontent"
    # identifiers
    " geneid entrez entrezid entrezgene entrezgeneid ncbigene ncbigeneid ncbiid hgncid mgiid taxid"
    # results of limma, edgeR and DESeq2
    " basemean log2foldchange lfcse logfc logcpm stat aveexpr pvalue padj pval qvalue qval fdr"
    " adjpval adjpvalue bonferroni"
    # summaries of samples; shorter ones may be initials of a donor
    " total totals sum rowsum mean rowmean average avg median stdev variance".split()
)
"""Names of columns that describe a gene, in numbers too, in small letters and digits alone."""
_UNNAMED = re.compile(r"unnamed\d+")
"""What pandas calls a column without a name, such as the numbers of rows."""
_UNIT = re.compile(r"[\s._]*[(\[]?\b(bp|kb|nt|%)[)\]]?$", re.IGNORECASE)

_FEWEST_ROWS = 50
"""As many genes are not expressed alike, or in steps of one."""

_MEASURES = frozenset(
    "count counts reads readcount readcounts numreads rawcount rawcounts estcounts fpkm rpkm tpm"
    " cpm rpm abundance length efflength coverage expectedcount umi umis".split()
)
_OF_MEASURES = _MEASURES | {"raw", "read", "est", "eff", "expected", "normalized", "normalised"}
"""Words that say what was measured of a sample, beside its name."""

_ONE_SAMPLE = {
    "salmon": {"name", "length", "effectivelength", "tpm", "numreads"},
    "kallisto": {"target_id", "length", "eff_length", "est_counts", "tpm"},
    "RSEM": {"length", "effective_length", "expected_count", "tpm", "fpkm"},
    "StringTie": {"gene id", "gene name", "reference", "coverage", "fpkm", "tpm"},
    "the GDC": {"unstranded", "stranded_first", "stranded_second", "tpm_unstranded"},
    "Cufflinks": {"tracking_id", "locus", "fpkm", "fpkm_conf_lo"},
}
"""Columns of one sample, by the program that writes them."""


def are_no_genes(names: pd.Index) -> pd.Series:
    """Return which names are those of reads outside of genes, in HTSeq and STAR."""
    return names.isin(_NO_GENES)


def descriptions(labels: Collection[str]) -> list[str]:
    """Return which names of columns describe genes; start and end do beside a chromosome."""
    known = _OF_GENES
    if any(_plain(label) in _CHROMOSOME for label in labels):
        known = known | _POSITION
    return [
        label for label in labels if _plain(label) in known or _UNNAMED.fullmatch(_plain(label))
    ]


def _plain(label: str) -> str:
    """Return the small letters and digits of a name, without a unit behind it."""
    return re.sub(r"[^a-z0-9]", "", _UNIT.sub("", label).lower())


def looks_like_position(labels: Sequence[str]) -> list[str]:
    """Return which names may be those of positions or of samples."""
    return [label for label in labels if label.lower() in _POSITION]


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
    """Refuse a sample that is the same in all genes, or that counts the rows."""
    if len(values) < _FEWEST_ROWS:
        return
    steps = np.diff(values, axis=0)
    is_same = (steps == 0).all(0) & (values[0] != 0)
    is_index = (steps == 1).all(0)
    bad = np.flatnonzero(is_same | is_index)
    if len(bad):
        what = f"{values[0, bad[0]]:.6g} in all genes"
        if is_index[bad[0]]:
            what = f"{values[0, bad[0]]:.6g} to {values[-1, bad[0]]:.6g}, the number of the gene"
        raise ValueError(
            f"{path} has a sample {samples[bad[0]]!r} with {what}. That is no expression: leave "
            "it out."
        )


def _measure_of(label: str) -> tuple[str, frozenset[str]]:
    """Return the name of a sample without words for measures, and those words."""
    words = re.findall(r"[^\W_]+", label.lower())
    name = " ".join(word for word in words if word not in _OF_MEASURES)
    return name, frozenset(words) & _OF_MEASURES


def refuse_one_sample(sheet: Sheet) -> None:
    """Refuse what a program writes for one sample, with several measures in columns."""
    labels = {label.lower() for label in sheet.first}
    program = next((name for name, columns in _ONE_SAMPLE.items() if columns <= labels), None)
    if program is not None:
        raise ValueError(
            f"{sheet.path} is what {program} writes for one sample, in the columns "
            f"{', '.join(sheet.first[1:])}. A table of genes x samples is accepted: join the "
            "counts or the TPM of all samples. Of transcripts, tximport (R) or pytximport do so, "
            "and sum them to genes."
        )
    if "tracking_id" in labels and any(label.endswith("_conf_lo") for label in labels):
        raise ValueError(
            f"{sheet.path} is what Cuffdiff writes, with limits and a status beside the FPKM of "
            "every sample. A table of genes x samples is accepted: keep gene_short_name and the "
            "columns that end in _FPKM."
        )
