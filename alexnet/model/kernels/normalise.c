/* The normalisations of section 3.3, forward and backward, in one pass over memory each, for normalisation.py.

   With s = k + alpha * energy and the incoming gradient g: y = x s^-beta, and the gradient to x is
   g s^-beta - 2 alpha beta x * (sum of g x s^(-beta - 1) over the windows that x is in).

   Arithmetic is in fp32, whatever comes in and goes out: fp32, or bf16 if `is_bf16`. What was just written is slow to read
   back at other offsets, so every step is made for a whole block before the next. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 32   /* pixels whose maps are normalised together: a block stays in the first cache */
#define BLOCK 32  /* maps that are normalised together within themselves */

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    float k, alpha, beta;
} Constants;

static void to_fp32(const uint16_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}

/* Round to bf16, to even; what is no number stays none. */
static void to_bf16(const float *from, int64_t n, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        to[i] = from[i] != from[i] ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
}

/* s^-beta, and 1 / s. Two roots cost a tenth of a general power. */
INLINE float power(float s, float beta, int general, float *inverse)
{
    float root = 1.0f / sqrtf(s);
    *inverse = general ? 1.0f / s : root * root;
    return general ? powf(s, -beta) : root * sqrtf(root);
}

/* Sum 2 * reach + 1 values that lie `step` apart. */
INLINE float around(const float *first, int64_t step, int reach)
{
    float total = first[0];
    for (int o = 1; o <= 2 * reach; o++)
        total += first[o * step];
    return total;
}

/* Rows of `squares` and `shared` are C long and lie between `reach` zeros on either side. */
INLINE void across_forward(const float *x, int64_t rows, int64_t C, int reach, Constants as, int general, float *squares,
                           float *y)
{
    int64_t apart = C + 2 * reach;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < C; c++)
            squares[r * apart + reach + c] = x[r * C + c] * x[r * C + c];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < C; c++) {
            float inverse, s = as.k + as.alpha * around(squares + r * apart + c, 1, reach);
            y[r * C + c] = x[r * C + c] * power(s, as.beta, general, &inverse);
        }
}

INLINE void across_backward(const float *x, const float *g, int64_t rows, int64_t C, int reach, Constants as, int general,
                            float *squares, float *shared, float *out)
{
    int64_t apart = C + 2 * reach;
    float scale = -2 * as.alpha * as.beta;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < C; c++)
            squares[r * apart + reach + c] = x[r * C + c] * x[r * C + c];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < C; c++) {
            float inverse, s = as.k + as.alpha * around(squares + r * apart + c, 1, reach);
            float own = g[r * C + c] * power(s, as.beta, general, &inverse);
            out[r * C + c] = own;
            shared[r * apart + reach + c] = own * x[r * C + c] * inverse;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < C; c++)
            out[r * C + c] += scale * x[r * C + c] * around(shared + r * apart + c, 1, reach);
}

/* Why so: the compiler unrolls windows whose size it knows, and leaves out the power that is not taken. */
#define WITH_KNOWN_REACH(call) \
    do { \
        if (as.beta != 0.75f) \
            call(reach, 1); \
        else if (reach == 2) \
            call(2, 0); \
        else if (reach == 4) \
            call(4, 0); \
        else \
            call(reach, 0); \
    } while (0)

/* Normalise `rows` rows of C maps, each by those within `reach`, and write them, or with g the gradient to x, into `out`.
   Returns 0, or -1 for want of memory. */
int normalise_across(const void *x, const void *g, int64_t rows, int64_t C, int reach, float k, float alpha, float beta,
                     int is_bf16, void *out)
{
    const Constants as = {k, alpha, beta};
    const int64_t padded = ROWS * (C + 2 * reach), plain = ROWS * C;
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *squares = calloc(2 * padded + 3 * plain, sizeof(float));
        float *shared = squares + padded, *in_fp32 = shared + padded;
        failed = !squares;
#pragma omp for schedule(static)
        for (int64_t start = 0; start < rows; start += ROWS) {
            int64_t n = rows - start < ROWS ? rows - start : ROWS, at = start * C;
            const float *px = (const float *)x + at, *pg = (const float *)g + at;
            float *to = (float *)out + at;
            if (failed)
                continue;
            if (is_bf16) {
                px = in_fp32, pg = in_fp32 + plain, to = in_fp32 + 2 * plain;
                to_fp32((const uint16_t *)x + at, n * C, in_fp32);
                if (g)
                    to_fp32((const uint16_t *)g + at, n * C, in_fp32 + plain);
            }
#define FORWARD(reach, general) across_forward(px, n, C, reach, as, general, squares, to)
#define BACKWARD(reach, general) across_backward(px, pg, n, C, reach, as, general, squares, shared, to)
            if (g)
                WITH_KNOWN_REACH(BACKWARD);
            else
                WITH_KNOWN_REACH(FORWARD);
#undef FORWARD
#undef BACKWARD
            if (is_bf16)
                to_bf16(to, n * C, (uint16_t *)out + at);
        }
        free(squares);
    }
    return -failed;
}

