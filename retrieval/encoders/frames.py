"""Transformers audio models that read waveforms or spectrogram patches: `wav2vec2` and `ast`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from retrieval.encoders.kaldi import frame_count
from retrieval.encoders.layers import LayeredEncoder, Layers
from retrieval.encoders.weights import load_pretrained, module_digest
from retrieval.errors import ConfigError, EncoderError

#: Layers that transformers' audio towers may leave out at random in training, or mask at random;
#: a layer left out could not be mixed, and randomness here is torch's alone.
_STILL = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False}


@dataclass(frozen=True)
class FramesConfig:
    """Settings of an adapter to a transformers audio model.

    Attributes:
        weights: a local folder as ``save_pretrained`` writes it, or a hub name. Code that comes
            with weights is never run.
        clip_s: clip length in seconds.
        layers: which hidden layer is heard: -1 for the model's output, another number for one
            layer (0 is what enters the first), several for a learned mix, ``all`` for a mix of
            all. A frozen tower's mix is trained; a cache then holds every layer.
        frozen: keep the weights as they are.
    """

    weights: str = ""
    clip_s: float = 10.0
    layers: Layers = -1
    frozen: bool = True

    def __post_init__(self) -> None:
        if not 0.1 <= self.clip_s <= 600:
            raise ConfigError(f"clip_s: got {self.clip_s}, expected 0.1 to 600 seconds")


@dataclass(frozen=True)
class Wav2Vec2Config(FramesConfig):
    """As :class:`FramesConfig`: a wav2vec 2.0, HuBERT, WavLM, MERT or like model."""

    weights: str = "m-a-p/MERT-v1-95M"


@dataclass(frozen=True)
class AstConfig(FramesConfig):
    """As :class:`FramesConfig`: an Audio Spectrogram Transformer."""

    weights: str = "MIT/ast-finetuned-audioset-10-10-0.4593"


class FramesEncoder(LayeredEncoder):
    """Hidden layers of a transformers audio model; features by the model's own extractor.

    Each clip goes through the extractor by itself, so that nothing depends on its batch. A
    subclass loads the model and lays its tokens out in time.
    """

    name: ClassVar[str]

    def __init__(self, config: FramesConfig, tower: Any, extractor: Any):
        super().__init__()
        self.config = config
        self.frozen = config.frozen
        self.tower, self.extractor = tower, extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.clip_s = float(config.clip_s)
        for setting, value in _STILL.items():
            if hasattr(tower.config, setting):
                setattr(tower.config, setting, value)
        for module in tower.modules():
            if hasattr(module, "layerdrop"):  # read once, when the tower was built
                module.layerdrop = 0.0
        count, width = int(tower.config.num_hidden_layers), int(tower.config.hidden_size)
        self.set_layers(config.layers, count, width)
        if hasattr(tower, "masked_spec_embed"):  # never used here, and random where it is not given
            tower.masked_spec_embed.data.zero_()
            tower.masked_spec_embed.requires_grad_(False)
        if config.frozen:
            self.tower.requires_grad_(False)
        self.train(self.training)
        self._digest = module_digest(self.tower) if config.frozen else ""

    def front_end(self, clips: Tensor) -> Tensor:
        """The extractor's features of float32 ``[n, clip_samples]``: ``[n, ...]``."""
        features = [self._features(clip) for clip in clips.cpu().numpy()]
        return torch.stack(features).to(clips.device)

    def _features(self, clip: Any) -> Tensor:
        out = self.extractor(clip, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        return out[self.extractor.model_input_names[0]][0].float()

    def states(self, features: Tensor) -> list[Tensor]:
        """The chosen hidden states, each ``[n, frames, d_audio]``.

        The last is the model's output, behind its last norm where it has one.
        """
        settings: Any = self.tower.config
        last = int(settings.num_hidden_layers)
        if self.layers == [last]:
            return [self.in_time(self.tower(features).last_hidden_state)]
        out = self.tower(features, output_hidden_states=True)
        states = [*out.hidden_states[:-1], out.last_hidden_state]
        return [self.in_time(states[n]) for n in self.layers]

    def in_time(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, tokens, d_audio]`` -> frames ``[n, frames, d_audio]`` of the clip."""
        return tokens

    def identity(self) -> dict[str, object]:
        """Front-end settings, layers and, where the weights are frozen, their digest."""
        found: dict[str, object] = {
            "name": self.name,
            "clip_s": self.clip_s,
            "layers": self.layers,
            "extractor": _settings(self.extractor),
        }
        return {**found, "weights": self._digest} if self.frozen else found


class Wav2Vec2Encoder(FramesEncoder):
    """Models with wav2vec 2.0's convolutions over the waveform (arXiv 2006.11477); 50 frames a s.

    MERT's folder (arXiv 2306.00107) is read as the HuBERT model that it is, without its own code.
    A clip that is padded with silence is normalised as a whole.
    """

    name = "wav2vec2"

    def __init__(self, config: Wav2Vec2Config):
        tower = _load_waveform_tower(config.weights)
        super().__init__(config, tower, _extractor("Wav2Vec2FeatureExtractor", config.weights))
        reach = _conv_reach(tower.config)
        if self.clip_samples < reach:
            least = reach / self.sample_rate_hz
            raise ConfigError(
                f"clip_s: got {config.clip_s}, expected at least {least:.3f}: the model's first "
                "frame is that long"
            )


class AstEncoder(FramesEncoder):
    """Audio Spectrogram Transformer (arXiv 2104.01778): the mean over frequency, every 100 ms.

    The model reads a fixed number of spectrogram frames (10.24 s in the published ones); a clip is
    padded to it as in the published implementation, and patches that begin behind the clip are
    dropped.
    """

    name = "ast"

    def __init__(self, config: AstConfig):
        from transformers import ASTModel

        tower = load_tower(ASTModel, config.weights)
        super().__init__(config, tower, _extractor("ASTFeatureExtractor", config.weights))
        frames = frame_count(self.clip_samples, self.sample_rate_hz)
        longest = int(tower.config.max_length)
        if self.extractor.max_length != longest:
            raise EncoderError(
                f"encoder.weights: {config.weights!r} has an extractor of "
                f"{self.extractor.max_length} frames and a model of {longest}; the folder is mixed "
                "up"
            )
        if not tower.config.patch_size <= frames <= longest:
            raise ConfigError(
                f"clip_s: got {config.clip_s}, expected at most {longest / 100:.2f}: the model "
                f"reads {tower.config.patch_size} to {longest} frames of 10 ms, a clip has {frames}"
            )
        self.grid = tower.embeddings.get_shape(tower.config)  # frequencies, times
        self.kept = min(self.grid[1], math.ceil(frames / tower.config.time_stride))

    def in_time(self, tokens: Tensor) -> Tensor:
        """Drop the two class tokens and take the mean over frequency."""
        return tokens[:, 2:].unflatten(1, self.grid).mean(dim=1)[:, : self.kept]


def load_tower(kind: Any, weights: str, **options: Any) -> Any:
    """:func:`~retrieval.encoders.weights.load_pretrained`, refusing weights that are not all there.

    Raises:
        EncoderError: the weights cannot be loaded, or leave some of the model at random.
    """
    model, report = load_pretrained(
        kind, weights, "encoder.weights", output_loading_info=True, dtype=torch.float32, **options
    )
    # What only pretraining needs: the vector that stands for masked frames.
    missing = [n for n in report["missing_keys"] if not n.endswith("masked_spec_embed")]
    if missing:
        raise EncoderError(
            f"encoder.weights: {weights!r} lacks {len(missing)} weights of {kind.__name__}, first "
            f"{sorted(missing)[0]!r}; it is another kind of model, or incomplete"
        )
    return model


def _load_waveform_tower(weights: str) -> Any:
    from transformers import AutoModel, HubertConfig, HubertModel

    settings = _read_settings(weights)
    kind = settings.get("model_type")
    if kind == "mert_model":
        for setting in ("feature_extractor_cqt", "deepnorm"):
            if settings.get(setting):
                raise EncoderError(
                    f"encoder.weights: {weights!r} is a MERT with {setting}, which is more than a "
                    "HuBERT and needs the code that comes with it; that is never run. Expected "
                    "MERT-v1-95M or MERT-v1-330M"
                )
        outside = ("model_type", "auto_map", "architectures")
        hubert = HubertConfig(**{k: v for k, v in settings.items() if k not in outside})
        return load_tower(HubertModel, weights, config=hubert)
    if kind is None or "conv_kernel" not in settings:
        raise EncoderError(
            f"encoder.weights: {weights!r} is of type {kind!r} and has no convolutions over the "
            "waveform (conv_kernel); expected a model like wav2vec2, hubert or wavlm that "
            "transformers knows without code of its own"
        )
    return load_tower(AutoModel, weights, trust_remote_code=False)


def _read_settings(weights: str) -> dict[str, Any]:
    from transformers import PretrainedConfig

    class ModelSettings(PretrainedConfig):
        """``config.json`` as a dictionary, through the same look-up as the weights."""

        @classmethod
        def from_pretrained(cls, *name: Any, **options: Any) -> Any:
            return cls.get_config_dict(*name, **options)[0]

    return load_pretrained(ModelSettings, weights, "encoder.weights")


def _extractor(kind: str, weights: str) -> Any:
    import transformers

    return load_pretrained(getattr(transformers, kind), weights, "encoder.weights")


def _settings(extractor: Any) -> dict[str, object]:
    """An extractor's plain settings; tables that follow from them are left out."""
    plain = (bool, int, float, str, type(None))
    return {n: v for n, v in sorted(extractor.to_dict().items()) if isinstance(v, plain)}


def _conv_reach(config: Any) -> int:
    """Samples that one output of the convolutions over the waveform spans."""
    reach = 1
    for kernel, stride in zip(
        reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
    ):
        reach = (reach - 1) * stride + kernel
    return reach
