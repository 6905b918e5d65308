"""The checks of the input on public files, which are read where SCOVERT_DATA says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert.model import BulkDeconvolution, LatentConfounder, PairedVAE

pytestmark = pytest.mark.needs_data

ACCEPTED = {
    "kang_ifnb_pbmc": {"batch_key": "stim", "categorical_covariate_keys": ["donor"]},
    "integration_cellbench": {"batch_key": "batch"},
    "confounding_onek1k_subset": {"batch_key": "donor"},
    "confounding_papalexi_perturbseq": {"batch_key": "replicate"},
    "deconv_ref_hao_pbmc": {"batch_key": "lane"},
    "deconv_ref_wholeblood_newman": {"batch_key": "source"},
    "spatial_starmap_mpfc": {"batch_key": "batch"},
    "spatial_osmfish_cortex": {"batch_key": "cell_type"},
}
SMALL = {
    "deconv_cellmix_9cell": ({"batch_key": "batch"}, "cellmix5"),
    "deconv_rnamix_celseq2": ({"batch_key": "mix"}, "1"),
    "deconv_ref_pbmc3k": ({"batch_key": "cell_type"}, "Megakaryocytes"),
    "deconv_ref_zheng_sorted_pbmc": ({"batch_key": "cell_type"}, "naivecytotoxic"),
    "microbiome_soilrep": ({"batch_key": "treatment"}, "UC"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_real_counts_are_accepted(read_shared: Callable[[str], AnnData], name: str) -> None:
    adata = read_shared(name)
    before, options = adata.obs.copy(), ACCEPTED[name]
    with warnings.catch_warnings(action="error", category=UserWarning):
        PairedVAE.setup_anndata(adata, **options)
    model = PairedVAE(adata)
    assert model.summary_stats.n_vars == adata.n_vars
    assert model.summary_stats.n_batch == adata.obs[options["batch_key"]].nunique()
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)


@pytest.mark.parametrize("name", SMALL)
def test_small_datasets_are_named(read_shared: Callable[[str], AnnData], name: str) -> None:
    options, smallest = SMALL[name]
    with pytest.warns(UserWarning, match=f"Few cells in .*'?{smallest}'?: "):
        PairedVAE.setup_anndata(read_shared(name), **options)


@pytest.mark.parametrize(
    ("name", "batch_key", "match"),
    [
        ("microbiome_globalpatterns", "sample_type", r"has 2 cells\. A dataset needs at least 3"),
        ("deconv_bulk_finotello_pbmc", "unit", "one dataset only, 'raw_counts'"),
        ("kang_ifnb_pbmc", "cell_type_fine ", "columns: .*'stim'"),
    ],
)
def test_real_datasets_that_do_not_suffice_are_refused(
    read_shared: Callable[[str], AnnData], name: str, batch_key: str, match: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=match):
        PairedVAE.setup_anndata(read_shared(name), batch_key)


@pytest.mark.parametrize(
    ("name", "layer", "match"),
    [
        ("deconv_bulk_hoek_pbmc_tpm", None, r"`adata\.X` holds .*look normalised"),
        ("deconv_bulk_newman_wholeblood_tpm", None, r"`adata\.X` holds .*look normalised"),
        ("deconv_bulk_finotello_pbmc", "tpm", r"layers\['tpm'\]` holds 0\.118865 .*normalised"),
        ("spatial_imc_pancreas_3images", None, "holds .* raw counts"),
        ("spatial_lymphoma_scimap", None, "holds .* raw counts"),
        ("spatial_imc_islet_channels", None, "holds .* raw counts"),
    ],
)
def test_measurements_that_are_no_counts_are_refused(
    read_shared: Callable[[str], AnnData], name: str, layer: str | None, match: str
) -> None:
    adata = read_shared(name)
    adata.obs["half"] = np.arange(adata.n_obs) % 2  # two datasets, so that the values decide
    with pytest.raises(ValueError, match=match):
        PairedVAE.setup_anndata(adata, "half", layer=layer)


TREATED = {
    "kang_ifnb_pbmc": ("stim", "ctrl", {"cluster_key": "donor"}),
    "confounding_onek1k_subset": ("sex", "1", {"cluster_key": "donor"}),
    "confounding_papalexi_perturbseq": ("replicate", "rep_1", {}),
    "deconv_ref_hao_pbmc": ("experiment", "1", {"cluster_key": "lane"}),
    "deconv_ref_zheng_sorted_pbmc": ("cell_type", "nk", {}),
    "deconv_cellmix_9cell": ("batch", "cellmix4", {}),
    "deconv_rnamix_celseq2": ("mix", "4", {}),
    "spatial_starmap_mpfc": ("batch", "batch_0", {"categorical_covariate_keys": ["cell_type"]}),
    "spatial_osmfish_cortex": ("cell_type", "Pyramidals", {}),
}


@pytest.mark.parametrize("name", TREATED)
def test_real_treatments_are_accepted(read_shared: Callable[[str], AnnData], name: str) -> None:
    adata = read_shared(name)
    before = adata.obs.copy()
    key, reference, options = TREATED[name]
    with warnings.catch_warnings(action="error", category=UserWarning):
        warnings.filterwarnings("ignore", "Few cells in")  # of 20 to 49, as it should say
        LatentConfounder.setup_anndata(adata, key, reference=reference, **options)
    model = LatentConfounder(adata)
    assert model.levels_[0] == reference
    assert sorted(model.levels_) == sorted(adata.obs[key].astype(str).unique())
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)


@pytest.mark.parametrize(
    ("name", "key", "reference", "cluster"),
    [
        ("kang_ifnb_pbmc", "stim", "ctrl", "sample"),
        ("confounding_onek1k_subset", "sex", "1", "donor"),
        ("confounding_papalexi_perturbseq", "perturbation", "non-targeting", "guide"),
        ("integration_cellbench", "technology", "CEL-seq2", "batch"),
        ("deconv_ref_hao_pbmc", "experiment", "1", "lane"),
        ("spatial_imc_t1d_celltypes", "stage", "Onset", "donor"),
    ],
)
def test_real_donors_are_named(
    read_shared: Callable[[str], AnnData], name: str, key: str, reference: str, cluster: str
) -> None:
    with pytest.warns(UserWarning, match=f"not independent.*cluster_key='{cluster}'"):
        LatentConfounder.setup_anndata(read_shared(name), key, reference=reference)


REFUSED_TREATMENTS = {
    "sample is the treatment": (
        "kang_ifnb_pbmc",
        {"treatment_key": "stim", "categorical_covariate_keys": ["sample"]},
        "'sample'.*perfectly.*cluster_key='sample'",
    ),
    "no reference": ("kang_ifnb_pbmc", {"treatment_key": "stim", "reference": None}, "'stim'"),
    "label of another type": (
        "confounding_onek1k_subset",
        {"treatment_key": "sex", "reference": 1},
        "`reference=1` is not a level.*'1', '2'",
    ),
    "few cells of a type": (
        "deconv_ref_pbmc3k",
        {"treatment_key": "cell_type", "reference": "CD4 T"},
        r"\{'Megakaryocytes': 13\}.*Leave these cells out",
    ),
    "few samples": (
        "microbiome_soilrep",
        {"treatment_key": "treatment", "reference": "UU"},
        "fewer than 20 cells.*Pass more cells",
    ),
    "few bulk samples": (
        "deconv_bulk_finotello_pbmc",
        {"treatment_key": "has_full_panel", "reference": None},
        r"fewer than 20 cells in \{True: 8, False: 1\}",
    ),
    "intensities": (
        "spatial_imc_islet_channels",
        {"treatment_key": "in_islet", "reference": None},
        "holds .* raw counts",
    ),
    "few donors": (
        "confounding_onek1k_subset",
        {"treatment_key": "age_decade", "reference": "50s", "cluster_key": "sex"},
        "clusters in the arms.*at least 3",
    ),
}


@pytest.mark.parametrize("name", REFUSED_TREATMENTS)
def test_real_treatments_that_cannot_be_compared_are_refused(
    read_shared: Callable[[str], AnnData], name: str
) -> None:
    file, options, match = REFUSED_TREATMENTS[name]
    with pytest.raises(ValueError, match=match):
        LatentConfounder.setup_anndata(read_shared(file), **{"reference": "ctrl", **options})


# Bulks


HOEK = {
    "frac_t": ["T cells CD4 conv", "T cells CD8", "Tregs"],
    "frac_monocyte": ["Monocytes"],
    "frac_b": ["B cells", "Plasma cells"],
    "frac_dc": ["mDC", "pDC"],
    "frac_nk": ["NK cells"],
}
FINOTELLO = {
    "frac_nk": ["NK cells"],
    "frac_b": ["B cells", "Plasma cells"],
    "frac_monocyte": ["Monocytes"],
    "frac_cd8_t": ["T cells CD8"],
    "frac_cd4_t_conv": ["T cells CD4 conv"],
    "frac_treg": ["Tregs"],
    "frac_mdc": ["mDC"],
}


@pytest.fixture(scope="module")
def blood(read_shared: Callable[[str], AnnData]) -> BulkDeconvolution:
    reference = read_shared("deconv_ref_hao_pbmc")
    BulkDeconvolution.setup_anndata(reference, "cell_type", subject_key="lane")
    model = BulkDeconvolution(reference)
    model.train()
    return model


def compare(
    found: pd.DataFrame, bulk: AnnData, types: dict[str, list[str]]
) -> tuple[float, float]:
    """Return the root mean squared error and Lin's concordance with measured fractions."""
    x = np.concatenate([found[names].sum(axis=1) for names in types.values()])
    y = np.concatenate([bulk.obs[name].to_numpy(float) for name in types])
    shared = 2 * np.cov(x, y, bias=True)[0, 1]
    concordance = shared / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return float(np.sqrt(np.mean((x - y) ** 2))), float(concordance)


