"""Makes a screenshot small: at most 256 colors, which a picture of panels hardly misses."""

import base64
import struct
import zlib

import numpy as np
from playwright.sync_api import Page

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = 256
_DECODE = """async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const bytes = context.getImageData(0, 0, image.width, image.height).data;
    const parts = [];
    for (let at = 0; at < bytes.length; at += 30000) {
        parts.push(btoa(String.fromCharCode(...bytes.subarray(at, at + 30000))));
    }
    return [image.height, image.width, parts.join("")];
}"""


def small_png(page: Page, picture: bytes) -> bytes:
    """Return a picture without transparency with a palette of its commonest colors.

    `page` is any page of a browser; it decodes the picture.
    """
    pixels = _pixels(page, picture)
    packed = (pixels.astype(np.uint32) << np.array([16, 8, 0], dtype=np.uint32)).sum(axis=2)
    found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kept = found[np.argsort(counts, kind="stable")[::-1][:_COLORS]]
    places = _nearest(found, kept)[inverse.reshape(packed.shape)].astype(np.uint8)
    height, width = packed.shape
    rows = np.hstack([np.zeros((height, 1), dtype=np.uint8), places])  # no filter: flat areas
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        _chunk(b"IHDR", header),
        _chunk(b"PLTE", _channels(kept).astype(np.uint8).tobytes()),
        _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(chunks)


def _nearest(found: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return for each color the place of the nearest one that is kept."""
    targets = _channels(kept).astype(np.int32)
    parts = [
        ((_channels(part).astype(np.int32)[:, None] - targets) ** 2).sum(axis=2).argmin(axis=1)
        for part in np.array_split(found, max(1, len(found) // 4096))
    ]
    return np.concatenate(parts)


def _channels(packed: np.ndarray) -> np.ndarray:
    """Return red, green and blue of packed colors."""
    return (packed[:, None] >> np.array([16, 8, 0], dtype=np.uint32)) & 255


def _pixels(page: Page, picture: bytes) -> np.ndarray:
    """Return height x width x 3 of a picture, decoded by the browser."""
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    height, width, data = page.evaluate(_DECODE, address)
    shown = np.frombuffer(base64.b64decode(data), dtype=np.uint8)
    return shown.reshape(height, width, 4)[:, :, :3]


def _chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
