"""All that is kept of a corpus for one SAE's features: of fixed size, and mergeable.

What is kept depends on the set of documents seen and on the settings, never on the order, the
batches or the parts in which they were seen (but for rounding in the activations themselves).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from safesail.contexts._active import ActiveRows, ActiveWindows
from safesail.contexts._counts import Counts
from safesail.contexts._hashing import priorities, salt
from safesail.contexts._silent import SilentRows, SilentSample
from safesail.contexts._texts import WindowTexts
from safesail.contexts._windows import SPLITS, WINDOW_TOKENS, ContentTokens, Windows
from safesail.language_model import TokenizedText
from safesail.study import CollectionSettings

# Silent windows are looked for among so many of each split.
_SILENT_SAMPLE = 8_192
# Rows and window texts held before what can no longer matter is dropped.
_ROWS_HELD = 1 << 17
_TEXTS_HELD = 1 << 14


@dataclass(frozen=True)
class SketchSettings:
    """What decides how much is kept, and which windows.

    Attributes:
        top: strongest windows of each feature and split.
        per_bin: windows of each feature, split and sampling bin.
        silent_sample: windows of each split that silent ones are looked for among.
        seed: of the draws.
    """

    top: int
    per_bin: int
    silent_sample: int
    seed: int

    @classmethod
    def of(cls, settings: CollectionSettings) -> SketchSettings:
        """Room for what the study's settings ask."""
        return cls(
            settings.top,
            settings.per_level,
            max(_SILENT_SAMPLE, 2 * (settings.silent + settings.hard_silent)),
            settings.seed,
        )


