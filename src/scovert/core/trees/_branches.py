"""A tree as the branches above each taxon, in slots of an AnnData."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

__all__ = ["Branches", "check_branches", "read_branches"]


class Branches(NamedTuple):
    """Branches of a rooted tree.

    Attributes
    ----------
    above
        1 where a branch leads to a taxon, CSR of shape ``(n_taxa, n_branches)``.
    length
        Of each branch, 0 or more, in the unit of the tree, shape ``(n_branches,)``.
    """

    above: sp.csr_matrix
    length: NDArray

    @classmethod
    def of_parents(cls, parent: ArrayLike, length: ArrayLike, taxa: ArrayLike) -> Self:
        """Make branches of nodes and their parents.

        Parameters
        ----------
        parent
            Number of the node above each node, -1 for the root.
        length
            Length of the branch above each node; of the root it counts for nothing.
        taxa
            Number of the node of each taxon, in the order of the result.

        Returns
        -------
        The branches of a positive length above the taxa.
        """
        parent, length, taxa = np.asarray(parent), np.asarray(length, float), np.asarray(taxa)
        rows, columns = [], []
        row, node = np.arange(len(taxa)), taxa
        while len(node):  # one step towards the root for all taxa at once
            is_branch = parent[node] >= 0
            row, node = row[is_branch], node[is_branch]
            rows.append(row)
            columns.append(node)
            node = parent[node]
        row, column = np.concatenate(rows), np.concatenate(columns)
        ones = np.ones(len(row), np.float32)
        above = sp.csr_matrix((ones, (row, column)), (len(taxa), len(parent)))
        used = np.flatnonzero((np.bincount(column, minlength=len(parent)) > 0) & (length > 0))
        return cls(above[:, used], length[used])

    def write(self, adata: AnnData, key: str) -> None:
        """Write into ``varm[key]``, which follows the taxa, and ``uns[key]["length"]``."""
        adata.varm[key] = self.above
        adata.uns[key] = {"length": self.length}


def check_branches(adata: AnnData, key: str) -> None:
    """Refuse slots that are not there, or hold no branches with lengths.

    Raises
    ------
    KeyError
        If a slot is missing.
    ValueError
        If the slots do not belong together.
    """
    advice = f"Write them with `scovert.pp.tree(adata, 'tree.nwk', key_added={key!r})`."
    if key not in adata.varm:
        raise KeyError(
            f"`tree_key={key!r}` is not in `adata.varm` (there are: {list(adata.varm)}), where "
            f"the branches above each taxon are. {advice}"
        )
    record = adata.uns.get(key, {})
    if "length" not in record:
        raise KeyError(f"`adata.uns[{key!r}]` has no 'length' of the branches. {advice}")
    length, n_branches = np.asarray(record["length"], float), adata.varm[key].shape[1]
    if length.shape != (n_branches,):
        raise ValueError(
            f"`adata.uns[{key!r}]['length']` has shape {length.shape}, and `adata.varm[{key!r}]` "
            f"holds {n_branches} branches. {advice}"
        )
    if not (np.isfinite(length).all() and (length >= 0).all() and length.any()):
        raise ValueError(
            f"`adata.uns[{key!r}]['length']` holds lengths that are negative, not finite, or all "
            f"zero. Lengths of branches are 0 or more. {advice}"
        )


def read_branches(adata: AnnData, key: str) -> Branches:
    """Return the branches that `check_branches` has looked at."""
    above = sp.csr_matrix(adata.varm[key], dtype=np.float32)
    length = np.asarray(adata.uns[key]["length"], float)
    used = np.flatnonzero((np.asarray(above.sum(0)).ravel() > 0) & (length > 0))
    return Branches(above[:, used], length[used])
