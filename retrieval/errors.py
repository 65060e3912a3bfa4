"""Every error that Longplay raises on purpose; one base class, so that one ``except`` is enough."""

from __future__ import annotations


class LongplayError(ValueError):
    """Base of all errors caused by an argument, a file or a library that cannot be used."""


class AudioError(LongplayError):
    """A file gives no usable sound."""


class NotAudioError(AudioError):
    """The file is missing, is no media file, or has no sound track."""


class EmptyAudioError(AudioError):
    """The file decodes to no samples at all."""


class SilentAudioError(AudioError):
    """Every decoded sample is (nearly) zero."""


class NonFiniteAudioError(AudioError):
    """The decoded samples hold NaN or infinity."""


class TruncatedAudioError(AudioError):
    """The file ends before its own container or index says that it does."""


class DamagedAudioError(AudioError):
    """The decoder met data that it could not read."""


class AudioHeaderError(AudioError):
    """The header claims something that the content does not bear out."""


class AudioLimitError(AudioError):
    """The file is over a limit on duration, channels or sample rate."""


class DecoderError(LongplayError):
    """The processes that decode files cannot be started; no file is to blame."""


class TextError(LongplayError):
    """A text cannot be embedded, for example because it is empty."""


class ManifestError(LongplayError):
    """A line of a manifest is not as documented."""


class ConfigError(LongplayError):
    """A setting has a value that cannot work."""


class CheckpointError(LongplayError):
    """A checkpoint folder is incomplete, damaged or made by something else."""


class EncoderError(LongplayError):
    """An encoder cannot be found, verified or trusted."""


class LibraryError(LongplayError):
    """A library on disk cannot be created, opened or changed."""


class LibraryLockedError(LibraryError):
    """Another process is writing to the library."""


class LibraryWriteError(LibraryError):
    """The disk refused a change to the library, which stays as it was."""


class DamagedLibraryError(LibraryError):
    """A file of the library is missing or does not match its checksum."""


class MissingFileError(DamagedLibraryError):
    """A file that the library's manifest names is not there."""


class ModelMismatchError(LibraryError):
    """The library was made by another model than the one given."""


class EmbeddingsError(LongplayError):
    """A folder of embeddings cannot be read or written, or was made in another way."""


class FilterError(LongplayError):
    """A ``where`` expression is not valid for this library."""


class MetricError(LongplayError):
    """Scores or relevance from which no metric can be computed."""


class SearchError(LongplayError):
    """A search was asked for something that it cannot do."""


class ComposeError(LongplayError):
    """A piece cannot be composed or rendered, for example because FluidSynth is missing."""


class MidiError(LongplayError):
    """A MIDI file or a chord sheet cannot be read, or holds nothing that can be played."""
