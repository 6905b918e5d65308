"""Trees in Newick format, read by scikit-bio and matched to taxa by name."""

from __future__ import annotations

import gzip
import io
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import caller_level, some_of
from scovert.core._words import counted
from scovert.core.trees._branches import Branches

if TYPE_CHECKING:
    from skbio import TreeNode

__all__ = ["branches_of", "read_newick"]

GZIP = b"\x1f\x8b"  # how a compressed file begins
_QUOTED = r"'(?:[^']|'')*'|\[[^]]*\]"  # names in quotes, and comments


def read_newick(tree: str | os.PathLike | TreeNode) -> TreeNode:
    """Read a tree.

    Parameters
    ----------
    tree
        A file in Newick format, also compressed by gzip, its text, or a tree of scikit-bio.

    Raises
    ------
    ImportError
        If scikit-bio is not installed.
    ValueError
        If it is no tree, or several.
    """
    try:
        from skbio import TreeNode
    except ImportError as error:
        raise ImportError(
            "A tree is read by scikit-bio, which is not installed. Install it: "
            "`pip install 'scovert[tree]'`."
        ) from error
    if isinstance(tree, TreeNode):
        return tree
    text = str(tree).strip()
    is_text = text.startswith("(") or text.endswith(";")  # a comment may come first
    text = text if is_text else _text_of(Path(tree))
    if text.lstrip().upper().startswith("#NEXUS"):
        raise ValueError(
            f"`tree={str(tree)[:80]!r}` is a Nexus file. Trees in Newick format are read: export "
            "it as such, in FigTree or by `ape::write.tree` of R."
        )
    n_trees = re.sub(_QUOTED, "", text).count(";")
    if n_trees > 1:
        raise ValueError(
            f"`tree` holds {n_trees} trees, as those of a bootstrap. Pass one of them, or their "
            "consensus."
        )
    try:  # underscores are a part of the names
        return TreeNode.read(io.StringIO(text), format="newick", convert_underscores=False)
    except Exception as error:  # scikit-bio raises several of its own
        shown = "the text" if is_text else str(tree)[:80]
        raise ValueError(
            f"`tree` cannot be read as Newick: {error} ({shown}). Pass a file such as 'tree.nwk', "
            "or its text, which begins with a bracket and ends with a semicolon."
        ) from error


def _text_of(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(
            f"`tree={str(file)[:80]!r}` is not a file, and no text in Newick format, which begins "
            "with a bracket. Pass one of these."
        )
    content = file.read_bytes()
    return (gzip.decompress(content) if content.startswith(GZIP) else content).decode()


def branches_of(tree: TreeNode, taxa: pd.Index) -> Branches:
    """Return the branches above some taxa of a tree; other tips are left out.

    Parameters
    ----------
    tree
        Rooted tree with lengths. A root with more than two children is taken as the file has it,
        with a warning.
    taxa
        Names of tips, in the order of the result. Names that differ by quotes around them or by
        underscores for spaces are matched with a warning, if just one of each is meant.

    Raises
    ------
    ValueError
        If taxa are not in the tree, tips have one name, or lengths are missing or negative.
    """
    nodes = list(tree.traverse(include_self=True))
    number = {id(node): i for i, node in enumerate(nodes)}
    parent = np.array([-1 if node.is_root() else number[id(node.parent)] for node in nodes])
    tips = [(node.name, i) for i, node in enumerate(nodes) if node.is_tip()]
    at = _find(_as_taxa(pd.Index([str(name) for name, _ in tips]), taxa), taxa)
    length = _lengths_of(nodes)
    if len(tree.children) > 2:
        warnings.warn(
            f"The root of the tree has {len(tree.children)} children, as that of a tree without "
            "a root. Branches are taken as the file has them, and UniFrac depends on where the "
            "root is: root the tree first, for example `tree.root_at_midpoint()` of scikit-bio.",
            UserWarning,
            stacklevel=caller_level(),
        )
    return Branches.of_parents(parent, length, np.array([i for _, i in tips])[at])


def _as_taxa(tips: pd.Index, taxa: pd.Index) -> pd.Index:
    """Call tips as taxa that are written in another way."""
    keys, wanted = _plain(tips), _plain(taxa)
    is_one = ~tips.isin(taxa) & ~keys.duplicated(keep=False)
    is_wanted = ~taxa.isin(tips) & ~wanted.duplicated(keep=False)
    at = wanted[is_wanted].get_indexer(keys[is_one])
    rows, names = np.flatnonzero(is_one)[at >= 0], tips.to_numpy(object, copy=True)
    names[rows] = taxa[is_wanted][at[at >= 0]]
    if len(rows):
        warnings.warn(
            f"{len(rows)} tips of the tree are called as taxa but for quotes or underscores, such "
            f"as {tips[rows[0]]!r} as {names[rows[0]]!r}, and are taken for these. If they are "
            "others, rename them.",
            UserWarning,
            stacklevel=caller_level(),
        )
    return pd.Index(names)


def _plain(names: pd.Index) -> pd.Index:
    """Return names without quotes around them, and without underscores, which may be spaces."""
    return names.str.replace(r"^([\"'])(.*)\1$", r"\2", regex=True).str.replace("_", " ")


def _find(tips: pd.Index, taxa: pd.Index) -> np.ndarray:
    """Return the place of each taxon among the tips."""
    missing = taxa.difference(tips, sort=False)
    if len(missing):
        raise ValueError(
            f"The tree has no tip for {len(missing)} of the {len(taxa)} taxa, such as "
            f"{some_of(missing)} (its tips are called {some_of(tips)}). Pass the tree of these "
            "taxa, or keep those that it has: `adata[:, adata.var_names.isin(names)].copy()`."
        )
    twice = tips[tips.duplicated()].intersection(taxa)
    if len(twice):
        raise ValueError(
            f"More than one tip of the tree: {counted(len(twice), 'taxon', 'taxa')}, such as "
            f"{some_of(twice)}. A "
            "taxon is one tip: rename or prune the others."
        )
    return tips.get_indexer(taxa)


def _lengths_of(nodes: list[TreeNode]) -> list[float]:
    """Return the lengths of the branches above all nodes, 0 for the root."""
    below = [node for node in nodes if not node.is_root()]
    n_without = sum(node.length is None for node in below)
    if n_without:
        raise ValueError(
            f"The tree has no length for {n_without} of its {len(below)} branches. UniFrac and "
            "the features of branches need lengths: pass a tree with them, as FastTree, IQ-TREE "
            "and SEPP write it."
        )
    bad = [node.length for node in below if not 0 <= node.length < np.inf]
    if bad:
        raise ValueError(
            f"The tree has {len(bad)} branches with a length that is negative or not finite, such "
            f"as {bad[0]:g}. Lengths are 0 or more: neighbour joining makes negative ones, which "
            "are usually set to 0."
        )
    return [0.0 if node.is_root() else float(node.length) for node in nodes]
