"""The command `scovert embed-distances`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import skbio
from anndata import AnnData
from biom import Table
from biom.util import biom_open
from click.testing import Result
from typer.testing import CliRunner

from scovert.cli import app
from scovert.cli._distance_files import read_distances
from scovert.model import DistanceEmbedding
from scovert.simulate import distance

KEY = "unweighted_unifrac"
SHORT = ("--max-epochs", "1", "--accelerator", "cpu", "--quiet")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["embed-distances", *map(str, arguments)])


@pytest.fixture(scope="module")
def cohort() -> AnnData:
    return distance(110, 41, distances=[KEY], seed=3)


@pytest.fixture(scope="module")
def source(cohort: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("distances") / "in.h5ad"
    cohort.write_h5ad(file)
    return file


def zipped(file: Path, name: str, content: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(content, f"0a1b/data/{name}")
        archive.writestr("0a1b/metadata.yaml", "uuid: 0a1b")
    return file


def test_a_slot_gives_positions_a_report_and_a_model(source: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out.h5ad", tmp_path / "report.html"
    result = run(
        *(source, "--distances", KEY, "-o", output, "--report", report, "--write-distances"),
        *("--save-model", tmp_path / "model", "--method", "linear"),
    )
    assert result.exit_code == 0, result.output
    assert "R2 of the distances" in result.stdout
    found = ad.read_h5ad(output)
    assert found.obsm["X_distance"].shape == (110, 24)
    assert (found.obs["distance_uniqueness"] > 0).all()
    assert found.obsp["distance"].shape == (110, 110)
    assert "Predicted and true distances" in report.read_text()
    loaded = DistanceEmbedding.load(tmp_path / "model", found)
    np.testing.assert_array_equal(loaded.get_latent_representation(), found.obsm["X_distance"])
    again = run(source, "--distances", KEY, "-o", output)
    assert again.exit_code == 1
    assert "exists" in again.output


def test_files_of_qiime_are_read(cohort: AnnData, tmp_path: Path) -> None:
    """The table in BIOM, distances in another order, and the tree."""
    table, output = tmp_path / "table.biom", tmp_path / "out.h5ad"
    with biom_open(str(table), "w") as file:
        Table(cohort.X.T, cohort.var_names, cohort.obs_names).to_hdf5(file, "test")
    names, order = cohort.obs_names, np.random.default_rng(0).permutation(110)
    frame = pd.DataFrame(cohort.obsp[KEY], names, names).iloc[order, order]
    frame.to_csv(tmp_path / "d.tsv", sep="\t")
    tips = skbio.TreeNode(children=[skbio.TreeNode(name, length=1.0) for name in cohort.var_names])
    root = skbio.TreeNode(children=[tips, skbio.TreeNode("out", length=2.0)])
    tips.length = 0.5
    root.write(str(tmp_path / "t.nwk"))
    files = {
        "table": zipped(tmp_path / "table.qza", "feature-table.biom", table),
        "distances": zipped(tmp_path / "d.qza", "distance-matrix.tsv", tmp_path / "d.tsv"),
        "tree": zipped(tmp_path / "t.qza", "tree.nwk", tmp_path / "t.nwk"),
    }
    options = ("--distances", files["distances"], "--tree", files["tree"])
    result = run(files["table"], *options, "-o", output, *SHORT)
    assert result.exit_code == 0, result.output
    found = ad.read_h5ad(output)[cohort.obs_names, cohort.var_names]
    np.testing.assert_array_equal(found.X.toarray(), cohort.X.toarray())
    np.testing.assert_allclose(found.obsp["sample_distances"], cohort.obsp[KEY])
    assert found.varm["tree"].shape == (41, 42)
    wrong = run(table, "--distances", files["tree"], "-o", tmp_path / "o.h5ad")
    assert wrong.exit_code == 1
    assert "holds ['tree.nwk'] and no distance-matrix.tsv" in wrong.output


@pytest.mark.parametrize("corner", ["\t", "id\t", ""], ids=["empty", "named", "of R"])
def test_names_of_samples_are_text(tmp_path: Path, corner: str) -> None:
    file = tmp_path / "d.tsv"
    names = ["1.1", "1.10", "NA"]
    rows = "1.1\t0\t1\t2\n1.10\t1\t0\t3\nNA\t2\t3\t0\n"
    for n, text in ((3, rows), (2, "1.1\t0\t1\n1.10\t1\t0\n")):
        file.write_text(corner + "\t".join(names[:n]) + "\n" + text)
        found = read_distances(file)
        assert found.index.tolist() == found.columns.tolist() == names[:n]
        assert found.to_numpy()[:2, :2].tolist() == [[0, 1], [1, 0]]


def test_tables_are_separated_by_anything(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text(";s1;s2\ns1;0;1.5\ns2;1.5;0\n")
    assert read_distances(file).loc["s1", "s2"] == 1.5


NO_TABLES = {
    "decimal commas": (";s1;s2\ns1;0;1,5\ns2;1,5;0\n", "'1,5'.*point for decimals"),
    "phylip": ("2\ns1\t0\t1\ns2\t1\t0\n", "is not a table"),
    "a triangle": ("\ts1\ts2\ts3\ns1\ns2\t1\ns3\t2\t3\n", "entries.*both directions"),
}


@pytest.mark.parametrize(("text", "match"), NO_TABLES.values(), ids=NO_TABLES.keys())
def test_other_files_are_refused(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "d.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"d.txt is no table of distances.*{match}"):
        read_distances(file)


REFUSED = {
    "no slot": (("--distances", "jaccard"), "--distances-key|jaccard.* is not in|jaccard"),
    "no file": (("--distances", "no.tsv"), "no.tsv is not a file"),
    "no tree": (("--distances", KEY, "--tree", "no.nwk"), "no.nwk.* is not a file"),
}


@pytest.mark.parametrize(("options", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(source: Path, tmp_path: Path, options: tuple, match: str) -> None:
    import re

    result = run(source, *options, "-o", tmp_path / "o.h5ad")
    assert result.exit_code == 1
    assert re.search(match, result.output)
    assert "Traceback" not in result.output
    assert not (tmp_path / "o.h5ad").exists()


def test_a_table_without_numbers_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(",a,b\na,0,x\nb,x,0\n")
    result = run(source, "--distances", tmp_path / "d.csv", "-o", tmp_path / "o.h5ad")
    assert result.exit_code == 1
    assert "is no table of distances" in result.output