/* A block of maps (H, W, BLOCK) of one image, and room to sum in: rows of `bordered` lie between `reach` zero pixels on
   either side, those of `across` between `reach` zero rows. */
typedef struct {
    float *restrict x, *restrict g, *restrict bordered, *restrict across;
    int64_t H, W;
} Maps;

/* Write the sums of `bordered` along the rows into `across`. */
INLINE void sum_along_rows(const float *restrict bordered, float *restrict across, int64_t H, int64_t row, int reach)
{
    int64_t apart = row + 2 * reach * BLOCK;
    for (int64_t y = 0; y < H; y++)
        for (int64_t i = 0; i < row; i++)
            across[(y + reach) * row + i] = around(bordered + y * apart + i, BLOCK, reach);
}

/* Leave in m.x what becomes of x, or with m.g the gradient to x. */
INLINE void within(Maps m, int reach, Constants as, int general)
{
    const int64_t row = m.W * BLOCK, apart = row + 2 * reach * BLOCK;
    const float scale = -2 * as.alpha * as.beta;
    float *restrict inner = m.bordered + reach * BLOCK;
    for (int64_t y = 0; y < m.H; y++)
        for (int64_t i = 0; i < row; i++)
            inner[y * apart + i] = m.x[y * row + i] * m.x[y * row + i];
    sum_along_rows(m.bordered, m.across, m.H, row, reach);
    if (!m.g) {
        for (int64_t i = 0; i < m.H * row; i++) {
            float inverse, s = as.k + as.alpha * around(m.across + i, row, reach);
            m.x[i] *= power(s, as.beta, general, &inverse);
        }
        return;
    }
    for (int64_t y = 0; y < m.H; y++) {
        float *restrict g = m.g + y * row, *restrict shared = inner + y * apart;
        const float *restrict x = m.x + y * row, *restrict across = m.across + y * row;
        for (int64_t i = 0; i < row; i++) {
            float inverse, s = as.k + as.alpha * around(across + i, row, reach);
            float own = g[i] * power(s, as.beta, general, &inverse);
            g[i] = own;
            shared[i] = own * x[i] * inverse;
        }
    }
    sum_along_rows(m.bordered, m.across, m.H, row, reach);
    for (int64_t i = 0; i < m.H * row; i++)
        m.x[i] = m.g[i] + scale * m.x[i] * around(m.across + i, row, reach);
}

/* Copy `n` of C maps of `places` pixels, which begin at `from`, into blocks of BLOCK; the rest of a block is 0. */
static void take(const void *from, int64_t at, int64_t places, int64_t C, int64_t n, int is_bf16, float *to)
{
    for (int64_t p = 0; p < places; p++, at += C, to += BLOCK)
        if (is_bf16)
            to_fp32((const uint16_t *)from + at, n, to);
        else
            memcpy(to, (const float *)from + at, n * sizeof(float));
}

static void put(const float *from, int64_t places, int64_t C, int64_t n, int is_bf16, void *to, int64_t at)
{
    for (int64_t p = 0; p < places; p++, at += C, from += BLOCK)
        if (is_bf16)
            to_bf16(from, n, (uint16_t *)to + at);
        else
            memcpy((float *)to + at, from, n * sizeof(float));
}

/* Normalise N images (H, W, C), each activity by those of its map within `reach` on every side, and write them, or with g
   the gradient to x, into `out`. Returns 0, or -1 for want of memory. */
int normalise_within(const void *x, const void *g, int64_t N, int64_t H, int64_t W, int64_t C, int reach, float k,
                     float alpha, float beta, int is_bf16, void *out)
{
    const Constants as = {k, alpha, beta};
    const int64_t places = H * W, blocks = (C + BLOCK - 1) / BLOCK, size = places * BLOCK;
    const int64_t bordered = H * (W + 2 * reach) * BLOCK, across = (H + 2 * reach) * W * BLOCK;
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *room = calloc(2 * size + bordered + across, sizeof(float));
        Maps maps = {room, g ? room + size : NULL, room + 2 * size, room + 2 * size + bordered, H, W};
        failed = !room;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N * blocks; i++) {
            int64_t first = i % blocks * BLOCK, n = C - first < BLOCK ? C - first : BLOCK;
            int64_t at = i / blocks * places * C + first;
            if (failed)
                continue;
            take(x, at, places, C, n, is_bf16, maps.x);
            if (g)
                take(g, at, places, C, n, is_bf16, maps.g);
#define WITHIN(reach, general) within(maps, reach, as, general)
            WITH_KNOWN_REACH(WITHIN);
#undef WITHIN
            put(maps.x, places, C, n, is_bf16, out, at);
        }
        free(room);
    }
    return -failed;
}
