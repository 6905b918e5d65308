"""A tree of the taxa, and UniFrac distances by it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anndata import AnnData

from scovert.core._checks import check_genes, check_layer
from scovert.core._count_checks import check_counts
from scovert.core._counts import as_csr, get_counts
from scovert.core._words import SAMPLES
from scovert.core.trees import branches_of, check_branches, read_branches, read_newick
from scovert.core.trees import unifrac as unifrac_of

if TYPE_CHECKING:
    from skbio import TreeNode

__all__ = ["tree", "unifrac"]


def tree(adata: AnnData, tree: str | os.PathLike | TreeNode, *, key_added: str = "tree") -> None:
    """Add the branches of a rooted tree above each taxon; taxa are matched to tips by name.

    Parameters
    ----------
    adata
        Samples with taxa as variables.
    tree
        File in Newick format, also compressed by gzip, its text, or a tree of scikit-bio. Tips
        that are no taxa are left out.
    key_added
        Writes ``varm[key_added]`` (taxa x branches, 1 where a branch leads to a taxon) and
        ``uns[key_added]["length"]``.

    Raises
    ------
    ImportError
        If scikit-bio is not installed: ``pip install 'scovert[tree]'``.
    ValueError
        If taxa are not in the tree, names occur twice, or lengths are missing or negative.

    Examples
    --------
    >>> import numpy as np
    >>> import scovert
    >>> from anndata import AnnData
    >>> adata = AnnData(np.ones((2, 3)))
    >>> adata.var_names = ["a", "b", "c"]
    >>> scovert.pp.tree(adata, "((a:1,b:1):2,c:3);")
    >>> adata.varm["tree"].shape
    (3, 4)
    """
    check_genes(adata, words=SAMPLES)
    branches_of(read_newick(tree), adata.var_names).write(adata, key_added)


def unifrac(
    adata: AnnData,
    *,
    weighted: bool = False,
    tree_key: str = "tree",
    layer: str | None = None,
    key_added: str | None = None,
) -> None:
    """Add UniFrac distances of all samples, exact :cite:p:`Lozupone05`.

    For rarefied tables and other kinds of UniFrac there is ``skbio.diversity``, whose matrices
    :func:`distances` takes.

    Parameters
    ----------
    adata
        Samples with a tree that :func:`tree` added.
    weighted
        By abundance, normalised :cite:p:`Lozupone07`, or by presence alone.
    tree_key
        Slots of the tree.
    layer
        Layer with the raw counts; `None` for ``adata.X``.
    key_added
        Slot of ``adata.obsp`` to write; `None` for ``"weighted_unifrac"`` or
        ``"unweighted_unifrac"``.

    Notes
    -----
    Needs memory for samples x branches in double precision, and time for pairs x branches: of
    1,000 samples and 6,000 branches about 10 s weighted, less than 1 s unweighted.
    """
    where = check_layer(adata, layer)
    check_branches(adata, tree_key)
    counts = get_counts(adata, layer)
    check_counts(counts, where, adata, words=SAMPLES)
    key = key_added or ("weighted_unifrac" if weighted else "unweighted_unifrac")
    branches = read_branches(adata, tree_key)
    adata.obsp[key] = unifrac_of(as_csr(counts), branches, weighted=weighted)
