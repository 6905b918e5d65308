"""The checks of the input on public files, which are read where SCOVERT_DATA says."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert.model import LatentConfounder, PairedVAE

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


@pytest.mark.slow
def test_an_interferon_is_told_from_the_cells_that_got_it(
    read_shared: Callable[[str], AnnData],
) -> None:
    """More myeloid cells in one arm: genes of theirs are no effect of the interferon."""
    from scovert.glm import CountBlocks, fit_regression

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
    found, naive = (
        table.loc[tested, name].corr(truth[tested], method="spearman")
        for name in ("log2_fc", "log2_fc_naive")
    )
    assert found > 0.95
    assert found > naive + 0.02


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