class Sketch:
    """Counts, histograms, and the windows worth keeping, of one SAE's features.

    Attributes:
        features: indices in the SAE, ascending.
        settings: how much is kept.
        counts: counts and histograms.
    """

    def __init__(
        self, features: Sequence[int], settings: SketchSettings, *, device: str = "cpu"
    ) -> None:
        """Nothing seen yet.

        Args:
            features: indices in the SAE, ascending.
            settings: how much is kept.
            device: where activations come from.
        """
        self.features = tuple(features)
        self.settings = settings
        self.counts = Counts.empty(len(self.features), device)
        self._active = ActiveWindows(
            len(self.features), top=settings.top, per_bin=settings.per_bin, device=device
        )
        self._silent = SilentSample(
            len(self.features), size=settings.silent_sample, seed=settings.seed
        )
        self._texts = WindowTexts()
        self._rows_due, self._texts_due = _ROWS_HELD, _TEXTS_HELD
        self._salts = torch.tensor(
            [salt(feature, settings.seed) for feature in self.features], device=device
        )

    @torch.inference_mode()
    def add(
        self,
        texts: Sequence[TokenizedText],
        windows: Windows,
        content: ContentTokens,
        encoded: Tensor,
    ) -> None:
        """Take in the activations of one batch.

        Args:
            texts: the batch's texts, each seen once.
            windows: of these texts.
            content: where the content tokens lie in them.
            encoded: activations at the content tokens, finite, float32 [T, features]; those below
                zero, which some SAEs allow, become zero in place: they count as silent.
        """
        device = encoded.device
        encoded.clamp_(min=0)
        peaks = torch.zeros(len(windows), len(self.features), device=device)
        owners = content.window[:, None].expand(-1, len(self.features))
        peaks.scatter_reduce_(0, owners, encoded, "amax")
        split = torch.from_numpy(windows.split).to(device)
        window, feature = (peaks > 0).nonzero(as_tuple=True)
        values = peaks[window, feature]
        # A window without a content token was not looked at: it is not silent.
        seen = content.count > 0
        self.counts.add_tokens(encoded)
        self.counts.add_windows(split[seen], feature, split[window], values)

        keys = torch.from_numpy(windows.key).to(device)
        priority = priorities(keys[window], self._salts[feature])
        group = feature * len(SPLITS) + split[window]
        kept = self._active.may_stay(group, values, priority).nonzero()[:, 0]
        window, feature = window[kept], feature[kept]
        numbers = window.cpu().numpy()
        self._active.add(
            ActiveRows(
                feature.cpu().numpy().astype(np.int32),
                windows.split[numbers].astype(np.int8),
                priority[kept].cpu().numpy(),
                values[kept].cpu().numpy(),
                windows.key[numbers],
                csr_array(_activations(window, feature, content, encoded).cpu().numpy()),
            )
        )
        looked = seen.cpu().numpy().nonzero()[0]
        taken = self._silent.look(windows.key[looked], windows.split[looked], peaks[seen])
        self._texts.add(np.union1d(numbers, looked[taken]).tolist(), windows, texts)
        if len(self._active) > self._rows_due or len(self._texts) > self._texts_due:
            self._prune()

    def merge(self, other: Sketch) -> None:
        """Take in what another part of the corpus showed.

        Raises:
            ValueError: the other is of other features or settings.
        """
        if (self.features, self.settings) != (other.features, other.settings):
            raise ValueError("sketches of other features or settings cannot be merged")
        self.counts.merge(other.counts)
        self._active.add(other.active())
        self._silent.add(other.silent())
        self._texts.merge(other._texts)
        self._prune()

    def active(self) -> ActiveRows:
        """Active windows kept, by feature, split, bin and priority."""
        return self._active.rows()

    def silent(self) -> SilentRows:
        """Windows that silent ones are looked for among, by split and priority."""
        return self._silent.rows()

    def texts(self) -> pa.Table:
        """Texts of all windows kept."""
        self._prune()
        return self._texts.table()

    def arrays(self) -> dict[str, NDArray]:
        """All of it as arrays, of which `from_arrays` makes an equal sketch."""
        counts = {
            name: value.cpu().numpy()
            for name, value in vars(self.counts).items()
            if isinstance(value, Tensor)
        }
        sink = pa.BufferOutputStream()
        texts = self.texts()
        with pa.ipc.new_stream(sink, texts.schema) as writer:
            writer.write_table(texts)
        return {
            "features": np.array(self.features, dtype=np.int64),
            "settings": np.array(list(asdict(self.settings).values()), dtype=np.int64),
            "counts/tokens": np.array([self.counts.tokens]),
            **{f"counts/{name}": value for name, value in counts.items()},
            **{f"active/{name}": value for name, value in self.active().arrays().items()},
            **{f"silent/{name}": value for name, value in self.silent().arrays().items()},
            "texts": np.frombuffer(sink.getvalue(), dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], *, device: str = "cpu") -> Sketch:
        """The sketch that `arrays` was called on, ready to go on."""
        settings = SketchSettings(*arrays["settings"].tolist())
        sketch = cls(arrays["features"].tolist(), settings, device=device)
        sketch.counts.tokens = int(arrays["counts/tokens"][0])
        for name, value in vars(sketch.counts).items():
            if isinstance(value, Tensor):
                value.copy_(torch.from_numpy(arrays[f"counts/{name}"].copy()))
        sketch._active.add(ActiveRows.from_arrays(below(arrays, "active/")))
        sketch._silent.add(SilentRows.from_arrays(below(arrays, "silent/")))
        reader = pa.ipc.open_stream(pa.py_buffer(arrays["texts"].tobytes()))
        sketch._texts = WindowTexts(reader.read_all())
        sketch._prune()
        return sketch

    def _prune(self) -> None:
        """Drop rows that can no longer matter, and texts that no row refers to."""
        self._active.prune()
        keys = np.concatenate([self.active().window, self.silent().window])
        self._texts.keep(np.unique(keys))
        self._rows_due = len(self._active) + max(_ROWS_HELD, len(self._active) // 2)
        self._texts_due = len(self._texts) + max(_TEXTS_HELD, len(self._texts) // 2)


def _activations(
    window: Tensor, feature: Tensor, content: ContentTokens, encoded: Tensor
) -> Tensor:
    """Activations of features along windows, 0 where there is no content token, [n, 32]."""
    begin = content.count.cumsum(0) - content.count
    step = torch.arange(WINDOW_TOKENS, device=encoded.device)
    token = begin[window][:, None] + step
    present = step < content.count[window][:, None]
    token = torch.where(present, token, 0)
    found = torch.zeros(token.shape, device=encoded.device)
    if len(encoded):
        # What is not present adds nothing, wherever it points.
        values = encoded[token, feature[:, None]] * present
        found.scatter_add_(1, content.place[token], values)
    return found


def below(arrays: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    """The arrays whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