def test_vaccinated_donors_are_as_measured(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData]
) -> None:
    bulk = read_shared("deconv_bulk_hoek_pbmc_tpm")
    result = blood.deconvolve(bulk, kind="tpm", interval=None)
    error, concordance = compare(result.proportions, bulk, HOEK)
    assert error < 0.035
    assert concordance > 0.98
    assert result.quality.attrs["cell_size"] == "table"
    assert set(result.quality.attrs["matched_types"]) == set(blood.types)


@pytest.mark.parametrize("options", [{"kind": "counts"}, {"kind": "tpm", "layer": "tpm"}])
def test_healthy_donors_are_as_measured(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData], options: dict
) -> None:
    bulk = read_shared("deconv_bulk_finotello_pbmc")
    bulk = bulk[bulk.obs["has_full_panel"]].copy()
    error, concordance = compare(blood.get_proportions(bulk, **options), bulk, FINOTELLO)
    assert error < 0.065
    assert concordance > 0.8


REFUSED_BULKS = {
    "a sample without values": (
        "deconv_bulk_finotello_pbmc",
        {"kind": "tpm", "layer": "tpm"},
        r"layers\['tpm'\]` holds nan \(sample 'pbmc_9', gene 'UBE2Q2P2'; 19423 such.*leave the",
    ),
    "counts as tpm": ("deconv_bulk_finotello_pbmc", {"kind": "tpm"}, "like TPM.*kind='counts'"),
    "tpm as counts": ("deconv_bulk_hoek_pbmc_tpm", {"kind": "counts"}, "counts.*kind='tpm'"),
    "some tpm as counts": (
        "deconv_bulk_newman_wholeblood_tpm",
        {"kind": "counts"},
        r"like counts: samples sum to 8.23e\+05 up to 9.18e\+05.*kind='tpm'",
    ),
    "intensities": ("spatial_lymphoma_scimap", {}, "looks log-transformed"),
    "another kind of genes": (
        "microbiome_soilrep",
        {"kind": "counts"},
        "share 0 genes.*at least 50",
    ),
    "few genes": ("confounding_papalexi_perturbseq", {"kind": "counts"}, "share .*at least 50"),
}


