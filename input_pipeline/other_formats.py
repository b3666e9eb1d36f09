"""HEIC, AVIF and TIFF: what TensorFlow cannot decode, through Pillow, for prediction.

And WebP, for exports without its decoder.

Pillow decodes outside of the graph, one image at a time and as a whole, which is several times
slower than the graph is with a JPEG. Needs the extra `heif`: Pillow (TIFF, AVIF from 11.3 on) and
pillow-heif (HEIC).
"""

import importlib.util
import io

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.preprocessing import MAX_PIXELS

SUFFIXES = (".avif", ".heic", ".heif", ".tif", ".tiff")
_INSTALL = "pip install 'keras-resnet-tpu[heif]'"
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# Times that each pixel counts: Pillow's image, its copy in RGB and the PNG that is made of it.
_TIMES = 6


def kind_of(encoded: bytes) -> str | None:
    """ "TIFF", "AVIF", "HEIC" or "WebP", told by the content; None for anything else."""
    if encoded[:4] in _TIFF_STARTS:
        return "TIFF"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WebP"
    if encoded[4:8] != b"ftyp":
        return None
    brand = encoded[8:12]
    return "AVIF" if brand in _AVIF_BRANDS else "HEIC" if brand in _HEIC_BRANDS else None


def suffixes_read() -> tuple[str, ...]:
    """Those of SUFFIXES that can be read with what is installed."""
    if importlib.util.find_spec("PIL") is None:
        return ()
    if importlib.util.find_spec("pillow_heif") is not None:
        return SUFFIXES
    from PIL import features

    return (*((".avif",) if features.check("avif") else ()), ".tif", ".tiff")


def as_png(encoded: bytes, max_pixels: int = MAX_PIXELS, webp: bool = False) -> bytes:
    """A HEIC, AVIF or TIFF file, and with `webp` a WebP file, as a PNG with its EXIF.

    Anything else comes back as it is.

    Of several pictures in a file the first, or the one that it names as primary, is taken.

    Raises:
        DataError: it cannot be read, as "is a HEIC file, ...", to follow the file's name.
    """
    kind = kind_of(encoded)
    if kind is None or (kind == "WebP" and not webp):
        return encoded
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(f"is a {kind} file, which needs Pillow: {_INSTALL}") from error
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _check_size(kind, *image.size, max_pixels)
            return _to_png(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like for damaged files
        if f".{kind.lower()}" not in (*suffixes_read(), ".tiff", ".webp"):
            raise DataError(
                f"is {'an' if kind == 'AVIF' else 'a'} {kind} file, which cannot be read with what "
                f"is installed: {_INSTALL}"
            ) from error
        raise DataError(
            f"is a damaged {kind} ({len(encoded):,} bytes): {str(error).strip()}. Replace or "
            "remove it."
        ) from error


def _to_png(image) -> bytes:
    import numpy as np
    from PIL import Image

    image.load()  # which turns a TIFF by itself, and then takes the orientation out of its EXIF
    exif = image.getexif().tobytes()
    if image.mode.startswith("I;16"):  # of 16 bits the upper 8 are kept, as of a PNG
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1, exif=exif)
    return buffer.getvalue()


def _check_size(kind: str, width: int, height: int, max_pixels: int) -> None:
    if width * height * _TIMES > max_pixels:
        raise DataError(
            f"claims {height:,} × {width:,} pixels (height × width), and each counts {_TIMES} "
            f"times in a {kind} file; up to {max_pixels:,} (data.max_pixels) are decoded. Replace "
            "or remove it."
        )
