"""A sparse autoencoder: what it reads, its features, and how it rebuilds its input."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safesail.errors import CandidateError, ModelError
from safesail.sparse_autoencoder._candidates import Candidate, block_number
from safesail.sparse_autoencoder._loading import load

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel

# What SAELens keeps on its module from encode to decode, where an SAE scales each input.
_SCALING_STATE = ("x_norm_coeff", "ln_mu", "ln_std")
# Hook points on what centred weights write to: there, centring takes the mean from each input.
_CENTRED_SITES = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_mlp_out",
    "hook_attn_out",
)
# Architectures in which a feature depends on its own column of the encoder alone.
_BY_COLUMN = ("standard", "jumprelu", "gated")
_HARMLESS_MODEL_SETTINGS = frozenset(
    {"n_devices", "device", "dtype", "torch_dtype", "fold_ln", "center_unembed"}
)


class SparseAutoencoder:
    """A trained SAE in float32, its heads flattened where it reads attention heads.

    Attributes:
        name: of its candidate.
        source: absolute folder, or `release:sae_id`.
        architecture: SAELens' name of it.
        hook_point: what it reads; `check_fits` turns a Hugging Face name into TransformerLens'.
        layer: number of the block that the hook point lies in.
        width: number of features.
        d_in: size of the activations it reads and rebuilds.
        prepend_bos: whether its training texts began with BOS.
        context_size: tokens of its training texts, where known.
        model_name: the model it was trained on, where known.
        fingerprint: changes when its files do.
        warnings: what a user should know before trusting it, one line each.
    """

    def __init__(self, candidate: Candidate, sae: Any, warnings: list[str]) -> None:
        """Wrap a loaded SAE; use `SparseAutoencoder.load`."""
        metadata = sae.cfg.metadata
        self._sae = sae
        self.name = candidate.name
        self.source = candidate.source
        self.architecture: str = sae.cfg.architecture()
        self.hook_point, self.layer = _site(metadata, candidate.source)
        self.width = int(sae.cfg.d_sae)
        self.d_in = int(sae.cfg.d_in)
        self.context_size: int | None = metadata.context_size
        self.model_name: str | None = metadata.model_name
        self.fingerprint = candidate.fingerprint()
        self.warnings = warnings
        if metadata.prepend_bos is None:
            self.warnings.append("its cfg.json does not say prepend_bos: taken as true")
        self.prepend_bos = metadata.prepend_bos is not False
        settings = metadata.model_from_pretrained_kwargs or {}
        self._centred = bool(settings.get("center_writing_weights")) and self.hook_point.endswith(
            _CENTRED_SITES
        )
        self._mean: Tensor | None = None
        unmet = sorted(settings.keys() - _HARMLESS_MODEL_SETTINGS - {"center_writing_weights"})
        if unmet:
            self.warnings.append(
                f"it was trained on a model loaded with {', '.join(unmet)}, which safesail "
                "does not apply"
            )

    @classmethod
    def load(cls, candidate: Candidate, *, device: str) -> SparseAutoencoder:
        """Load an SAE through SAELens.

        Args:
            candidate: of `find_candidates`.
            device: where the model runs.

        Raises:
            CandidateError: missing, damaged, unreachable, of an architecture that safesail does
                not rank, or in a form that must be exported or folded first.
        """
        return cls(candidate, *load(candidate, device))

    def check_fits(self, model: LanguageModel) -> None:
        """Check that the model has what this SAE reads, and settle the hook point's name.

        A model of another name than the one it was trained on is a warning, not an error.

        Raises:
            CandidateError: the hook point is absent, or of another size than the SAE reads.
        """
        try:
            self.hook_point = model.hook_point(self.hook_point)
            self.layer = model.layer_of(self.hook_point)
            size = model.activation_size(self.hook_point)
        except ModelError as error:
            raise CandidateError(f"SAE {self.name}: {error}") from error
        if size != self.d_in:
            raise CandidateError(
                f"SAE {self.name} reads {self.d_in} numbers per token, {self.hook_point} of model "
                f"{model.name!r} has {size}: it was trained on another model or hook point"
            )
        if self.model_name and not model.is_called(self.model_name):
            warning = f"it was trained on {self.model_name}, the model is {model.name}"
            if warning not in self.warnings:
                self.warnings.append(warning)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """Activations of all features.

        Args:
            x: [n, d_in], at the hook point.

        Returns:
            float32 [n, width].
        """
        self._mean = x.mean(dim=-1, keepdim=True) if self._centred else None
        return self._encode(x, slice(None))

    @torch.inference_mode()
    def encode_features(self, x: Tensor, features: Tensor) -> Tensor:
        """Activations of some features, the same as those columns of `encode`.

        Costs as much as the features asked where the architecture computes each from its own
        column of the encoder (standard, JumpReLU, gated); else all are encoded.

        Args:
            x: [n, d_in], at the hook point.
            features: int64 [k].

        Returns:
            float32 [n, k].
        """
        scaling = self._scaling()
        encoded = self._encode(x, features.to(x.device))
        self._set_scaling(scaling)
        return encoded

    def _encode(self, x: Tensor, columns: Tensor | slice) -> Tensor:
        sae = self._sae
        if self._centred:
            x = x - x.mean(dim=-1, keepdim=True)
        if self.architecture not in _BY_COLUMN:
            return sae.encode(x)[:, columns]
        drive = sae.process_sae_in(x) @ sae.W_enc[:, columns]
        if self.architecture == "gated":
            magnitude = drive * sae.r_mag[columns].exp() + sae.b_mag[columns]
            return magnitude.relu() * (drive + sae.b_gate[columns] > 0)
        # In place: at full width, passes over memory cost as much as the product.
        drive.add_(sae.b_enc[columns])
        if self.architecture == "jumprelu":
            active = drive > sae.threshold[columns]
            return drive.relu_().mul_(active)
        return drive.relu_()

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Rebuild activations from features.

        Some SAEs scale or centre each input by itself (`normalize_activations` "layer_norm" or
        "constant_norm_rescale"; training on a centred residual stream). What `encode` took from
        an input is given back here, so such an SAE decodes the rows that it has just encoded.

        Args:
            z: [n, width]; for such an SAE, features of the inputs of the last `encode`.

        Returns:
            float32 [n, d_in].

        Raises:
            CandidateError: such an SAE is asked to decode other rows than it has just encoded.
        """
        scaling = self._scaling()
        taken = [*scaling.values()] + ([] if self._mean is None else [self._mean])
        own_scale = self._centred or self._sae.cfg.normalize_activations != "none"
        if own_scale and (not taken or any(len(value) != len(z) for value in taken)):
            raise CandidateError(
                f"SAE {self.name} scales or centres each input: it decodes only what it has "
                "just encoded"
            )
        rebuilt = self._sae.decode(z)
        self._set_scaling(scaling)
        return rebuilt if self._mean is None else rebuilt + self._mean

    @cached_property
    def decoder_directions(self) -> Tensor:
        """Where each feature writes: float32 [width, d_in], rows of length 1 (or 0)."""
        return torch.nn.functional.normalize(self._sae.W_dec.detach(), dim=-1)

    def nearest_features(self, features: Tensor, count: int) -> Tensor:
        """Features whose decoder directions have the largest cosine, nearest first.

        Args:
            features: int64 [k].
            count: neighbours of each; at most width - 1.

        Returns:
            int64 [k, count]; a feature is not its own neighbour.
        """
        directions = self.decoder_directions
        features = features.to(directions.device)
        found = []
        for part in features.split(1024):
            cosines = directions[part] @ directions.T
            cosines[torch.arange(len(part)), part] = -torch.inf
            found.append(cosines.topk(min(count, self.width - 1), dim=-1).indices)
        return torch.cat(found)

    def _scaling(self) -> dict[str, Tensor]:
        state = vars(self._sae)
        return {name: state[name] for name in _SCALING_STATE if name in state}

    def _set_scaling(self, scaling: dict[str, Tensor]) -> None:
        for name in _SCALING_STATE:
            vars(self._sae).pop(name, None)
        vars(self._sae).update(scaling)


def _site(metadata: Any, source: str) -> tuple[str, int]:
    name = metadata.hook_name or metadata.hf_hook_name
    layer = block_number(name)
    if layer is None:
        raise CandidateError(
            f"SAE {source} reads {name!r}, which lies in no block of a model: "
            "set `metadata.hook_name` in its cfg.json, e.g. `blocks.12.hook_resid_post`"
        )
    return str(name), layer