@pytest.mark.parametrize("case", REFUSED_BULKS)
def test_real_bulks_that_do_not_suffice_are_refused(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData], case: str
) -> None:
    file, options, match = REFUSED_BULKS[case]
    with pytest.raises(ValueError, match=match):
        blood.deconvolve(read_shared(file)[:9].copy(), **options)


def test_the_logarithm_of_a_real_bulk_is_refused(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData]
) -> None:
    bulk = read_shared("deconv_bulk_hoek_pbmc_tpm")
    bulk.X = np.log2(bulk.X + 1)
    with pytest.raises(ValueError, match="log-transformed: its largest value is 1"):
        blood.deconvolve(bulk)


REFERENCES = {
    "deconv_ref_hao_pbmc": {"labels_key": "cell_type", "subject_key": "lane"},
    "deconv_ref_pbmc3k": {"labels_key": "cell_type"},
    "deconv_ref_zheng_sorted_pbmc": {"labels_key": "cell_type"},
    "deconv_ref_wholeblood_newman": {"labels_key": "cell_type", "batch_key": "source"},
    "integration_cellbench": {"labels_key": "cell_line", "batch_key": "batch"},
    "kang_ifnb_pbmc": {"labels_key": "cell_type", "subject_key": "donor"},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_real_references_are_accepted(read_shared: Callable[[str], AnnData], name: str) -> None:
    reference = read_shared(name)
    before = reference.obs.copy()
    with warnings.catch_warnings(action="error", category=UserWarning):
        BulkDeconvolution.setup_anndata(reference, **REFERENCES[name])
    BulkDeconvolution(reference)
    pd.testing.assert_frame_equal(reference.obs[before.columns], before)


@pytest.mark.parametrize(
    ("name", "key", "match"),
    [
        ("deconv_bulk_finotello_pbmc", "unit", "one type only, 'raw_counts'"),
        ("deconv_bulk_hoek_pbmc_tpm", "donor", "look normalised.*raw counts"),
        ("spatial_starmap_mpfc", "cell_typ", "columns: .*'cell_type'"),
    ],
)
def test_real_references_that_do_not_suffice_are_refused(
    read_shared: Callable[[str], AnnData], name: str, key: str, match: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=match):
        BulkDeconvolution.setup_anndata(read_shared(name), key)


def test_a_log_normalised_reference_is_refused(read_shared: Callable[[str], AnnData]) -> None:
    reference = read_shared("deconv_ref_hao_pbmc")
    totals = np.asarray(reference.X.sum(1))
    reference.X = reference.X.multiply(1e4 / totals).log1p().tocsr()
    with pytest.raises(ValueError, match="look log-normalised: name the layer with raw counts"):
        BulkDeconvolution.setup_anndata(reference, "cell_type")


def test_small_types_of_a_real_reference_are_named(read_shared: Callable[[str], AnnData]) -> None:
    reference = read_shared("deconv_ref_pbmc3k")
    BulkDeconvolution.setup_anndata(reference, "cell_type")
    with pytest.raises(ValueError, match=r"\{'Megakaryocytes': 13\}.*`min_cells_per_type=20`"):
        BulkDeconvolution(reference, min_cells_per_type=20)


@pytest.mark.slow
def test_measured_donors_correct_the_others(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData]
) -> None:
    """Two measured samples of eight; the error of the other six."""
    bulk = read_shared("deconv_bulk_finotello_pbmc")
    bulk = bulk[bulk.obs["has_full_panel"]].copy()
    groups = {name: types for name, types in FINOTELLO.items() if len(types) > 1}
    names = {name: types[0] for name, types in FINOTELLO.items() if len(types) == 1}
    truth = bulk.obs[list(FINOTELLO)].astype(float).rename(columns=names)
    plain = blood.get_proportions(bulk, kind="counts")
    before, after = [], []
    for first, second in ((0, 4), (1, 5), (2, 6), (3, 7)):
        measured = truth.iloc[[first, second]]
        found = blood.get_proportions(bulk, kind="counts", measured=measured, groups=groups)
        others = ~bulk.obs_names.isin(measured.index)
        before.append(compare(plain[others], bulk[others], FINOTELLO)[0])
        after.append(compare(found[others], bulk[others], FINOTELLO)[0])
    assert np.mean(after) < 0.042
    assert np.mean(after) < 0.85 * np.mean(before)


