"""Photographs of every kind that Pillow can write, against arrays built by hand and a filter computed in float64."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from alexnet.preprocessing import photograph
from alexnet.preprocessing.photograph import square, to_rgb


def noise_picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def resampling_matrix(length, scaled, side):
    """Weights (side, length) of the bicubic filter, a = -1/2, as wide as the reduction; the central `side` of `scaled`."""
    weights = np.zeros((scaled, length))
    reach = max(length / scaled, 1)
    for i in range(scaled):
        for j in range(length):
            t = abs(j + 0.5 - (i + 0.5) * length / scaled) / reach
            if t < 1:
                weights[i, j] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weights[i, j] = -0.5 * (t**3 - 5 * t**2 + 8 * t - 4)
    start = (scaled - side) // 2
    return (weights / weights.sum(1, keepdims=True))[start : start + side]


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (50, 50), (17, 16), (9, 14), (16, 16)])
def test_the_shorter_side_is_scaled_without_aliasing_and_the_centre_is_kept(height, width):
    side, pixels = 16, noise_picture(height, width) // 2 + 64  # so that no overshoot is clipped
    down = resampling_matrix(height, round(height * side / min(height, width)), side)
    across = resampling_matrix(width, round(width * side / min(height, width)), side)
    expected = np.einsum("ih,hwc,jw->ijc", down, pixels.astype(np.float64), across)
    np.testing.assert_allclose(square(Image.fromarray(pixels), side), expected, atol=1.2)  # rounded after each direction


def test_the_whole_picture_scaled_and_then_cropped_is_the_same():
    image = Image.fromarray(noise_picture(333, 500))
    whole = np.asarray(image.resize((384, 256), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(square(image).astype(int), whole[:, 64:320].astype(int), atol=1)


@pytest.mark.parametrize("extra", [0, 1, 2, 3])
def test_an_odd_margin_leaves_its_extra_pixel_right_or_below(extra):
    wide = noise_picture(8, 8 + extra)
    assert np.array_equal(square(Image.fromarray(wide), 8), wide[:, extra // 2 : extra // 2 + 8])
    high = wide.transpose(1, 0, 2)
    assert np.array_equal(square(Image.fromarray(high), 8), high[extra // 2 : extra // 2 + 8])


def test_a_checkerboard_of_pixels_becomes_grey():
    board = np.indices((512, 700)).sum(0) % 2 * 255
    result = square(Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8)))
    assert result.shape == (256, 256, 3)
    assert abs(result.astype(int) - 127.5).max() < 40  # nearest-neighbour reduction gives 0 or 255


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (1, 1), (2, 3)])
def test_a_strip_one_pixel_high_is_read(size, tmp_path):
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "strip.png")
    result = photograph.read(tmp_path / "strip.png")
    assert result.shape == (256, 256, 3)
    assert (result == (10, 200, 30)).all()


GREY = noise_picture(16, 16, seed=3)[..., 0]
RGB = noise_picture(16, 16, seed=4)
ALPHA = noise_picture(16, 16, seed=5)[..., :1]
GREY_RGB = np.repeat(GREY[..., None], 3, 2)


def on_white(rgb):
    return rgb * (ALPHA / 255.0) + 255 - ALPHA


def every_mode():
    """Yield mode, image, expected (16, 16, 3), tolerance in grey levels."""
    alpha, levels = Image.fromarray(ALPHA[..., 0]), GREY.astype(np.uint16)
    yield "RGB", Image.fromarray(RGB), RGB, 0
    yield "L", Image.fromarray(GREY), GREY_RGB, 0
    yield "1", Image.fromarray(GREY > 127), np.where(GREY_RGB > 127, 255, 0), 0
    yield "LA", Image.merge("LA", (Image.fromarray(GREY), alpha)), on_white(GREY_RGB), 1
    yield "RGBA", Image.fromarray(np.concatenate((RGB, ALPHA), 2)), on_white(RGB), 1
    yield "I;16", Image.fromarray(levels * 257), GREY_RGB, 0
    yield "I;16", Image.fromarray(np.full((16, 16), 32768, np.uint16)), np.full((16, 16, 3), 128), 0  # 127.5 and a bit
    yield "I", Image.fromarray((levels * 257).astype(np.int32)), GREY_RGB, 0
    palette = Image.fromarray(GREY)
    palette.putpalette(RGB.reshape(-1).tolist())
    colours = RGB.reshape(-1, 3)[GREY]
    yield "P", palette, colours, 0
    see_through = palette.copy()
    see_through.info["transparency"] = int(GREY[0, 0])
    yield "P", see_through, np.where(GREY[0, 0] == GREY_RGB, 255, colours), 0
    with_alpha = palette.convert("PA")
    with_alpha.putalpha(alpha)
    yield "PA", with_alpha, on_white(colours), 1
    inks = np.concatenate((RGB, ALPHA), 2)
    yield "CMYK", Image.fromarray(inks, "CMYK"), (255.0 - RGB) * (255 - ALPHA) / 255, 1
    yield "YCbCr", Image.fromarray(RGB).convert("YCbCr"), RGB, 3


@pytest.mark.parametrize(("mode", "image", "expected", "atol"), list(every_mode()))
def test_every_mode_becomes_rgb(mode, image, expected, atol):
    assert image.mode == mode
    result = square(to_rgb(image), 16)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), expected, atol=atol)


@pytest.mark.parametrize(("mode", "image", "expected", "atol"), [case for case in every_mode() if case[0] != "PA"])
def test_every_mode_is_read_from_a_file(mode, image, expected, atol, tmp_path):
    """All but PA, which Pillow reads and writes in no format."""
    file = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr", "I") else "image.png")
    image.save(file)
    np.testing.assert_allclose(photograph.read(file, 16).astype(int), expected, atol=atol)


def test_a_cmyk_jpeg_and_a_48_bit_png_are_read(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    np.testing.assert_allclose(photograph.read(tmp_path / "red.jpg", 16) - np.array([255.0, 0, 0]), 0, atol=3)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)  # 16 bits for each of three colours
    rows = b"".join(b"\0" + row.tobytes() for row in (RGB.astype(">u2") * 257))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(photograph.read(io.BytesIO(png), 16), RGB)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.transpose(1, 0, 2)),
        (6, np.rot90(RGB)),
        (7, RGB[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(RGB, -1)),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_camera_s_orientation_is_undone(orientation, stored, ending, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"turned.{ending}", exif=exif)
    assert np.array_equal(photograph.read(tmp_path / f"turned.{ending}", 16), RGB)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\x05\0", b"nothing"])
def test_damaged_exif_does_not_cost_the_photograph(exif, tmp_path):
    Image.new("RGB", (30, 20), "white").save(tmp_path / "a.jpg", exif=exif)
    assert (photograph.read(tmp_path / "a.jpg", 16) == 255).all()


@pytest.mark.parametrize("content", ["missing", "empty", "text", "truncated", "float", "32 bits"])
def test_what_cannot_be_read_is_an_error_that_callers_know(content, tmp_path):
    file = tmp_path / ("image.tif" if content in ("float", "32 bits") else "image.jpg")
    if content in ("empty", "text"):
        file.write_text("" if content == "empty" else "<html>not found</html>")
    elif content == "truncated":
        Image.fromarray(noise_picture(64, 64)).save(file)
        file.write_bytes(file.read_bytes()[:-500])
    elif content != "missing":
        kind = np.float32 if content == "float" else np.int32
        Image.fromarray(np.full((16, 16), 70000, kind)).save(file)
    with pytest.raises(photograph.UNREADABLE):
        photograph.read(file)


@pytest.mark.parametrize("limit", [100, 150])  # Pillow refuses the 256 pixels beyond twice its limit, and only warns below
def test_a_decompression_bomb_is_refused(limit, tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(photograph.UNREADABLE, match="decompression bomb"):
        photograph.read(tmp_path / "bomb.png")


def test_only_a_very_large_photograph_waits_for_its_turn(tmp_path, monkeypatch):
    taken = []

    class Turn:
        def __enter__(self):
            taken.append("taken")

        def __exit__(self, *error):
            taken.append("given back")

    monkeypatch.setattr(photograph, "LARGE", 16 * 16)
    Image.fromarray(RGB).save(tmp_path / "small.png")
    Image.new("RGB", (17, 16), "white").save(tmp_path / "large.png")
    assert np.array_equal(photograph.read(tmp_path / "small.png", 16, Turn()), RGB)
    assert taken == []
    assert (photograph.read(tmp_path / "large.png", 16, Turn()) == 255).all()
    assert taken == ["taken", "given back"]
    Image.fromarray(noise_picture(20, 20)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-100])
    with pytest.raises(photograph.UNREADABLE):
        photograph.read(tmp_path / "cut.png", 16, Turn())
    assert taken[2:] == ["taken", "given back"]


def test_a_format_that_needs_another_program_is_no_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.eps")
    with pytest.raises(photograph.UNREADABLE, match="cannot identify"):
        photograph.read(tmp_path / "a.eps", 16)
