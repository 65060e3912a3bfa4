"""What training minimises: the losses of one step, and their weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from retrieval.data.batches import TrainBatch
from retrieval.data.labels import LabelSet
from retrieval.errors import ConfigError
from retrieval.losses import (
    JointBatch,
    alignment_loss,
    contrast_loss,
    gather_batch,
    info_nce,
    joint_mean,
    label_loss,
    same_pairs,
)
from retrieval.mixing import mix_clips
from retrieval.model import CoLLAP, SongState, TextState


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves a loss out, and what only it reads is not computed.

    Attributes:
        contrastive: the fusion scores of true pairs against all others of the step.
        alignment: attention of a passage toward the section that it describes.
        caption: cross-entropy of the generator head.
        contrast: the true caption against the same with one fact made false.
        labels: naming what is heard in each clip.
        order: a song in two orders of its sections and their captions, each against the other.
    """

    contrastive: float = 1.0
    alignment: float = 0.2
    caption: float = 0.2
    contrast: float = 0.5
    labels: float = 0.5
    order: float = 0.0

    def __post_init__(self) -> None:
        if not any(asdict(self).values()):
            raise ConfigError("losses: all weights are 0, expected at least one above")

    @property
    def reads_texts(self) -> bool:
        """Whether any loss but that of the labels counts."""
        return any(weight for name, weight in asdict(self).items() if name != "labels")


