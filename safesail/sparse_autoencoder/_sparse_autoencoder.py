"""A sparse autoencoder: what it reads, its features, and what it rebuilds."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safesail.errors import CandidateError, ModelError
from safesail.sparse_autoencoder._candidates import Candidate
from safesail.sparse_autoencoder._encoding import BY_COLUMN, encode
from safesail.sparse_autoencoder._formats import SAE_LENS
from safesail.sparse_autoencoder._loading import LoadedSae, load
from safesail.sparse_autoencoder._names import block_number
from safesail.sparse_autoencoder._processing import needs_centring

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel

# What SAELens keeps on its module from encode to decode, where an SAE scales each input.
_SCALING_STATE = ("x_norm_coeff", "ln_mu", "ln_std")
# Gemma Scope 2's transcoders read this; SAELens calls it hook_mlp_in, by which TransformerLens
# means the residual stream before that norm.
_NORMED_MLP_INPUT = "pre_feedforward_layernorm.output"


class SparseAutoencoder:
    """A trained SAE or transcoder in float32, its heads flattened where it reads attention heads.

    `decode(encode(x))` rebuilds, from activations x at `hook_point`, the activations of the same
    tokens at `output_hook_point`. For an SAE the two are one; a transcoder reads one point of a
    block and rebuilds another, so its error is taken against activations that it does not read.

    Attributes:
        name: of its candidate.
        source: absolute folder or file, or `release:sae_id`.
        architecture: SAELens' name of it.
        hook_point: what it reads; `check_fits` turns a Hugging Face name into TransformerLens'.
        output_hook_point: what `decode` rebuilds; for an SAE its `hook_point`.
        layer: number of the block that the hook point lies in.
        width: number of features.
        d_in: size of the activations it reads.
        d_out: size of the activations it rebuilds; for an SAE its `d_in`.
        stated_l0: mean number of active features that its makers state, where they do.
        prepend_bos: whether its training texts began with BOS.
        context_size: tokens of its training texts, where known.
        model_name: the model it was trained on, where known.
        fingerprint: changes when its files do.
        warnings: what a user should know before trusting it, one line each.
    """

    def __init__(self, candidate: Candidate, loaded: LoadedSae) -> None:
        """Wrap a loaded SAE; use `SparseAutoencoder.load`."""
        sae = loaded.sae
        metadata = sae.cfg.metadata
        # Activations come with heads flattened, as the weights have them.
        sae.turn_off_forward_pass_hook_z_reshaping()
        sae.eval().requires_grad_(False)
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            # The same function with the norms in the weights: two passes over all features fewer.
            sae.fold_W_dec_norm()
            sae.cfg.rescale_acts_by_decoder_norm = False
        self._sae = sae
        self.name = candidate.name
        self.source = candidate.source
        self.architecture: str = sae.cfg.architecture()
        self.hook_point, self.layer = _site(metadata, candidate.source)
        self.output_hook_point = self.hook_point
        if "transcoder" in self.architecture:
            self.output_hook_point = _output_site(metadata, candidate.source)
        self.width = int(sae.cfg.d_sae)
        self.d_in = int(sae.cfg.d_in)
        self.d_out = int(getattr(sae.cfg, "d_out", self.d_in))
        self.stated_l0 = candidate.l0
        self.context_size: int | None = metadata.context_size
        self.model_name: str | None = metadata.model_name
        self.fingerprint = candidate.fingerprint()
        self.warnings = loaded.warnings
        if metadata.prepend_bos is None:
            self.warnings.append("its cfg.json does not say prepend_bos: taken as true")
        self.prepend_bos = metadata.prepend_bos is not False
        # Of other layouts SAELens states a rule that their files do not.
        self._bos_is_stated = loaded.layout == SAE_LENS
        self._model_settings: dict[str, Any] = metadata.model_from_pretrained_kwargs or {}
        self._centred = False
        self._mean: Tensor | None = None
        self._skip: Tensor | None = getattr(sae, "W_skip", None)
        self._skipped: Tensor | None = None

    @classmethod
    def load(cls, candidate: Candidate, *, device: str) -> SparseAutoencoder:
        """Load an SAE in any layout of docs/saes.md.

        Args:
            candidate: of `find_candidates`.
            device: where the model runs.

        Raises:
            CandidateError: missing, damaged, unreachable, in a layout or of an architecture that
                safesail does not rank, or in a form that must be exported or folded first.
        """
        return cls(candidate, load(candidate, device))

    def check_fits(self, model: LanguageModel) -> None:
        """Check that the model has what this SAE reads and rebuilds, and settle the points' names.

        A model of another name than the one it was trained on is a warning, not an error. Where
        the SAE was trained on processed weights, this settles whether inputs are centred.

        Raises:
            CandidateError: a hook point is absent, or of another size than the SAE's; or the
                SAE was trained on weights processed in a way that changes them.
        """
        try:
            self.hook_point = model.hook_point(self.hook_point)
            self.output_hook_point = model.hook_point(self.output_hook_point)
            self.layer = model.layer_of(self.hook_point)
            sizes = [model.activation_size(p) for p in (self.hook_point, self.output_hook_point)]
        except ModelError as error:
            raise CandidateError(f"SAE {self.name}: {error}") from error
        for verb, own, point, size in (
            ("reads", self.d_in, self.hook_point, sizes[0]),
            ("rebuilds", self.d_out, self.output_hook_point, sizes[1]),
        ):
            if size != own:
                raise CandidateError(
                    f"SAE {self.name} {verb} {own} numbers per token, {point} of model "
                    f"{model.name!r} has {size}: it was trained on another model or hook point"
                )
        self._centred = needs_centring(
            self._model_settings,
            (self.hook_point, self.output_hook_point),
            norms_centre=model.norms_centre,
            source=self.name,
        )
        if self.prepend_bos and not self._bos_is_stated and model.bos_token_id is None:
            self.prepend_bos = False
        if self.model_name and not model.is_called(self.model_name):
            warning = f"it was trained on {self.model_name}, the model is {model.name}"
            if warning not in self.warnings:
                self.warnings.append(warning)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """Activations of all features, as SAELens' `encode` gives them.

        Args:
            x: [n, d_in], at `hook_point`.

        Returns:
            float32 [n, width].
        """
        self._mean = x.mean(dim=-1, keepdim=True) if self._centred else None
        self._skipped = None if self._skip is None else x
        return self._encode(x, slice(None))

    @torch.inference_mode()
    def encode_features(self, x: Tensor, features: Tensor) -> Tensor:
        """Activations of some features, the same as those columns of `encode`.

        Costs as much as the features asked where the architecture computes each from its own
        column of the encoder (standard, JumpReLU, gated, transcoders); else all are encoded.

        Args:
            x: [n, d_in], at `hook_point`.
            features: int64 [k].

        Returns:
            float32 [n, k].
        """
        scaling = self._scaling()
        encoded = self._encode(x, features.to(x.device))
        self._set_scaling(scaling)
        return encoded

    def columns_computed(self, features: int) -> int:
        """How many features `encode_features` computes to give so many."""
        return features if self.architecture in BY_COLUMN else self.width

    def _encode(self, x: Tensor, columns: Tensor | slice) -> Tensor:
        return encode(self._sae, x - x.mean(dim=-1, keepdim=True) if self._centred else x, columns)

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Rebuild the activations at `output_hook_point` from features.

        Some SAEs scale or centre each input by itself (`normalize_activations` "layer_norm" or
        "constant_norm_rescale"; training on a centred residual stream), and skip transcoders add
        a linear map of it. What `encode` took from an input is given back here, so such an SAE
        decodes the rows that it has just encoded.

        Args:
            z: [n, width], dense or sparse CSR; for such an SAE, features of the inputs of the last
                `encode`.

        Returns:
            float32 [n, d_out].

        Raises:
            CandidateError: such an SAE is asked to decode other rows than it has just encoded.
        """
        scaling = self._scaling()
        kept = [value for value in (self._mean, self._skipped) if value is not None]
        taken = [*scaling.values(), *kept]
        own_scale = self._sae.cfg.normalize_activations != "none"
        if (own_scale or self._centred or self._skip is not None) and (
            not taken or any(len(value) != len(z) for value in taken)
        ):
            raise CandidateError(
                f"SAE {self.name} rebuilds with what it took from each input: it decodes only "
                "what it has just encoded"
            )
        rebuilt: Tensor = self._sae.decode(z)
        self._set_scaling(scaling)
        if self._skip is not None and self._skipped is not None:
            rebuilt = rebuilt + self._skipped @ self._skip.T
        return rebuilt if self._mean is None else rebuilt + self._mean

    @cached_property
    def decoder_directions(self) -> Tensor:
        """Where each feature writes: float32 [width, d_out], rows of length 1 (or 0)."""
        return torch.nn.functional.normalize(self._sae.W_dec.detach(), dim=-1)

    @cached_property
    def decoder_rows(self) -> Tensor:
        """What one unit of each feature adds, in the SAE's own units: float32 [width, d_out]."""
        rows: Tensor = self._sae.W_dec.detach().float()
        return rows

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
        for part in features.split(128):
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
    if metadata.hook_head_index is not None:
        raise CandidateError(
            f"SAE {source} reads head {metadata.hook_head_index} of {name} alone: safesail reads "
            "all heads of a layer"
        )
    if str(name).endswith(".hook_mlp_in"):
        if not str(metadata.hf_hook_name).endswith(_NORMED_MLP_INPUT):
            raise CandidateError(
                f"SAE {source} reads {name}, a name that is used for two things: set "
                f"`metadata.hook_name` to blocks.{layer}.hook_resid_mid (before the norm) or "
                f"blocks.{layer}.mlp.hook_in (after it)"
            )
        return f"blocks.{layer}.mlp.hook_in", layer
    return str(name), layer


def _output_site(metadata: Any, source: str) -> str:
    name = metadata.hook_name_out or metadata.hf_hook_name_out
    if block_number(name) is None:
        raise CandidateError(
            f"transcoder {source} does not say what it rebuilds: set `metadata.hook_name_out` in "
            "its cfg.json, e.g. `blocks.12.hook_mlp_out`"
        )
    return str(name)
