"""Movies in picture files (Pillow, one frame a page) and video files (PyAV, optional)."""

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import Frames, Numbers, grey
from retina_codec.recordings.frames.places import file_state

__all__ = ["PictureFiles", "VideoFile", "joined_files"]

PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".pgm", ".gif", ".webp")
VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")


class PictureFiles(Frames):
    """Pictures in files, one after another; a file of several pages gives several frames.

    Parameters
    ----------
    paths : sequence of Path
    color : str, optional
        See `retina_codec.recordings.frames.lazy.ArrayFrames`.

    Raises
    ------
    RetinaCodecError
        A missing or unreadable file, or files of different sizes.
    """

    def __init__(self, paths: Sequence[Path], *, color: str | None = None) -> None:
        self.paths = list(paths)
        self.color = color
        pages, sizes, kinds = [], set(), set()
        for path in self.paths:
            with _picture(path) as image:
                pages.append(int(getattr(image, "n_frames", 1)))
                sizes.add((image.height, image.width))
                kinds.add(np.asarray(image.crop((0, 0, 1, 1))).shape[2:])
        if len(sizes) != 1:
            raise RetinaCodecError(
                f"all pictures must have one size; {self.paths[0].name} and others have "
                f"{sorted(sizes)}. Bring them to one size."
            )
        height, width = sizes.pop()
        self.first = np.cumsum([0, *pages]).tolist()  # number of the first frame of each file
        self.shape = (self.first[-1], height, width)
        mixed = any(kinds) and color not in ("red", "green", "blue")
        with _picture(self.paths[0]) as image:
            stored: np.dtype[Any] = np.asarray(image.crop((0, 0, 1, 1))).dtype
        self.dtype = np.dtype(np.float32) if mixed else stored
        state = "".join(file_state(path) for path in self.paths)
        self.label = f"{self.paths[0]}-{len(self.paths)}-{state}-{color}"
        self.encoding = f"{len(self.paths)} picture files"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Open each file once."""
        frames = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for number in np.unique(numbers):
            file = bisect.bisect_right(self.first, number) - 1
            with _picture(self.paths[file]) as image:
                if number > self.first[file]:
                    image.seek(int(number - self.first[file]))
                picture = np.asarray(image)
            if picture.shape[:2] != self.shape[1:]:
                raise RetinaCodecError(f"{self.paths[file]}: all pages must have one size")
            if picture.ndim == 3:
                picture = grey(picture, self.color or "luminance")
            frames[numbers == number] = picture
        return frames


class VideoFile(Frames):
    """A video; its frames are counted without decoding, and decoded when they are read.

    Parameters
    ----------
    path : Path
    color : str, optional
        ``luminance`` (default: the grey picture that the decoder makes), ``mean`` or one color.

    Raises
    ------
    RetinaCodecError
        PyAV is not installed, or the file is no video.
    """

    def __init__(self, path: Path, *, color: str | None = None) -> None:
        self.path = path
        self.color = color
        with _video(path) as container:
            stream = container.streams.video[0]
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size
            ]
            height, width = stream.codec_context.height, stream.codec_context.width
        if not packets or not height or not width:
            raise RetinaCodecError(f"{path} must be a video with frames; it has none")
        self._times = sorted(time for time, _ in packets)  # of frames as shown
        self.shape = (len(packets), int(height), int(width))
        self.dtype = np.dtype(np.float32 if color == "mean" else np.uint8)
        self.label = f"{path}-{file_state(path)}-{color}"
        self.encoding = "a video file"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Decode from the key frame before the first to the last of the numbers."""
        frames = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        wanted = np.unique(numbers)
        seen = np.zeros(wanted.size, dtype=bool)
        with _video(self.path) as container:
            stream = container.streams.video[0]
            if wanted[0] > 0:
                container.seek(self._times[int(wanted[0])], stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                number = bisect.bisect_left(self._times, frame.pts)
                if number > wanted[-1]:
                    break
                place = int(np.searchsorted(wanted, number))
                if place < wanted.size and wanted[place] == number:
                    frames[numbers == number] = self._picture(frame)
                    seen[place] = True
                if seen.all():
                    break
        if not seen.all():
            raise RetinaCodecError(
                f"{self.path}: frame {int(wanted[~seen][0])} of {self.shape[0]} cannot be decoded. "
                "The file may be damaged: encode it again."
            )
        return frames

    def _picture(self, frame: Any) -> npt.NDArray[Any]:
        if self.color in (None, "luminance"):
            picture: npt.NDArray[Any] = frame.to_ndarray(format="gray")
            return picture
        return grey(frame.to_ndarray(format="rgb24"), self.color or "luminance")


class JoinedFiles(Frames):
    """Several videos, one after another."""

    def __init__(self, parts: Sequence[Frames]) -> None:
        sizes = {part.shape[1:] for part in parts}
        if len(sizes) != 1:
            raise RetinaCodecError(f"all videos must have one size; they have {sorted(sizes)}")
        self.parts = list(parts)
        self._first = np.cumsum([0, *(part.shape[0] for part in parts)])
        height, width = sizes.pop()
        self.shape = (int(self._first[-1]), height, width)
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.label = "-".join(part.label for part in parts)
        self.encoding = f"{len(self.parts)} video files"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read each part once."""
        frames = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._first, numbers, side="right") - 1
        for part in np.unique(owner):
            mine = owner == part
            frames[mine] = self.parts[part].read(numbers[mine] - self._first[part])
        return frames


def joined_files(
    paths: Sequence[Path], starts: Sequence[int] | None, *, color: str | None = None
) -> Frames:
    """Open the files of a series as one movie.

    Parameters
    ----------
    paths : sequence of Path
        All pictures or all videos.
    starts : sequence of int, optional
        ``starting_frame`` of the series: number of the first frame of each file; checked.
    color : str, optional
        See `retina_codec.recordings.frames.lazy.ArrayFrames`.

    Returns
    -------
    Frames

    Raises
    ------
    RetinaCodecError
        A missing file, an unknown kind, or starting frames that are not those of the files.
    """
    for path in paths:
        if not path.is_file():
            raise RetinaCodecError(f"there must be a picture or video at {path}; no file is there")
    kinds = {path.suffix.lower() for path in paths}
    unknown = sorted(kinds - {*PICTURES, *VIDEOS})
    if unknown or (kinds & {*PICTURES} and kinds & {*VIDEOS}):
        raise RetinaCodecError(
            f"external files must be pictures ({', '.join(PICTURES)}) or videos "
            f"({', '.join(VIDEOS)}); got {sorted(kinds)}"
        )
    frames: Frames
    if kinds <= {*PICTURES}:
        frames = pictures = PictureFiles(paths, color=color)
        first = pictures.first[:-1]
    else:
        videos = [VideoFile(path, color=color) for path in paths]
        frames = JoinedFiles(videos) if len(videos) > 1 else videos[0]
        first = np.cumsum([0, *(video.shape[0] for video in videos)])[:-1].tolist()
    if starts is not None and len(starts) == len(paths) and list(starts) != first:
        raise RetinaCodecError(
            f"starting_frame must be the first frame of each file, {first}; it says {list(starts)}."
            " The list is stale, or a file is missing: correct it."
        )
    return frames


def _picture(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise RetinaCodecError(f"{path} must be a picture that can be read; it is not") from error


class _video:
    """Open a video; every error of PyAV becomes a RetinaCodecError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            import av
        except ImportError as error:
            raise RetinaCodecError(
                f"{self.path} is a video, and reading it needs PyAV: pip install av"
            ) from error
        try:
            self._container = av.open(str(self.path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise RetinaCodecError(f"{self.path} must be a video that can be read") from error
        if not self._container.streams.video:
            self._container.close()
            raise RetinaCodecError(f"{self.path} must be a video; it has no pictures")
        return self._container

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        import av

        self._container.close()
        foreign = isinstance(error, av.FFmpegError | OSError | ValueError)
        if foreign and not isinstance(error, RetinaCodecError):
            raise RetinaCodecError(
                f"{self.path} must be a video that can be decoded; it is not "
                f"({' '.join(str(error).split())[:120]})"
            ) from error