class Objective(nn.Module):
    """A model and all its losses.

    Over several processes the contrastive and alignment losses are those of the joint batch; the
    contrasts, orders and labels are each process's own, averaged.

    Args:
        net: the model.
        weights: of the losses.
        labels: what the encoder learns to name; the layer that names it is not kept.
        mix: share of a step's clips that are blended with others, where only labels count.

    Raises:
        ConfigError: ``mix`` is not 0 to 0.5, or above 0 where texts are read.
    """

    def __init__(
        self,
        net: CoLLAP,
        weights: LossWeights,
        labels: LabelSet | None = None,
        mix: float = 0.0,
    ):
        super().__init__()
        if not 0 <= mix <= 0.5 or (mix and weights.reads_texts):
            raise ConfigError(
                f"mix: got {mix}, expected 0 to 0.5, and 0 where any loss but labels counts, since "
                "no text fits two songs at once"
            )
        self.mix = mix
        self.weights = weights
        self.labels = labels if labels is not None and weights.labels else LabelSet(())
        self.name_labels = nn.Linear(net.config.dim, len(self.labels)) if len(self.labels) else None
        self.net = net

    def forward(self, batch: TrainBatch) -> dict[str, Tensor]:
        """``total`` and its parts, scalars."""
        heard = batch.songs
        song = heard.clip_mask.nonzero()[:, 0]
        prepared, named_target = heard.prepared, batch.labels
        if self.mix and self.training:
            prepared, named_target = mix_clips(
                self.net.audio, prepared, named_target, self.labels, self.mix
            )
        vectors = self.net.encode_clips(*self.net.audio.vary(prepared, heard.filled, song))
        parts: dict[str, Tensor] = {}
        if self.weights.reads_texts:
            parts |= self._of_texts(batch, vectors)
        if self.name_labels is not None:
            with torch.autocast(vectors.device.type, enabled=False):
                named = self.name_labels(vectors.float())
                parts["labels"] = label_loss(named, named_target, self.labels)
        if not parts:
            raise ConfigError("losses: only labels count, but no training song has any")
        weights = asdict(self.weights)
        total = torch.stack([weights[name] * loss for name, loss in parts.items()]).sum()
        return {"total": total, **parts}

    def _of_texts(self, batch: TrainBatch, vectors: Tensor) -> dict[str, Tensor]:
        """All losses that texts take part in."""
        heard = batch.songs
        songs = self.net.contextualise(vectors, heard.clip_mask, heard.position, heard.place)
        told = [*batch.texts, *batch.contrast_texts, *batch.arranged.texts]
        texts = self.net.encode_texts(told)
        parts: dict[str, Tensor] = {}
        if self.weights.caption and batch.caption_ids is not None:
            parts["caption"] = self._caption(batch, songs)
        # Scores are differences of near-equal cosines: never in half precision.
        with torch.autocast(vectors.device.type, enabled=False):
            songs, texts = songs.float(), texts.float()
            parts |= self._scores(batch, songs, texts)
            if self.weights.contrast and len(batch.contrast_song):
                shuffled = self._shuffled(vectors, batch).float()
                parts["contrast"] = self._contrast(batch, songs, shuffled, texts)
            if self.weights.order and batch.arranged.texts:
                first = len(batch.texts) + len(batch.contrast_texts)
                parts["order"] = self._order(batch, vectors, texts.part(slice(first, None)))
        return parts

    def _scores(self, batch: TrainBatch, songs: SongState, texts: TextState) -> dict[str, Tensor]:
        own = texts.part(slice(None, len(batch.texts)), batch.target.shape[1])
        local = JointBatch(songs, own, batch.song_key, batch.text_key, batch.target)
        joint = gather_batch(local)
        scores = self.net.score(joint.texts, joint.songs)
        same = same_pairs(joint.song_key, joint.text_key)
        parts = {}
        if self.weights.contrastive:
            parts["contrastive"] = info_nce(
                scores, self.net.logit_scale, same, joint.texts.passage_weight
            )
        if self.weights.alignment:
            parts["alignment"] = alignment_loss(
                joint.texts, joint.songs, joint.target, self.net.tau
            )
        return parts

    def _contrast(
        self, batch: TrainBatch, songs: SongState, shuffled: SongState, texts: TextState
    ) -> Tensor:
        """The true caption and its song, against false captions and against the song shuffled."""
        versions = batch.contrast_mask.shape[1]
        first = len(batch.texts)
        told = texts.part(slice(first, first + len(batch.contrast_texts)))
        scores = self.net.score(told, songs)
        own = batch.contrast_song.repeat_interleave(versions)
        scores = scores[torch.arange(len(own), device=own.device), own].reshape(-1, versions)
        chosen = batch.contrast_song
        true = self.net.score(told.part(slice(None, None, versions)), shuffled)
        true = true[torch.arange(len(chosen), device=own.device), chosen]
        several = songs.clip_mask[chosen].sum(dim=1) > 1  # one clip cannot be shuffled
        return contrast_loss(
            torch.cat([scores, true[:, None]], dim=1),
            torch.cat([batch.contrast_mask, several[:, None]], dim=1),
            told.passage_mask[::versions].sum(dim=1),
        )

    def _shuffled(self, vectors: Tensor, batch: TrainBatch) -> SongState:
        """The same songs with their clips in another order, each at the place of another."""
        heard = batch.songs
        counts = heard.clip_mask.sum(dim=1).tolist()
        rows = [part[_other_order(len(part))] for part in vectors.split(counts)]
        return self.net.contextualise(torch.cat(rows), heard.clip_mask, heard.position, heard.place)

    def _order(self, batch: TrainBatch, vectors: Tensor, texts: TextState) -> Tensor:
        """Two by two, captions by songs: neither an odd caption nor an odd song is of any help."""
        arranged = batch.arranged
        packed = vectors[arranged.clips[arranged.mask]]
        songs = self.net.contextualise(
            packed, arranged.mask, arranged.position, arranged.place
        ).float()
        scores = self.net.score(texts, songs)
        pairs = torch.arange(len(scores), device=scores.device)
        own, other = scores[pairs, pairs], pairs ^ 1
        captions = torch.stack([own, scores[other, pairs]], dim=1)
        orders = torch.stack([own, scores[pairs, other]], dim=1)
        every = torch.ones_like(captions, dtype=torch.bool)
        passages = texts.passage_mask.sum(dim=1)
        return (
            contrast_loss(captions, every, passages) + contrast_loss(orders, every, passages)
        ) / 2

    def _caption(self, batch: TrainBatch, songs: SongState) -> Tensor:
        assert self.net.captioner is not None
        assert batch.caption_ids is not None
        chosen = batch.caption_song
        summed, count = self.net.captioner.loss_sum(
            batch.caption_ids, songs.clip_state[chosen], songs.clip_mask[chosen]
        )
        return joint_mean(summed, count)


def _other_order(count: int) -> Tensor:
    """A random order of clips, never the one they have; one clip has no other."""
    order = torch.randperm(count)
    return order.flip(0) if bool((order == torch.arange(count)).all()) else order
