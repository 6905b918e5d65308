"""Small data and fitted models that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from _input import SHORT
from scovert import simulate

N_GENES = 11
SIZES = {2: (40, 27), 3: (31, 23, 13)}  # 67 cells in two or three datasets


def pytest_configure(config: pytest.Config) -> None:
    import torch

    # One thread for every fit: sums of floats depend on the number of threads
    torch.set_num_threads(1)
    # Toys have fewer cells than the models advise; test_errors.py looks at these warnings.
    config.addinivalue_line("filterwarnings", "ignore:Few cells")
    config.addinivalue_line("filterwarnings", "ignore:Anchors should join")
    config.addinivalue_line("markers", "needs_data: reads the public data, skipped without it")


@pytest.fixture
def seed() -> Iterator[int]:
    """Seed of training, the same for every test that asks for it."""
    import scvi
    import torch

    torch.set_num_threads(1)  # toys need one, and numba, at work in another test, sets more
    scvi.settings.seed = 0
    yield 0
    scvi.settings.seed = None


@pytest.fixture
def leaves_no_traces() -> Iterator[None]:
    """Close figures, and look at the settings of matplotlib that a user shares with us."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


@pytest.fixture(scope="module")
def few_classes() -> Iterator[None]:
    """Look for three hidden classes at most, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", (1, 2, 3))
        yield


@pytest.fixture(scope="session")
def make_toy() -> Callable[[int], AnnData]:
    """Make 67 cells x 11 genes in two or three datasets, with columns of a user in every slot."""

    def make(n_datasets: int = 2) -> AnnData:
        adata = simulate.paired(SIZES[n_datasets], n_genes=N_GENES, n_types=2, seed=1)
        rng = np.random.default_rng(0)
        order = rng.permutation(adata.n_obs)
        adata = adata[order].copy()
        adata.obs["donor"] = pd.Categorical(rng.choice(["d1", "d2", "d3"], 67))
        adata.obs["lane"] = rng.choice(["l1", "l2"], 67)
        adata.obs["cycle"] = rng.normal(size=67)
        adata.layers["raw"] = sparse.csr_matrix(adata.X)
        adata.obsm["X_user"] = rng.normal(size=(67, 2))
        adata.var["length"] = np.arange(N_GENES)
        return adata

    return make


@pytest.fixture(scope="session")
def make_panels() -> Callable[[int], AnnData]:
    """Make 97 cells x 71 genes in two datasets, or in three that all miss some of the genes."""

    def make(n_datasets: int = 2) -> AnnData:
        sizes = {2: (50, 47), 3: (37, 31, 29)}[n_datasets]
        adata = simulate.paired(sizes, n_genes=71, n_types=2, batch_sd=0.1, seed=4)
        rng = np.random.default_rng(0)
        adata = adata[rng.permutation(97)].copy()
        names = list(adata.obs["batch"].cat.categories)
        measured = pd.DataFrame(True, adata.var_names, names)
        for i, name in enumerate(names if n_datasets > 2 else names[1:]):
            measured.iloc[i::6, measured.columns.get_loc(name)] = False
        counts = adata.X.toarray() * measured[adata.obs["batch"]].to_numpy().T
        adata.X = sparse.csr_matrix(counts)
        adata.varm["measured"] = measured
        adata.obs["lane"] = rng.choice(["l1", "l2"], 97)
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(97, 2))
        adata.var["length"] = np.arange(71)
        return adata

    return make


@pytest.fixture(scope="session")
def make_treated() -> Callable[[], AnnData]:
    """Make 97 cells x 31 genes under two treatments, with columns of a user in every slot."""

    def make() -> AnnData:
        adata = simulate.confounder("sparse", n_cells=97, n_genes=31, seed=3)
        rng = np.random.default_rng(0)
        adata.obs["arm"] = rng.permutation(np.repeat(["none", "a/b", "a c"], [37, 31, 29]))
        adata.obs["donor"] = pd.Categorical(rng.choice([f"d{i}" for i in range(7)], 97))
        adata.obs["lane"] = rng.choice(["l1", "l2", "l3"], 97)
        adata.obs["cycle"] = rng.normal(size=97)
        adata.obs["depth"] = rng.uniform(0.5, 2.0, 97)
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(97, 2))
        adata.var["length"] = np.arange(31)
        return adata

    return make


def _means_of_types() -> np.ndarray:
    rng = np.random.default_rng(0)
    mean = np.tile(rng.gamma(2.0, 0.5, 307), (4, 1))
    mean[np.arange(307) % 4, np.arange(307)] *= 8
    return mean


@pytest.fixture(scope="session")
def make_reference() -> Callable[[], AnnData]:
    """Make 103 cells x 307 genes of four types, with columns of a user in every slot."""

    def make() -> AnnData:
        rng = np.random.default_rng(1)
        labels = rng.permutation(np.repeat(np.arange(4), [37, 29, 21, 16]))
        counts = rng.poisson(_means_of_types()[labels]).astype(np.float32)
        adata = AnnData(sparse.csr_matrix(counts))
        adata.obs_names = [f"cell {i}" for i in range(103)]
        adata.var_names = [f"gene {i}" for i in range(307)]
        names = np.array(["B", "T/CD4", "T/CD8", "tumour"])[labels]
        adata.obs["kind"] = pd.Categorical(names, ["A", *np.unique(names)[::-1], "Z"])
        adata.obs["number"] = labels
        adata.obs["study"] = rng.permutation(np.arange(103) % 2)
        adata.obs["donor"] = rng.choice(["d1", "d2", "d3"], 103)
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(103, 2))
        adata.var["length"] = np.arange(307)
        return adata

    return make


@pytest.fixture(scope="session")
def make_bulk() -> Callable[[], AnnData]:
    """Make five samples of the types of `make_reference`, with columns of a user."""

    def make() -> AnnData:
        rng = np.random.default_rng(2)
        mean = rng.dirichlet(np.full(4, 2.0), 5) @ _means_of_types() * 300
        adata = AnnData(rng.poisson(mean).astype(np.float32))
        adata.obs_names = [f"sample {i}" for i in range(5)]
        adata.var_names = [f"gene {i}" for i in range(307)]
        adata.obs["day"] = np.arange(5)
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(5, 2))
        return adata

    return make


@pytest.fixture(scope="session")
def make_tissue() -> Callable[[], AnnData]:
    """Make 106 cells x 13 genes on two slides, with columns of a user in every slot."""

    def make() -> AnnData:
        adata = simulate.niche(53, 2, n_genes=13, seed=1)
        rng = np.random.default_rng(0)
        adata = adata[rng.permutation(106)].copy()
        adata.obs["lane"] = pd.Categorical(rng.choice(["l1", "l2"], 106))
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(106, 2))
        adata.var["length"] = np.arange(13)
        return adata

    return make


@pytest.fixture(scope="session")
def make_cohort() -> Callable[[], AnnData]:
    """Make 71 samples x 23 taxa with a tree and distances, and with columns of a user."""

    def make() -> AnnData:
        adata = simulate.distance(71, 23, distances=["weighted_unifrac"], depth=800, seed=1)
        rng = np.random.default_rng(0)
        adata.obs["site"] = pd.Categorical(rng.choice(["s1", "s2"], 71))
        adata.layers["raw"] = adata.X.copy()
        adata.obsm["X_user"] = rng.normal(size=(71, 2))
        adata.var["length"] = np.arange(23)
        return adata

    return make


@pytest.fixture
def toy(make_toy: Callable[[int], AnnData]) -> AnnData:
    """Make a fresh toy in two datasets."""
    return make_toy(2)


@pytest.fixture(scope="session")
def fit_options() -> dict:
    """Options of a short fit on the CPU."""
    return dict(SHORT)


@pytest.fixture(scope="session")
def fitted(make_toy: Callable[[int], AnnData]) -> object:
    """Fit a toy PairedVAE with anchors; tests that write use a copy of its AnnData."""
    import scvi

    from scovert.model import PairedVAE

    adata = make_toy(2)
    scvi.settings.seed = 0
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata, n_latent=3, n_hidden=7)
    model.train(**SHORT)
    scvi.settings.seed = None
    return model


@pytest.fixture(scope="session")
def read_shared() -> Callable[[str], AnnData]:
    """Read a file of the shared data, or skip the test where there is none."""
    import anndata

    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCOVERT_DATA", default))

    def read(name: str) -> AnnData:
        file = folder / f"{name}.h5ad"
        if not file.exists():
            pytest.skip(f"no {file.name}: set SCOVERT_DATA to the folder with the public data")
        return anndata.read_h5ad(file)

    return read
