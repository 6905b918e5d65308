"""The checks of the input on public files, which are read where SCOVERT_DATA says."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert.model import PairedVAE

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
