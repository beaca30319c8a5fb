"""Which kinds of image files are opened, and the ending of each in our tars."""

from PIL import Image

#: Ending of an image file that fetch stores, by Pillow's format.
ENDING_OF = {
    "JPEG": "jpg",
    "MPO": "jpg",  # a JPEG with further pictures; Pillow's JPEG plugin opens it
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}

#: Formats that other programs store too.
_OTHERS = ("PPM", "ICO")

Image.init()  # registers all plugins, so that any of the formats can be asked for
#: Formats that fetch opens, and those that every reader of tars opens, by Pillow's names. Not EPS
#: or PDF, which would start other programs.
FETCHED = tuple(name for name in ENDING_OF if name in Image.OPEN)
FORMATS = (*FETCHED, *(name for name in _OTHERS if name in Image.OPEN))
