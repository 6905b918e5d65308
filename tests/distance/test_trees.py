"""Trees in Newick format, and UniFrac by their branches."""

from __future__ import annotations

import builtins
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skbio
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import pdist, squareform

import scovert
from scovert.core.trees import bray_curtis, read_branches

TREE = "(((a:1,b:2):0.5,('c d':1,e_f:3):0):2,(g:4,x:1):1);"
TAXA = ["g", "a", "c d", "e_f", "b"]


def samples(counts: np.ndarray | None = None) -> AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (9, 5)) if counts is None else counts
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.var_names = TAXA
    return adata


def skbio_tree() -> skbio.TreeNode:
    return skbio.TreeNode.read(io.StringIO(TREE), convert_underscores=False)


@pytest.mark.parametrize("weighted", [False, True])
def test_unifrac_is_that_of_scikit_bio(weighted: bool) -> None:
    adata = samples()
    scovert.pp.tree(adata, TREE)
    scovert.pp.unifrac(adata, weighted=weighted)
    options = {"normalized": True} if weighted else {}
    expected = skbio.diversity.beta_diversity(
        "weighted_unifrac" if weighted else "unweighted_unifrac",
        adata.X.toarray().astype(int),
        adata.obs_names,
        taxa=TAXA,
        tree=skbio_tree(),
        **options,
    )
    found = adata.obsp["weighted_unifrac" if weighted else "unweighted_unifrac"]
    np.testing.assert_allclose(found, expected.data, atol=1e-12)


def test_bray_curtis_is_that_of_scipy_on_shares() -> None:
    counts = samples().X.toarray() + 1
    shares = counts / counts.sum(1, keepdims=True)
    expected = squareform(pdist(shares, "braycurtis"))
    np.testing.assert_allclose(bray_curtis(counts), expected, atol=1e-7)


def test_branches_are_those_above_each_taxon() -> None:
    adata = samples()
    scovert.pp.tree(adata, TREE)
    branches = read_branches(adata, "tree")
    depth = dict(zip(TAXA, branches.above @ branches.length, strict=True))
    assert depth == {"a": 3.5, "b": 4.5, "c d": 3.0, "e_f": 5.0, "g": 5.0}
    assert 1.0 not in branches.length[np.asarray(branches.above.sum(0)).ravel() == 0]
    part = adata[:, ["b", "g"]].copy()  # the slots follow the taxa
    again = read_branches(part, "tree")
    np.testing.assert_array_equal(again.above @ again.length, [4.5, 5.0])


