"""Training with Lightning; the only file that imports it."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from retrieval.data.batches import TrainBatch, TrainSteps
from retrieval.data.cache import CachedSong
from retrieval.data.labels import LabelSet
from retrieval.data.order import StepSampler
from retrieval.data.resident import ResidentClips
from retrieval.evaluation import evaluate_scores, mean_recall
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP
from retrieval.objective import LossWeights, Objective
from retrieval.precision import computes_in_bfloat16
from retrieval.scoring import score_songs

MONITOR = "val/recall"


class LitCoLLAP(L.LightningModule):
    """Training and validation steps around :class:`CoLLAP`.

    Args:
        net: the model.
        optimizer: parameter groups -> optimizer.
        scheduler: optimizer -> learning-rate schedule, stepped every step.
        losses: weights of the losses.
        val_songs: the whole validation set.
        seed: of dropout; a step's is its own, so that a resumed run draws the same.
        labels: what the encoder learns to name; the layer that names it is not kept.
        tower_lr: factor on the learning rate of weights inside published towers, which need
            smaller steps than layers that start at random.
        scale_lr: factor on the learning rate of tau and of the logit scale: two logarithms that
            move by no more than the learning rate a step, and may have far to go.
        resident: takes the clips of batches that hold numbers of clips.
        mix: share of a step's clips that are blended with others, where only labels count.
    """

    def __init__(
        self,
        net: CoLLAP,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any],
        losses: LossWeights,
        val_songs: Sequence[CachedSong],
        seed: int = 0,
        labels: LabelSet | None = None,
        tower_lr: float = 1.0,
        scale_lr: float = 1.0,
        resident: ResidentClips | None = None,
        mix: float = 0.0,
    ):
        super().__init__()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.tower_lr, self.scale_lr = tower_lr, scale_lr
        self.objective = Objective(net, losses, labels, mix)
        self.val_songs = list(val_songs)
        self.seed, self.resident = seed, resident

    @property
    def net(self) -> CoLLAP:
        """The model."""
        return self.objective.net

    def forward(self, batch: TrainBatch) -> dict[str, Tensor]:
        """The losses of one step: ``total`` and its parts, scalars."""
        return self.objective(batch)

    def on_fit_start(self) -> None:
        """Clips that stay in memory move to the device that trains."""
        if self.resident is not None:
            self.resident.move(self.device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Clips of the numbers in a training batch."""
        if self.resident is not None and isinstance(batch, TrainBatch):
            batch.songs.prepared = self.resident.take(batch.songs.prepared)
        return batch

    def on_train_batch_start(self, batch: TrainBatch, index: int) -> None:
        """Draw dropout from the seed, the step and the process."""
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank)

    def training_step(self, batch: TrainBatch, index: int) -> Tensor:
        """One step of Lightning's loop."""
        losses = self(batch)
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "total")
        self.log("train/tau", self.net.tau.detach())
        self.log("train/logit_scale", self.net.logit_scale.detach())
        return losses["total"]

    def validation_step(self, batch: Tensor, index: int) -> None:
        """Nothing: the whole set is ranked at the end."""

    def on_validation_epoch_end(self) -> None:
        """Rank the whole validation set, never a part of it (every process, the same numbers)."""
        model = LongplayModel(self.net, digest="")
        scores, text_song, _ = score_songs(model, self.val_songs, (self.net.config.pooling,))
        self.net.train()
        result = evaluate_scores(scores[self.net.config.pooling], text_song, n_bootstrap=0)
        recall = mean_recall(result)
        mrr = (
            result["text_to_music"]["mrr"]["value"] + result["music_to_text"]["mrr"]["value"]
        ) / 2
        self.log(MONITOR, recall, prog_bar=True)
        self.log("val/mrr", mrr)

    def configure_optimizers(self) -> Any:
        """Weight decay on matrices only, as usual for transformers; up to three learning rates."""
        towers = self.net.tower_parameters() if self.tower_lr != 1 else set()
        scales = {self.net.log_tau, self.net.log_scale}
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = defaultdict(list)
        for p in self.parameters():
            if p.requires_grad:
                factor = self.scale_lr if p in scales else self.tower_lr if p in towers else 1.0
                groups[factor, p.ndim < 2].append(p)
        optimizer = self.make_optimizer(
            [
                {"params": params, **({"weight_decay": 0.0} if small else {})}
                for (_, small), params in groups.items()
            ]
        )
        for group, (factor, _) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= factor
        schedule = self.make_scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class BestCheckpoint(Callback):
    """Keep the checkpoint folder of the best validation, and stop when it no longer improves.

    Args:
        save: writes the model, given the step and its figure.
        patience: validations without improvement until training stops; None goes on to the last
            step and keeps the last model, where the validation songs are not what it is for.
    """

    def __init__(self, save: Callable[[int, float], None], patience: int | None):
        self.save, self.patience = save, patience
        self.best, self.best_step, self.waited = -math.inf, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run was stopped."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self.waited = state_dict["waited"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare, save, and ask the trainer to stop where it is time."""
        if trainer.sanity_checking:
            return
        recall = float(trainer.callback_metrics[MONITOR])
        # On small sets recall takes few values; the reciprocal rank breaks its ties.
        figure = recall + 1e-3 * float(trainer.callback_metrics["val/mrr"])
        if figure > self.best or self.patience is None:
            self.best, self.best_step, self.waited = figure, trainer.global_step, 0
            if trainer.is_global_zero:
                self.save(trainer.global_step, recall)
        else:
            self.waited += 1
        enough = self.patience is not None and self.waited >= self.patience
        trainer.should_stop = trainer.should_stop or enough


class ResumePoint(Callback):
    """Write the state of training in one step after every interval, for resuming after a kill."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save under another name, then rename."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.path)  # noqa: PTH105 - one atomic step over the old file


def warmup_cosine(
    optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then half a cosine down to a fiftieth of the peak."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_loader(
    steps: TrainSteps, steps_per_val: int, workers: int, next_step: Callable[[], int]
) -> DataLoader[TrainBatch]:
    """The steps of an interval, batches made as they are; see :class:`StepSampler`."""
    return DataLoader(
        steps,
        batch_size=None,
        sampler=StepSampler(steps_per_val, next_step),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def trainer_settings(settings: DictConfig) -> DictConfig:
    """Trainer settings with ``precision: auto`` decided for this machine."""
    if settings.precision != "auto":
        return settings
    device = "cuda" if torch.cuda.is_available() and settings.accelerator != "cpu" else "cpu"
    half = computes_in_bfloat16(torch.device(device))
    settings = settings.copy()
    settings.precision = "bf16-mixed" if half else "32-true"
    return settings


def val_loader() -> DataLoader[tuple[Tensor, ...]]:
    """One empty item: validation ranks the whole set by itself."""
    return DataLoader(TensorDataset(torch.zeros(1)))
