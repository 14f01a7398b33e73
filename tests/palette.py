"""Pictures of pages as small files: Chromium counts the colours, here they become a PNG with a palette."""

import base64
import struct
import zlib
from typing import Any

from playwright.async_api import Page

COLOURS = 24
_APART = 14  # of 255, between two colours of the palette, the three channels together
# Takes the commonest colours that are not too alike, and gives each point the nearest of them.
_COUNT = """async ([source, most, apart]) => {
  const image = new Image();
  image.src = "data:image/png;base64," + source;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), brush = canvas.getContext("2d");
  brush.drawImage(image, 0, 0);
  const points = new Uint32Array(brush.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const one of points) counts.set(one, (counts.get(one) || 0) + 1);
  const far = (a, b) => Math.abs((a & 255) - (b & 255)) + Math.abs((a >> 8 & 255) - (b >> 8 & 255))
    + Math.abs((a >> 16 & 255) - (b >> 16 & 255));
  const palette = [];
  for (const [one] of [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])) {
    if (palette.length === most) break;
    if (palette.every(other => far(one, other) > (palette.length < 12 ? 0 : apart))) palette.push(one);
  }
  const nearest = new Map();
  for (const one of counts.keys()) {
    let best = 0;
    palette.forEach((other, place) => { if (far(one, other) < far(one, palette[best])) best = place; });
    nearest.set(one, best);
  }
  const places = points.map(one => nearest.get(one));
  let text = "";
  for (let at = 0; at < places.length; at += 8192) text += String.fromCharCode(...places.subarray(at, at + 8192));
  return {width: image.width, height: image.height, palette, places: btoa(text)};
}"""


async def shrunk(page: Page, png: bytes) -> bytes:
    """The same picture in at most `COLOURS` colours; `page` is one on which nothing else happens."""
    found: Any = await page.evaluate(_COUNT, [base64.b64encode(png).decode(), COLOURS, _APART])
    palette = b"".join(struct.pack("<I", one & 0xFFFFFFFF)[:3] for one in found["palette"])
    places, width = base64.b64decode(found["places"]), found["width"]
    lines = b"".join(b"\0" + places[at : at + width] for at in range(0, len(places), width))
    head = struct.pack(">IIBBBBB", width, found["height"], 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"PLTE", palette), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