@pytest.mark.parametrize("kind", ["text", "file", "gzip", "scikit-bio"])
def test_trees_are_read_from_anything(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tree.nwk"
    file.write_bytes(gzip.compress(TREE.encode()) if kind == "gzip" else TREE.encode())
    adata = samples()
    scovert.pp.tree(adata, {"text": TREE, "scikit-bio": skbio_tree()}.get(kind, file))
    assert adata.varm["tree"].shape[0] == 5


REFUSED = {
    "missing taxa": ("((a:1,b:1):1,g:1);", "no tip for 2 of the 5 taxa, such as 'c d', 'e_f'"),
    "no lengths": (
        "(((a,b),('c d',e_f)),g);",
        "no length for 8 of its 8 branches.*FastTree",
    ),
    "negative": (TREE.replace("b:2", "b:-2"), "1 branches with a length that is negative.*-2"),
    "tips twice": (TREE.replace("x:1", "a:1"), "one tip of the tree: 1 taxon, such as 'a'"),
    "no Newick": ("(a:1,(b:2);", "cannot be read as Newick"),
    "Nexus": (f"#NEXUS\nbegin trees;\ntree 1 = {TREE}\nend;", "is a Nexus file.*write.tree"),
    "several": (f"[&R] {TREE}\n{TREE}", "`tree` holds 2 trees.*consensus"),
}


@pytest.mark.parametrize(("tree", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_of_a_tree(tree: str, match: str) -> None:
    adata = samples()
    with pytest.raises(ValueError, match=match):
        scovert.pp.tree(adata, tree)
    assert not adata.varm


@pytest.mark.parametrize(
    ("tree", "example"),
    [
        (TREE.replace("'c d'", "c_d"), "'c_d' as 'c d'"),
        (TREE.replace("e_f", "'e f'"), "'e f' as 'e_f'"),
        (TREE.replace("a:1", '"a":1'), "'\"a\"' as 'a'"),
    ],
    ids=["underscore", "space", "quotes"],
)
def test_tips_that_are_written_in_another_way_are_matched(tree: str, example: str) -> None:
    expected, adata = samples(), samples()
    scovert.pp.tree(expected, TREE)
    with pytest.warns(UserWarning, match=f"1 tips of the tree are called as taxa.*{example}"):
        scovert.pp.tree(adata, tree)
    np.testing.assert_array_equal(adata.varm["tree"].toarray(), expected.varm["tree"].toarray())


def test_tips_that_may_be_two_taxa_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="no tip for 1 of the 5 taxa, such as 'c d'"):
        scovert.pp.tree(samples(), TREE.replace("'c d'", "c_d").replace("x:1", "'\"c d\"':1"))


def test_a_comment_may_come_before_a_tree() -> None:
    adata = samples()
    scovert.pp.tree(adata, f"[&R] {TREE}")
    assert adata.varm["tree"].shape[0] == 5


def test_a_tree_without_a_root_is_taken_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="3 children.*root_at_midpoint"):
        scovert.pp.tree(samples(), "(g:1,(a:1,b:1):1,('c d':1,e_f:1):1);")


def test_a_missing_file_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no_tree.nwk.* is not a file"):
        scovert.pp.tree(samples(), "no_tree.nwk")
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "skbio":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'scovert\[tree\]'"):
        scovert.pp.tree(samples(), TREE)


def test_empty_samples_are_at_a_finite_distance() -> None:
    counts = samples().X.toarray()
    counts[[2, 5]] = 0
    adata = samples(counts)
    scovert.pp.tree(adata, TREE)
    for weighted in (False, True):
        scovert.pp.unifrac(adata, weighted=weighted, key_added="d")
        assert adata.obsp["d"][2, 5] == 0
        np.testing.assert_allclose(adata.obsp["d"][2, [0, 1]], 1)


def test_tables_of_distances_are_matched_by_name(tmp_path: Path) -> None:
    adata = samples()
    d = squareform(pdist(adata.X.toarray()))
    names = adata.obs_names.tolist()
    order = np.random.default_rng(1).permutation(9)
    table = pd.DataFrame(d, names, names).iloc[order, order[::-1]]
    table.loc["another"] = table["another"] = 7.0
    scovert.pp.distances(adata, table, key_added="d")
    np.testing.assert_array_equal(adata.obsp["d"], d)
    scovert.pp.distances(adata, d)
    np.testing.assert_array_equal(adata.obsp["distances"], d)
    scovert.pp.distances(adata, skbio.DistanceMatrix(d[order][:, order], adata.obs_names[order]))
    np.testing.assert_array_equal(adata.obsp["distances"], d)
    with pytest.raises(ValueError, match="rows of `matrix` lack 1 of the 9 samples, such as '3'"):
        scovert.pp.distances(adata, table.drop(index="3"))
    with pytest.raises(ValueError, match="once in the columns of `matrix`.* 1 sample, such as"):
        scovert.pp.distances(adata, pd.concat([table, table[["4"]]], axis=1))
    for file, separator in (("d.csv", ","), ("d.tsv", "\t")):
        table.to_csv(tmp_path / file, sep=separator)
        scovert.pp.distances(adata, tmp_path / file, key_added=file)
        np.testing.assert_allclose(adata.obsp[file], d)
    with pytest.raises(FileNotFoundError, match="none.csv is not a file. Name a table"):
        scovert.pp.distances(adata, "none.csv")
    (tmp_path / "text.csv").write_text("a,b\n1,x\n")
    with pytest.raises(ValueError, match="is no table of distances"):
        scovert.pp.distances(adata, tmp_path / "text.csv")
    with pytest.raises(ValueError, match=r"shape \(8, 8\), and there are 9 samples"):
        scovert.pp.distances(adata, d[:8, :8])


def with_names(change: Callable[[int], object]) -> Callable[[np.ndarray], pd.DataFrame]:
    return lambda d: pd.DataFrame(d, [change(i) for i in range(9)], range(9))


NO_DISTANCES = {
    "read as numbers": (with_names(lambda i: i), ValueError, "read as numbers.*dtype=str"),
    "of R": (with_names(lambda i: f"X00{i}.a"), ValueError, "check.names=FALSE"),
    "others": (with_names(lambda i: f"s{i}"), ValueError, "keep those that have them"),
    "text": (lambda d: [*d.tolist()[:8], ["NA"] * 9], TypeError, "not hold numbers"),
    "sparse": (sparse.csr_matrix, TypeError, "sparse.*all pairs"),
}


@pytest.mark.parametrize(
    ("change", "error", "match"), NO_DISTANCES.values(), ids=NO_DISTANCES.keys()
)
def test_what_is_refused_of_distances(change: Callable, error: type, match: str) -> None:
    adata = samples()
    adata.obs_names = [f"00{i}-a" for i in range(9)]
    with pytest.raises(error, match=match):
        scovert.pp.distances(adata, change(np.ones((9, 9)) - np.eye(9)))
    assert not adata.obsp


@pytest.mark.needs_data
@pytest.mark.slow
def test_unifrac_of_global_patterns_is_that_of_phyloseq(read_shared) -> None:
    import os

    adata = read_shared("microbiome_globalpatterns")
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SCOVERT_DATA", default))
    scovert.pp.tree(adata, folder / "microbiome_globalpatterns_tree.nwk.gz")
    for weighted, key in ((False, "unweighted_unifrac"), (True, "weighted_unifrac")):
        expected = np.asarray(adata.obsp[key]).copy()
        scovert.pp.unifrac(adata, weighted=weighted)
        np.testing.assert_allclose(adata.obsp[key], expected, atol=1e-5)
