/* Loops over pixels that numpy, torch and Pillow take several times as long for, for preprocessing/pixels.py and
   resizing.py.

   Pixels are red, green, blue: three bytes. They move four or sixteen bytes at a time, which is one instruction; the byte
   too many belongs to the neighbour that is written next. The last of a line, beyond which there may be no memory, move
   alone. */

#include <stdint.h>
#include <string.h>

#define LINES 16           /* of a picture, that are worked on together */
#define LANES (3 * LINES)  /* sums at a time: a whole number of vectors on every processor */
#define PRECISION 22       /* bits of a weight behind the point, as Pillow has them (its Resample.c) */

typedef uint8_t vector __attribute__((vector_size(16)));

/* Five pixels in reverse order, behind a byte that belongs to none of them. */
static inline vector reversed(vector five)
{
#ifdef __clang__
    return __builtin_shufflevector(five, five, 15, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
#else
    return __builtin_shuffle(five, (vector){15, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2});
#endif
}

/* Copy a line of pixels, mirrored. It is read forwards: memory that is read backwards comes half as fast. */
static void mirror(const uint8_t *from, int64_t side, uint8_t *to)
{
    int64_t x = 0;
    for (; x < side - 5; x += 5) {
        vector five;
        memcpy(&five, from + 3 * x, sizeof five);
        five = reversed(five);
        memcpy(to + 3 * (side - 5 - x) - 1, &five, sizeof five);
    }
    for (; x < side; x++)
        memcpy(to + 3 * (side - 1 - x), from + 3 * x, 3);
}

/* Copy a square of pixels, whose lines lie `stride` bytes apart, mirrored if `flip`; those of `out` lie close together. */
void pixels_crop(const uint8_t *pixels, int64_t stride, int64_t side, int flip, uint8_t *out)
{
    for (int64_t y = 0; y < side; y++, pixels += stride, out += 3 * side)
        if (flip)
            mirror(pixels, side, out);
        else
            memcpy(out, pixels, 3 * side);
}

/* Copy a square of each of n images, as `pixels_crop` does: image `which[i]` from line `tops[i]` and pixel `lefts[i]` on.
   Images are `size` bytes apart, and their lines `stride`. */
void pixels_crops(const uint8_t *images, int64_t size, int64_t stride, int64_t n, const int64_t *which, const int64_t *tops,
                  const int64_t *lefts, const uint8_t *flips, int64_t side, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++)
        pixels_crop(images + which[i] * size + tops[i] * stride + 3 * lefts[i], stride, side, flips[i],
                    out + i * side * side * 3);
}

/* Paper 4.1: out = ((pixels - mean) + added) / divisor for a square of pixels, mirrored first if `flip`. Lines of the mean
   lie `mean_stride` floats apart. `added` is a line long, or NULL: then nothing is added or divided. `band` is room for
   LINES lines of pixels: what was just written in pieces is slow to read back, so some are mirrored before the first is. */
void pixels_view(const uint8_t *pixels, int64_t stride, int64_t side, int flip, const float *mean, int64_t mean_stride,
                 const float *added, float divisor, uint8_t *band, float *out)
{
    for (int64_t y = 0; y < side; y++, mean += mean_stride, out += 3 * side) {
        const uint8_t *line = pixels + y * stride;
        if (flip) {
            if (y % LINES == 0)
                for (int64_t i = 0; i < LINES && y + i < side; i++)
                    mirror(line + i * stride, side, band + 3 * side * i);
            line = band + 3 * side * (y % LINES);
        }
        if (!added)
            for (int64_t i = 0; i < 3 * side; i++)
                out[i] = (float)line[i] - mean[i];
        else if (divisor == 1.0f)
            for (int64_t i = 0; i < 3 * side; i++)
                out[i] = (float)line[i] - mean[i] + added[i];
        else
            for (int64_t i = 0; i < 3 * side; i++)
                out[i] = ((float)line[i] - mean[i] + added[i]) / divisor;
    }
}

/* LANES weighted sums of bytes that lie `step` apart, rounded and clipped to a byte each. */
static inline void sum(const uint8_t *from, int64_t step, const int32_t *weights, int64_t taps, uint8_t *to)
{
    int32_t sums[LANES];
    for (int i = 0; i < LANES; i++)
        sums[i] = 1 << (PRECISION - 1);
    for (int64_t k = 0; k < taps; k++)
        for (int i = 0; i < LANES; i++)
            sums[i] += weights[k] * from[k * step + i];
    for (int i = 0; i < LANES; i++) {
        int32_t whole = sums[i] >> PRECISION;
        to[i] = whole < 0 ? 0 : whole > 255 ? 255 : whole;
    }
}

/* Make a picture (height, width) as narrow as `side`: place x of a new line is the sum of `taps` old pixels from first[x]
   on, by weights[x * taps ...]. `block` is room for `width` plus `side` times LANES bytes. */
void pixels_narrow(const uint8_t *pixels, int64_t stride, int64_t height, int64_t width, int64_t side, const int32_t *first,
                   const int32_t *weights, int64_t taps, uint8_t *block, uint8_t *out)
{
    uint8_t *thin = block + width * LANES;  /* [side][LINES][3]; the block before it is [width][LINES][3] */
    for (int64_t top = 0; top < height; top += LINES) {
        int64_t lines = height - top < LINES ? height - top : LINES;
        for (int64_t y = 0; y < lines; y++) {
            const uint8_t *line = pixels + (top + y) * stride;
            int last = y == LINES - 1;  /* behind it begins the next pixel's first line, which is there already */
            for (int64_t x = 0; x < width; x++)
                memcpy(block + x * LANES + 3 * y, line + 3 * x, last || x == width - 1 ? 3 : 4);
        }
        for (int64_t x = 0; x < side; x++)
            sum(block + first[x] * LANES, LANES, weights + x * taps, taps, thin + x * LANES);
        for (int64_t y = 0; y < lines; y++)
            for (int64_t x = 0; x < side; x++)
                memcpy(out + ((top + y) * side + x) * 3, thin + x * LANES + 3 * y, x < side - 1 ? 4 : 3);
    }
}

/* Make a picture of lines of `width` pixels, at least LINES of them, as low as `side`, by weights as above. */
void pixels_lower(const uint8_t *pixels, int64_t stride, int64_t width, int64_t side, const int32_t *first,
                  const int32_t *weights, int64_t taps, uint8_t *out)
{
    int64_t last = 3 * width - LANES;
    for (int64_t y = 0; y < side; y++, out += 3 * width)
        for (int64_t i = 0; i < 3 * width; i += LANES) {
            int64_t at = i < last ? i : last;  /* the last sums may be made twice */
            sum(pixels + first[y] * stride + at, stride, weights + y * taps, taps, out + at);
        }
}
