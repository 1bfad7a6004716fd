"""The loss of a training as a table and as a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from safesail.alignment._trainer import LossPoint

_SMOOTH_OVER = 20
"""Parts of the training; the drawn mean is over one of them."""


def loss_csv(points: Sequence[LossPoint]) -> bytes:
    """A CSV file: step, loss, learning_rate, gradient_norm."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", "loss", "learning_rate", "gradient_norm"))
    writer.writerows(points)
    return text.getvalue().encode()


def plot_loss(points: Sequence[LossPoint]) -> bytes:
    """A PNG: the loss of each step, and its mean over the last twentieth of the training."""
    # The object interface needs no display and leaves the caller's pyplot state alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [point.step for point in points]
    losses = np.array([point.loss for point in points])
    window = max(1, len(losses) // _SMOOTH_OVER)
    sums = np.cumsum(losses)
    behind = np.concatenate([np.zeros(window), sums])[: len(sums)]
    counts = np.minimum(np.arange(len(sums)) + 1, window)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot(steps, losses, color="#56B4E9", linewidth=0.8, label="loss of a batch")
    panel.plot(
        steps, (sums - behind) / counts, color="#0072B2", linewidth=1.8,
        label=f"mean of the last {window}",
    )  # fmt: skip
    panel.set_xlabel("step")
    panel.set_ylabel("cross-entropy per answer token, nats")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
