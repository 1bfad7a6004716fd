"""A causal language model read at hook points inside its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model._chat import as_conversation
from safesail.language_model._forward import Forward
from safesail.language_model._hook_points import HookPoints
from safesail.language_model._loading import LoadedModel, load, resolve_device
from safesail.language_model._logits import ranked_tokens, token_text
from safesail.language_model._sinks import Observation, thresholds_of, without_sinks
from safesail.language_model._text import (
    TokenBatch,
    TokenizedText,
    bucketed,
    document_key,
    pad,
    pieces,
)
from safesail.language_model.names import same_model


class LanguageModel:
    """A causal language model up to its hook points; what it shows there is float32.

    Attributes:
        name: hub name, or the folder's name.
        folder: where the model lies; None where it came from the hub.
        fingerprint: changes when the model's files do.
        layers: number of blocks.
        d_model: width of the residual stream.
        context_size: most tokens in one text, BOS included.
        norms_centre: whether its norms take the mean away (LayerNorm; RMSNorm does not).
        device: where it runs.
        dtype: precision it runs in: `float32`, `bfloat16` or `float16`.
        tokenizer: of transformers; it adds no BOS here, see `tokenize`.
        bos_token_id: None where the tokenizer has no BOS token.
    """

    def __init__(self, loaded: LoadedModel, device: str) -> None:
        """Wrap a loaded model; use `LanguageModel.load`."""
        self._bridge = loaded.bridge
        self._hook_points = HookPoints(loaded.bridge, loaded.name)
        self._forward = Forward(loaded.bridge, loaded.plain, self._hook_points, loaded.name)
        self._run = self._forward.run
        self._vocabulary = int(loaded.bridge.original_model.config.get_text_config().vocab_size)
        self._sizes: dict[str, int] = {}
        self.name = loaded.name
        self.folder = loaded.folder
        self.fingerprint = loaded.fingerprint
        self.layers = int(loaded.bridge.cfg.n_layers)
        self.d_model = int(loaded.bridge.cfg.d_model)
        self.context_size = int(loaded.bridge.cfg.n_ctx)
        self.norms_centre = str(loaded.bridge.cfg.normalization_type) in ("LN", "LNPre")
        self.device = device
        self.dtype = str(loaded.bridge.cfg.dtype).removeprefix("torch.")
        self.tokenizer = loaded.tokenizer
        self.bos_token_id: int | None = loaded.tokenizer.bos_token_id

    @classmethod
    def load(
        cls,
        reference: str,
        *,
        folder: Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> LanguageModel:
        """Load a model.

        Args:
            reference: a folder saved by transformers (then the network is never asked), or a name
                on the Hugging Face hub.
            folder: base of relative paths; the working directory by default.
            device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32, and on a CUDA GPU the half
                precision that the model is stored in (bfloat16 only where the GPU computes it).

        Raises:
            ModelError: folder missing or not a model, files damaged or of different models, hub
                model unreachable or gated, tokenizer without a fast version, no such device or
                precision.
        """
        device = resolve_device(device)
        return cls(load(reference, folder=folder, device=device, dtype=dtype), device)

    def is_called(self, name: str) -> bool:
        """Whether this may be the model of that name (`google/gemma-2-2b` is `gemma-2-2b`).

        A folder can have any name, so a model from a folder is never told apart by it.
        """
        return self.folder is not None or same_model(name, self.name)

    def tokenize(
        self,
        text: str,
        *,
        document: str,
        prepend_bos: bool,
        context_size: int | None = None,
        chat: bool = False,
        messages: Sequence[tuple[str, str]] | None = None,
    ) -> list[TokenizedText]:
        """Tokenise a text and cut it into pieces that fit the model.

        Args:
            text: any text; without tokens (empty) it gives no piece.
            document: its id, carried along.
            prepend_bos: leave room for BOS in each piece.
            context_size: most tokens of a piece with its BOS; the model's own limit holds too.
            chat: put the text into the model's chat template as a user's message; only the text's
                own tokens are content.
            messages: put these into the chat template instead, role and content each; only the
                contents' own tokens are content. The text is then what the key is made of.

        Raises:
            ModelError: BOS is asked of a tokenizer without one, the tokenizer knows tokens that
                the model does not, or it has no chat template or one that does not take the text.
        """
        self._bos(prepend_bos)
        size = min(context_size or self.context_size, self.context_size) - prepend_bos
        if size < 1:
            raise ModelError(f"a context size of {context_size} leaves no room for text")
        key, parts = document_key(document, text), None
        section = "ranking" if messages is None else "corpus.sources"
        if messages is None and chat and text:
            messages = [("user", text)]
        if messages is not None:
            text, parts = as_conversation(
                messages, self.tokenizer, name=self.name, document=document, section=section
            )
        found = pieces(
            text,
            document=document,
            tokenizer=self.tokenizer,
            tokens_per_piece=size,
            parts=parts,
            key=key,
        )
        largest = max((max(piece.token_ids) for piece in found), default=0)
        if largest >= self._vocabulary:
            raise ModelError(
                f"tokenizer and model {self.name!r} do not belong together: document {document!r} "
                f"gives token {largest}, the model knows {self._vocabulary}: "
                "put the model's own tokenizer files into its folder"
            )
        return found

    def batches(
        self,
        texts: Iterable[TokenizedText],
        *,
        prepend_bos: bool,
        tokens_per_batch: int = 4096,
    ) -> Iterator[TokenBatch]:
        """Gather texts of like length into batches; each text appears exactly once.

        The batches depend on the texts and their order alone: the same list gives the same ones.
        Padding takes at most 4 % of the tokens, but in batches of less than 1,024 tokens or a
        sixteenth of `tokens_per_batch`, whichever is less.

        Args:
            texts: read lazily, some 64 batches ahead.
            prepend_bos: put BOS before each text.
            tokens_per_batch: most tokens of a batch, padding included (a longer text is a batch
                of its own).

        Raises:
            ModelError: BOS is asked of a tokenizer without one.
        """
        bos = self._bos(prepend_bos)
        special = self.tokenizer.all_special_ids
        for group in bucketed(texts, first=int(prepend_bos), tokens_per_batch=tokens_per_batch):
            yield pad(group, bos_token_id=bos, special_ids=special, device=self.device)

    def hook_point(self, name: str) -> str:
        """TransformerLens name of a hook point; Hugging Face module names are mapped to it.

        Raises:
            ModelError: the model has no such hook point inside its blocks.
        """
        return self._hook_points.canonical(name)

    def layer_of(self, hook_point: str) -> int:
        """Number of the block that a hook point lies in.

        Raises:
            ModelError: as `hook_point`.
        """
        return self._hook_points.layer_of(hook_point)

    def activation_size(self, hook_point: str) -> int:
        """Numbers per token at a hook point (heads and their dimensions flattened).

        Raises:
            ModelError: no such hook point, or what it shows is not one vector per token.
        """
        name = self.hook_point(hook_point)
        if name not in self._sizes:
            ids = torch.zeros(1, 5, dtype=torch.int64, device=self.device)
            mask = torch.ones_like(ids, dtype=torch.bool)
            shape = self._run(ids, mask, [name])[name].shape
            if shape[:2] != (1, 5):
                raise ModelError(
                    f"hook point {hook_point!r} does not show one vector per token: "
                    "use one on the residual stream, or after the MLP or attention"
                )
            self._sizes[name] = shape[2]
        return self._sizes[name]

    def activations(self, batch: TokenBatch, hook_points: Sequence[str]) -> dict[str, Tensor]:
        """Activations at some hook points, in one forward pass that ends at the last of them.

        Args:
            batch: of this model's `batches`.
            hook_points: TransformerLens or Hugging Face names.

        Returns:
            By the names given: float32 [batch, position, d]; heads are flattened into d. Values
            at padding are meaningless.

        Raises:
            ModelError: a hook point is absent.
        """
        names = {name: self.hook_point(name) for name in hook_points}
        found = self._run(batch.token_ids, batch.attention_mask, sorted(set(names.values())))
        return {name: found[canonical] for name, canonical in names.items()}

    def observe(
        self,
        batch: TokenBatch,
        hook_points: Sequence[str],
        sink_thresholds: Mapping[str, float],
    ) -> dict[str, Observation]:
        """Activations with a content mask that leaves attention sinks out, in one forward pass.

        Args:
            batch: of this model's `batches`.
            hook_points: TransformerLens or Hugging Face names.
            sink_thresholds: of `sink_thresholds`, for each of the hook points.

        Raises:
            ModelError: a hook point is absent.
        """
        residual = {name: self._hook_points.residual(name) for name in hook_points}
        found = self.activations(batch, [*hook_points, *residual.values()])
        return without_sinks(batch, found, residual, sink_thresholds)

    def observe_and_calibrate(
        self, batches: Iterator[TokenBatch], hook_points: Sequence[str]
    ) -> tuple[dict[str, float], list[tuple[TokenBatch, dict[str, Observation]]]]:
        """`sink_thresholds` of the first batches, and `observe` of these, in one pass over them.

        Args:
            batches: of this model; what is not needed to tell sinks is left in it.
            hook_points: TransformerLens or Hugging Face names.

        Returns:
            The thresholds, and each batch taken with what was observed on it. They hold some
            20,000 tokens at each hook point in memory.

        Raises:
            ModelError: as `sink_thresholds`.
        """
        residual = {name: self._hook_points.residual(name) for name in hook_points}
        taken = []

        def read() -> Iterator[tuple[TokenBatch, dict[str, Tensor]]]:
            for batch in batches:
                taken.append((batch, self.activations(batch, [*hook_points, *residual.values()])))
                yield taken[-1]

        thresholds = thresholds_of(read(), residual)
        return thresholds, [
            (batch, without_sinks(batch, found, residual, thresholds)) for batch, found in taken
        ]

    def sink_thresholds(
        self, batches: Iterable[TokenBatch], hook_points: Sequence[str]
    ) -> dict[str, float]:
        """Hidden norms above which a token is an attention sink.

        The threshold is 8 times the median norm over the first 20,000 content tokens. The norm is
        the residual stream's: at the hook point where it lies on the stream, else after its block.

        Args:
            batches: of this model; read until there are tokens enough.
            hook_points: TransformerLens or Hugging Face names.

        Returns:
            By the names given.

        Raises:
            ModelError: a hook point is absent, or the batches hold no content token.
        """
        residual = {name: self._hook_points.residual(name) for name in hook_points}
        points = sorted(set(residual.values()))
        read = ((batch, self.activations(batch, points)) for batch in batches)
        return thresholds_of(read, residual)

    def logit_directions(self, directions: Tensor, count: int) -> list[tuple[list[str], list[str]]]:
        """Tokens that directions of the residual stream make likelier and less likely.

        Direct logit attribution: a direction times the final norm's weight (and its centring,
        where the norm centres) times the unembedding; the norm's division by the token's own
        scale is left out, as it changes no order.

        Args:
            directions: float [k, d_model].
            count: tokens per side.

        Returns:
            Per direction the top and the bottom tokens, strongest first.

        Raises:
            ModelError: the directions are not as wide as the residual stream.
        """
        if directions.shape[-1] != self.d_model:
            raise ModelError(
                f"directions of size {directions.shape[-1]} do not write to the residual stream "
                f"of {self.name!r}, which has {self.d_model}"
            )
        known = min(self._vocabulary, len(self.tokenizer))
        answer = ranked_tokens(self._bridge, directions.to(self.device), known, count)

        def texts(ids: list[int]) -> list[str]:
            return [token_text(i, self.tokenizer) for i in ids]

        return [(texts(top), texts(bottom)) for top, bottom in answer]

    def _bos(self, prepend_bos: bool) -> int | None:
        if prepend_bos and self.bos_token_id is None:
            raise ModelError(
                f"the tokenizer of {self.name!r} has no BOS token, which is to be prepended: set "
                "`bos_token` in its tokenizer_config.json, or `prepend_bos` false in the SAE's "
                "cfg.json"
            )
        return self.bos_token_id if prepend_bos else None