@pytest.mark.slow
def test_intervals_cover_what_was_measured(
    blood: BulkDeconvolution, read_shared: Callable[[str], AnnData]
) -> None:
    finer = {"frac_cd4_t_conv", "frac_treg"}
    six = {name: types for name, types in FINOTELLO.items() if name not in finer}
    six["frac_cd4_t"] = ["T cells CD4 conv", "Tregs"]
    for file, types, kind in (
        ("deconv_bulk_hoek_pbmc_tpm", HOEK, "tpm"),
        ("deconv_bulk_finotello_pbmc", six, "counts"),
    ):
        bulk = read_shared(file)
        if kind == "counts":
            bulk = bulk[bulk.obs["has_full_panel"]].copy()
        result = blood.deconvolve(bulk, kind=kind)
        covered = []
        for name, members in types.items():
            at = result.proportions.columns.get_indexer(members)
            low, high = np.quantile(result.draws[..., at].sum(-1), [0.05, 0.95], axis=0)
            covered.append(bulk.obs[name].between(low, high))
        assert np.mean(covered) >= 0.75, file


@pytest.mark.slow
def test_an_interferon_is_told_from_the_cells_that_got_it(
    read_shared: Callable[[str], AnnData],
) -> None:
    """More myeloid cells in one arm: genes of theirs are no effect of the interferon."""
    from scovert.model.confounder.glm import CountBlocks, fit_regression

    adata = read_shared("kang_ifnb_pbmc")
    rng = np.random.default_rng(0)
    is_myeloid = adata.obs["cell_type_coarse"].isin(["Monocyte", "DC"]).to_numpy()
    stimulated = adata.obs["stim"].to_numpy() == "stim"
    keep = rng.random(adata.n_obs) < np.where(is_myeloid == stimulated, 0.25, 0.08)
    genes = np.asarray((adata.X > 0).mean(0)).ravel() > 0.05
    genes &= rng.random(adata.n_vars) < 500 / genes.sum()
    adata = adata[keep, genes].copy()
    LatentConfounder.setup_anndata(adata, "stim", reference="ctrl", cluster_key="donor")
    model = LatentConfounder(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    with pytest.warns(UserWarning, match="dense effects|no counterpart"):
        table = model.get_treatment_effects()
    assert table.attrs["identification"] == "classes"
    totals = np.asarray(adata.X.sum(1)).ravel()
    types = pd.get_dummies(adata.obs["cell_type"].astype(str), dtype=float).to_numpy()[:, 1:]
    design = np.c_[np.ones(len(totals)), adata.obs["stim"] == "stim", types]
    blocks = CountBlocks(adata.X, np.log(totals / totals.mean()))
    truth = pd.Series(fit_regression(blocks, design).coefficients[1], adata.var_names)
    tested = table["reason"] == ""
    found, unadjusted = (
        table.loc[tested, name].corr(truth[tested], method="spearman")
        for name in ("log2_fc", "log2_fc_naive")
    )
    assert found > 0.95
    assert found > unadjusted + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch_key"), [("integration_cellbench", "batch")])
def test_real_datasets_are_integrated(
    read_shared: Callable[[str], AnnData], name: str, batch_key: str
) -> None:
    from scovert.anchors import principal_components
    from scovert.metrics import batch_mixing, label_transfer

    adata = read_shared(name)
    counts = adata.X.toarray()
    keep = counts.var(0).argsort()[-600:]
    adata = adata[:, keep].copy()
    PairedVAE.setup_anndata(adata, batch_key)
    model = PairedVAE(adata)
    model.train(60, accelerator="cpu", enable_progress_bar=False)
    logs = np.log1p(1e4 * adata.X.toarray() / counts.sum(1, keepdims=True))
    found, baseline = model.get_latent_representation(), principal_components(logs, 10)
    labels = (adata.obs[batch_key], adata.obs["cell_line"])
    assert batch_mixing(found, *labels) > batch_mixing(baseline, *labels) + 0.1
    assert label_transfer(found, *labels) > label_transfer(baseline, *labels) - 0.02


@pytest.mark.parametrize(
    ("name", "column", "labels", "is_clean"),
    [
        ("deconv_ref_zheng_sorted_pbmc", "cell_type_coarse", "sorting", True),
        ("deconv_ref_pbmc3k", "cell_type_coarse", "clusters", False),
        ("kang_ifnb_pbmc", "cell_type_coarse", "clusters", False),
        ("deconv_ref_wholeblood_newman", "cell_type", "curation", False),
    ],
)
def test_cells_called_cd4_that_are_not(
    read_shared: Callable[[str], AnnData], name: str, column: str, labels: str, *, is_clean: bool
) -> None:
    """What the page on deconvolution says of public references, by its own way to count."""
    page = (Path(__file__).parents[1] / "docs" / "models" / "bulk.md").read_text()
    example = next(e for e in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "CD8A" in e)
    reference = read_shared(name)
    reference.obs["cell_type"] = reference.obs[column].astype(str)
    *setting, share = dedent(f"  {example}").strip().splitlines()
    variables = {"reference": reference}
    exec("\n".join(setting), variables)
    assert (eval(share, variables) < 0.05) == is_clean, labels
    assert is_clean or eval(share, variables) > 0.15
