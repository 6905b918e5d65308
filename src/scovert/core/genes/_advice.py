"""What to do about names of genes that are not those of a model."""

from __future__ import annotations

import pandas as pd

from scovert.core.genes._kinds import PREFIX, kind_of_genes
from scovert.core.genes._names import GeneNames

__all__ = ["SAME_NAMES", "advice_on_duplicates", "advice_on_names"]

SAME_NAMES = "Pass an AnnData with all of them, in any order and named alike."
"""What to do about names that are of no known kind."""

_CODE = {
    "": "",
    "versions": r".str.replace(r'[._].*', '', regex=True)",
    "symbols": r".str.extract(r'(ENS[A-Z]*G\d+)', expand=False)",
    "identifiers": (
        r".str.replace(r'[|_:. (-]*ENS[A-Z]*G\d+(\.\d+(?!\w))?[|_:. )-]*|\|\d+$| \(\d+\)$', '', "
        "regex=True)"
    ),
    "prefixes": f".str.replace(r'{PREFIX}', '', regex=True)",
}
"""How a user cuts from names what GeneNames does."""


def advice_on_duplicates(var: pd.DataFrame, name: str, what: str = "gene") -> str:
    """Say how to make names of genes unique; renamed, the counts of all but one would be lost.

    Parameters
    ----------
    var
        The ``var`` of the table.
    name
        What the table is called in messages.
    what
        What a column is called.
    """
    if name == "bulk":
        sums = "AnnData(bulk.to_df().T.groupby(level=0).sum().T, obs=bulk.obs)"
        return f"add up the values of the same gene, `bulk = {sums}`"
    texts = (key for key, kind in var.dtypes.items() if not pd.api.types.is_numeric_dtype(kind))
    unique = next((key for key in texts if var[key].notna().all() and var[key].is_unique), None)
    kept = (
        "" if unique is None else f"take others, `{name}.var_names = {name}.var[{unique!r}]`, or "
    )
    sums = "scipy.sparse.csr_matrix((np.ones(len(codes), 'f4'), (range(len(codes)), codes)))"
    return (
        f"{kept}add up the counts of the same {what}, "
        f"`codes, genes = pd.factorize({name}.var_names)` and "
        f"`{name} = AnnData({name}.X @ {sums}, obs={name}.obs, var=pd.DataFrame(index=genes))`"
    )


def advice_on_names(var: pd.DataFrame, genes: pd.Index, name: str) -> str:
    """Say what the genes of a table are called, and how to call them as others are.

    Parameters
    ----------
    var
        The ``var`` of the table.
    genes
        The names that are looked for.
    name
        What the table is called in messages.
    """
    own = var.index.astype(str)
    kinds = kind_of_genes(own), kind_of_genes(genes)
    found = f"`{name}.var_names` are {kinds[0]}, such as " + ", ".join(map(repr, own[:2]))
    if kinds[0] != kinds[1]:
        found += f", and the genes of the model are {kinds[1]}"
    return f"{found}. {_way_out(GeneNames.of(var), genes, name)}"


def _way_out(own: GeneNames, genes: pd.Index, name: str) -> str:
    """Say which names of a table are the ones looked for."""
    n_plain = int(genes.isin(own.names).sum())
    n_found = {s.source: int(genes.isin(s.names).sum()) for s in own.spellings}
    source = max(n_found, key=n_found.get, default=None)
    if source is not None and n_found[source] > n_plain:
        place, _, cut = source.partition(" without ")
        where = f"`{name}.{place}`{f' without {cut}' if cut else ''}"
        return (
            f"{where} has {n_found[source]} of them: set `{name}.var_names = "
            f"{name}.{place}{_CODE[cut]}`, and add up the counts of genes of one name."
        )
    upper = genes.str.upper().isin(own.names.str.upper())
    if upper.sum() > n_plain:
        return "Names differ in upper and lower case: are they of the same species?"
    return SAME_NAMES
