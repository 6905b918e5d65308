"""A model on scovert's chassis: a negative binomial autoencoder without datasets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn
from torch.distributions import Normal

from scovert.core._annotating import annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._beginning import begin_training
from scovert.core._checks import check_gene_list, check_genes, check_layer
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table, dispersion_row, finite_row
from scovert.core._losses import kl_standard_normal, negative_binomial
from scovert.core._minibatch import check_trained, genes_of, over_minibatches, read_query
from scovert.core._nn import CellEncoder
from scovert.core._registering import check_set_up, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core.dataloaders._cells import COUNTS_KEY
from scovert.core.dataloaders._shuffled import ShuffledData, split_rows
from scovert.core.training._plan import Plan
from scovert.core.training._run import run


class CountModule(BaseModuleClass):
    """Counts to a latent position, and back to shares of the genes."""

    def __init__(self, log_mean: Tensor, n_latent: int) -> None:
        super().__init__()
        sizes = {"n_layers": 1, "n_hidden": 7, "dropout_rate": 0.1}
        self.z_encoder = CellEncoder(len(log_mean), n_latent, **sizes)
        self.decoder = nn.Linear(n_latent, len(log_mean))
        self.decoder.bias.data = log_mean
        self.px_r = nn.Parameter(torch.zeros(len(log_mean)))

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    def inference(self, x: Tensor) -> dict[str, Tensor]:
        mean, variance = self.z_encoder(x.log1p())
        qz = Normal(mean, variance.sqrt())
        return {"qz": qz, "z": qz.rsample(), "library": x.sum(1, keepdim=True)}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor]:
        return {name: inference_outputs[name] for name in ("z", "library")}

    def generative(self, z: Tensor, library: Tensor) -> dict[str, Tensor]:
        return {"mean": library * self.decoder(z).softmax(-1)}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        counts, theta = tensors[COUNTS_KEY], self.px_r.exp()
        reconstruction = negative_binomial(generative_outputs["mean"], theta, counts)
        kl = kl_standard_normal(inference_outputs["qz"])
        loss = (reconstruction + kl_weight * kl).mean()
        return LossOutput(loss, reconstruction, kl)

    def posterior_mean(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.inference(tensors[REGISTRY_KEYS.X_KEY])["qz"].mean

    def decoded(self, tensors: dict[str, Tensor], genes: NDArray) -> Tensor:
        library = tensors[REGISTRY_KEYS.X_KEY].sum(1, keepdim=True)
        return self.generative(self.posterior_mean(tensors), library)["mean"][:, genes]


@knows_its_arguments()
class CountAutoencoder(SaveLoadMixin, BaseModelClass):
    """Counts in, a latent space and decoded counts out."""

    def __init__(self, adata: AnnData, *, n_latent: int = 3) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        log_mean = read_query(self, adata)[1].log_mean_shares()[0]
        self.module = CountModule(torch.from_numpy(log_mean), n_latent)
        self._model_summary_string = f"{type(self).__name__} of {adata.n_obs} cells"
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls, adata: AnnData, layer: str | None = None, _registry: dict | None = None
    ) -> None:
        where = check_layer(adata, layer)
        check_genes(adata)
        check_counts(get_counts(adata, layer), where, adata)
        register(cls, adata, {}, _registry, layer=layer)

    def train(
        self, max_epochs: int = 20, *, batch_size: int = 32, checkpoint_dir=None, **trainer_kwargs
    ) -> None:
        asked = {"max_epochs": max_epochs, "batch_size": batch_size}
        resumable = begin_training(self, checkpoint_dir, trainer_kwargs, None, **asked)
        cells = read_query(self, None)[1]
        rows = split_rows(len(cells), 0.1, np.random.default_rng(resumable.seed))
        data, plan = ShuffledData(cells, *rows, batch_size=batch_size), Plan(self.module)
        save = partial(self._save_best, resumable)
        run(self, plan, data, max_epochs, resumable=resumable, on_best=save, **trainer_kwargs)
        save(self.history_)
        resumable.end()

    def get_latent_representation(self, adata=None, indices=None, batch_size=None) -> NDArray:
        return over_minibatches(self, self.module.posterior_mean, adata, indices, batch_size)[0]

    def get_normalized_expression(
        self, adata=None, indices=None, *, gene_list=None, batch_size=None
    ) -> pd.DataFrame:
        genes = genes_of(self.registry)
        chosen = check_gene_list(gene_list, genes)
        compute = partial(self.module.decoded, genes=genes.get_indexer(chosen))
        values, names = over_minibatches(self, compute, adata, indices, batch_size)
        return pd.DataFrame(values, index=names, columns=chosen)

    def annotate(
        self, adata=None, *, key_added="counts_ae", write_layer=True, overwrite=False
    ) -> None:
        target = find_target(self, adata, layer=key_added if write_layer else None)
        values = {("obsm", f"X_{key_added}"): self.get_latent_representation}
        if write_layer:
            expression = partial(self.get_normalized_expression, gene_list=target.var_names)
            values["layers", key_added] = expression
        annotate(
            self,
            target,
            key_added,
            list(values),
            lambda: ({slot: np.asarray(get(target)) for slot, get in values.items()}, {}),
            options={},
            overwrite=overwrite,
        )

    def check(self) -> pd.DataFrame:
        check_trained(self)
        theta = self.module.px_r.detach().exp().numpy()
        return check_table([finite_row(self.history), dispersion_row(theta)])
