"""What programs that count reads write into tables besides genes and samples."""

from __future__ import annotations

import pandas as pd

from scovert.data._bulk_tables import Sheet

__all__ = ["STAR", "are_no_genes", "refuse_one_sample"]

_HTSEQ = ("no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique")
STAR = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
_NO_GENES = frozenset((*_HTSEQ, *(f"__{name}" for name in _HTSEQ), *STAR))
"""Rows that count reads outside of genes; HTSeq before 0.6 wrote them without underscores."""

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
