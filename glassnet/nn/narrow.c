/* Convolutions with few channels and stride 1, in float32: the sums as they are written, kept in registers.

   Images lie with their channels innermost, (N, H, W, C). So what a row of a kernel sees, `side` pixels of C channels,
   is `depth` neighbouring numbers, and an output is a sum over the rows of products of such numbers with a matrix
   (depth, K). Kernels lie in panels of eight outputs, (panels, side, depth, 8), with zeros after the last.

   Each number is summed in an order that does not depend on the number of threads. */

#include "vectors.h"

#define SUMS 12 /* vectors of sums that registers hold at once */
#define ROWS 6
#define CHUNKS 32 /* parts of a batch that the gradient of the kernels is summed over first */

#define ALL _Pragma("GCC unroll 16") /* of these turns are constants, and so are their numbers of registers */

INLINE idx padded(idx K) { return (K + 7) / 8 * 8; }

/* Geometry of one convolution. */
typedef struct {
    idx N, H, W, C, K, side, padding; /* of the images, the outputs' channels, the kernels' height and width */
    idx out_H, out_W, depth; /* outputs, and numbers that a row of a kernel sees */
    idx full_H, full_W; /* the images with their padding */
} shape;

INLINE shape shape_of(idx N, idx H, idx W, idx C, idx K, idx side, idx padding) {
    shape s = {N, H, W, C, K, side, padding, 0, 0, side * C, H + 2 * padding, W + 2 * padding};
    s.out_H = s.full_H - side + 1;
    s.out_W = s.full_W - side + 1;
    return s;
}

/* Numbers that an image takes with its padding, where it has one. */
INLINE idx image_space(shape s) { return s.padding ? s.full_H * s.full_W * s.C : 0; }

/* Return image `n` with its padding: in `room`, whose border is zeros, or where it is. */
INLINE const float *image_of(shape s, const float *images, idx n, float *room) {
    const float *image = images + n * s.H * s.W * s.C;
    if (!s.padding) return image;
    for (idx y = 0; y < s.H; y++)
        memcpy(room + ((y + s.padding) * s.full_W + s.padding) * s.C, image + y * s.W * s.C,
               s.W * s.C * sizeof(float));
    return room;
}

/* A whole in parts as equal as may be: `longer` of length + 1, then the others. */
typedef struct {
    idx parts, length, longer;
} division;

INLINE division divided(idx whole, idx most) {
    idx parts = (whole + most - 1) / most;
    return (division){parts, whole / parts, whole % parts};
}

INLINE idx part_of(division d, idx number) { return d.length + (number < d.longer); }

/* ---- sums in registers: functions for every number of them, as the compiler wants it, and tables to choose from ---- */

/* out (m, K), its `vectors` panels from channel `k`, = bias + the sums over `rows` of the kernels for m neighbouring
   pixels. */
typedef void outputs_function(const shape *s, const float *in, const float *panel, idx rows, const float *bias,
                              float *out, idx k);

INLINE void outputs_of(idx m, idx vectors, idx C, const shape *s, const float *in, const float *panel, idx rows,
                       const float *bias, float *out, idx k) {
    idx depth = s->side * C, K = s->K, panel_size = 8 * s->side * depth, next = s->full_W * C;
    v8 sum[SUMS];
    ALL for (idx r = 0; r < m; r++) ALL for (idx v = 0; v < vectors; v++) sum[r * vectors + v] = load(bias + k + 8 * v);
    for (idx i = 0; i < rows; i++, in += next)
        for (idx d = 0; d < depth; d++, panel += 8) {
            v8 first = load(panel), second = vectors > 1 ? load(panel + panel_size) : first;
            ALL for (idx r = 0; r < m; r++) {
                float value = in[r * C + d];
                sum[r * vectors] += value * first;
                if (vectors > 1) sum[r * vectors + 1] += value * second;
            }
            __asm__ volatile("" ::: "memory"); /* values that are seen again are loaded again: registers are for sums */
        }
    ALL for (idx r = 0; r < m; r++) ALL for (idx v = 0; v < vectors; v++) {
        float *to = out + r * K + k + 8 * v;
        // What reaches into the next of these pixels is overwritten there, if they have no panel before this one.
        if (k + 8 * v + 8 <= K || (k == 0 && r * K + 8 * v + 8 <= m * K))
            store(to, sum[r * vectors + v]);
        else {
            v8 last = sum[r * vectors + v];
            memcpy(to, &last, (K - k - 8 * v) * sizeof(float));
        }
    }
}

#define OUTPUTS(m, vectors)                                                                                         \
    static void outputs_##m##_##vectors(const shape *s, const float *in, const float *panel, idx rows,              \
                                        const float *bias, float *out, idx k) {                                     \
        if (s->C == 1)                                                                                              \
            outputs_of(m, vectors, 1, s, in, panel, rows, bias, out, k);                                            \
        else                                                                                                        \
            outputs_of(m, vectors, s->C, s, in, panel, rows, bias, out, k);                                         \
    }

OUTPUTS(1, 1) OUTPUTS(2, 1) OUTPUTS(3, 1) OUTPUTS(4, 1) OUTPUTS(5, 1) OUTPUTS(6, 1)
OUTPUTS(7, 1) OUTPUTS(8, 1) OUTPUTS(9, 1) OUTPUTS(10, 1) OUTPUTS(11, 1) OUTPUTS(12, 1)
OUTPUTS(1, 2) OUTPUTS(2, 2) OUTPUTS(3, 2) OUTPUTS(4, 2) OUTPUTS(5, 2) OUTPUTS(6, 2)

static outputs_function *const OUTPUTS_OF[2][SUMS + 1] = {
    {NULL, outputs_1_1, outputs_2_1, outputs_3_1, outputs_4_1, outputs_5_1, outputs_6_1,
     outputs_7_1, outputs_8_1, outputs_9_1, outputs_10_1, outputs_11_1, outputs_12_1},
    {NULL, outputs_1_2, outputs_2_2, outputs_3_2, outputs_4_2, outputs_5_2, outputs_6_2},
};

/* sums (groups, rows, width), `vectors` panels of them, += the products of an image with the gradient of its outputs.

   A group is a row of the kernels, of which `rows` numbers are summed. */
typedef void products_function(const shape *s, const float *in, const float *slopes, idx width, float *sums);

INLINE void products_of(idx rows, idx groups, idx vectors, const shape *s, const float *in, const float *slopes,
                        idx width, float *sums) {
    idx next = s->full_W * s->C, depth = s->depth, C = s->C, out_H = s->out_H, out_W = s->out_W;
    v8 sum[SUMS];
    ALL for (idx g = 0; g < groups; g++) ALL for (idx r = 0; r < rows; r++) ALL for (idx v = 0; v < vectors; v++)
        sum[(g * rows + r) * vectors + v] = load(sums + (g * depth + r) * width + 8 * v);
    for (idx y = 0; y < out_H; y++) {
        const float *left = in + y * next, *right = slopes + y * out_W * width;
        for (idx x = 0; x < out_W; x++, left += C, right += width) {
            v8 first = load(right), second = vectors > 1 ? load(right + 8) : first;
            ALL for (idx g = 0; g < groups; g++) ALL for (idx r = 0; r < rows; r++) {
                float value = left[g * next + r];
                sum[(g * rows + r) * vectors] += value * first;
                if (vectors > 1) sum[(g * rows + r) * vectors + 1] += value * second;
            }
            __asm__ volatile("" ::: "memory");
        }
    }
    ALL for (idx g = 0; g < groups; g++) ALL for (idx r = 0; r < rows; r++) ALL for (idx v = 0; v < vectors; v++)
        store(sums + (g * depth + r) * width + 8 * v, sum[(g * rows + r) * vectors + v]);
}

#define PRODUCTS(rows, groups, vectors)                                                                      \
    static void products_##rows##_##groups##_##vectors(const shape *s, const float *in, const float *slopes, \
                                                       idx width, float *sums) {                             \
        products_of(rows, groups, vectors, s, in, slopes, width, sums);                                      \
    }

PRODUCTS(1, 1, 1) PRODUCTS(2, 1, 1) PRODUCTS(3, 1, 1) PRODUCTS(4, 1, 1) PRODUCTS(5, 1, 1) PRODUCTS(6, 1, 1)
PRODUCTS(1, 1, 2) PRODUCTS(2, 1, 2) PRODUCTS(3, 1, 2) PRODUCTS(4, 1, 2) PRODUCTS(5, 1, 2) PRODUCTS(6, 1, 2)
PRODUCTS(1, 2, 1) PRODUCTS(2, 2, 1) PRODUCTS(3, 2, 1) PRODUCTS(4, 2, 1) PRODUCTS(5, 2, 1) PRODUCTS(6, 2, 1)

static products_function *const PRODUCTS_OF[3][ROWS + 1] = {
    {NULL, products_1_1_1, products_2_1_1, products_3_1_1, products_4_1_1, products_5_1_1, products_6_1_1},
    {NULL, products_1_1_2, products_2_1_2, products_3_1_2, products_4_1_2, products_5_1_2, products_6_1_2},
    {NULL, products_1_2_1, products_2_2_1, products_3_2_1, products_4_2_1, products_5_2_1, products_6_2_1},
};
enum { ONE_VECTOR, TWO_VECTORS, TWO_GROUPS };

/* The sums of one image over a row of the kernels, or two. */
static void rows_of(int kind, const shape *s, const float *in, const float *slopes, idx width, float *sums) {
    division parts = divided(s->depth, ROWS);
    for (idx number = 0, start = 0; number < parts.parts; start += part_of(parts, number), number++)
        PRODUCTS_OF[kind][part_of(parts, number)](s, in + start, slopes, width, sums + start * width);
}

/* ---- what is called ---- */

/* Numbers that kernels take in panels. */
idx narrow_panels_size(idx C, idx K, idx side) { return padded(K) * side * side * C; }

/* panels (panels, side, side, C, 8) of kernels whose axes K, C, height and width have these strides. */
void narrow_panels(const float *kernels, float *panels, idx C, idx K, idx side, idx stride_K,
                   idx stride_C, idx stride_H, idx stride_W) {
    for (idx k = 0; k < padded(K); k += 8)
        for (idx i = 0; i < side; i++)
            for (idx j = 0; j < side; j++)
                for (idx c = 0; c < C; c++, panels += 8) {
                    const float *from = kernels + i * stride_H + j * stride_W + c * stride_C;
                    for (idx q = 0; q < 8; q++) panels[q] = k + q < K ? from[(k + q) * stride_K] : 0;
                }
}

/* Numbers that `narrow_convolve` works in. */
idx narrow_convolve_space(idx N, idx H, idx W, idx C, idx K, idx side, idx padding, idx threads) {
    return threads * image_space(shape_of(N, H, W, C, K, side, padding));
}

/* outputs (N, out_H, out_W, K) = images (N, H, W, C) convolved with kernels in panels, plus `bias` (padded K). */
void narrow_convolve(const float *images, const float *panels, const float *bias, float *outputs, float *space, idx N,
                     idx H, idx W, idx C, idx K, idx side, idx padding, int threads) {
    shape s = shape_of(N, H, W, C, K, side, padding);
    idx panel_size = 8 * s.side * s.depth, room_size = image_space(s);
    division one = divided(s.out_W, SUMS), two = divided(s.out_W, SUMS / 2);
    memset(space, 0, threads * room_size * sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (idx n = 0; n < N; n++) {
        const float *image = image_of(s, images, n, space + omp_get_thread_num() * room_size);
        for (idx y = 0; y < s.out_H; y++) {
            // Of the kernels the rows that see the image, and not the padding above or below.
            idx first = y < padding ? padding - y : 0, last = at_most(side, H + padding - y);
            const float *in = image + (y + first) * s.full_W * C, *panel = panels + 8 * first * s.depth;
            float *out = outputs + (n * s.out_H + y) * s.out_W * K;
            for (idx k = 0; k < K; k += 16) {
                int vectors = k + 8 < K ? 2 : 1;
                division parts = vectors == 2 ? two : one;
                for (idx number = 0, x = 0; number < parts.parts; x += part_of(parts, number), number++)
                    OUTPUTS_OF[vectors - 1][part_of(parts, number)](
                        &s, in + x * C, panel + k / 8 * panel_size, last - first, bias, out + x * K, k);
            }
        }
    }
}

/* Numbers that `narrow_kernel_gradient` works in. */
idx narrow_kernel_gradient_space(idx N, idx H, idx W, idx C, idx K, idx side, idx padding,
                                 idx threads) {
    shape s = shape_of(N, H, W, C, K, side, padding);
    idx own = image_space(s) + (K % 8 ? s.out_H * s.out_W * padded(K) : 0);
    return threads * own + CHUNKS * (s.side * s.depth + 1) * padded(K);
}

/* gradient (side, side, C, K) of the kernels and `bias_gradient` (K), from images (N, H, W, C) and the gradient
   of the outputs (N, out_H, out_W, K). */
void narrow_kernel_gradient(const float *images, const float *slopes, float *gradient, float *bias_gradient,
                            float *space, idx N, idx H, idx W, idx C, idx K, idx side, idx padding,
                            int threads) {
    shape s = shape_of(N, H, W, C, K, side, padding);
    idx width = padded(K), pixels = s.out_H * s.out_W, room_size = image_space(s);
    idx own_size = room_size + (K % 8 ? pixels * width : 0), rows = s.side * s.depth;
    float *sums = space + threads * own_size;
    idx sums_size = (rows + 1) * width, chunk = (N + CHUNKS - 1) / CHUNKS, chunks = (N + chunk - 1) / chunk;
    memset(space, 0, (threads * own_size + chunks * sums_size) * sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (idx number = 0; number < chunks; number++) {
        float *room = space + omp_get_thread_num() * own_size, *sum = sums + number * sums_size;
        for (idx n = number * chunk; n < at_most(N, (number + 1) * chunk); n++) {
            const float *image = image_of(s, images, n, room), *slope = slopes + n * pixels * K;
            if (K % 8) {
                float *to = room + room_size;
                for (idx p = 0; p < pixels; p++)
                    for (idx k = 0; k < K; k++) to[p * width + k] = slope[p * K + k];
                slope = to;
            }
            for (idx i = 0; i < side;) {
                const float *in = image + i * s.full_W * C;
                float *to = sum + i * s.depth * width;
                if (width == 8 && i + 1 < side) {
                    rows_of(TWO_GROUPS, &s, in, slope, width, to);
                    i += 2;
                    continue;
                }
                for (idx k = 0; k < width; k += 16)
                    rows_of(k + 8 < width ? TWO_VECTORS : ONE_VECTOR, &s, in, slope + k, width, to + k);
                i++;
            }
            for (idx k = 0; k < width; k += 8) {
                v8 all = load(sum + rows * width + k);
                for (idx p = 0; p < pixels; p++) all += load(slope + p * width + k);
                store(sum + rows * width + k, all);
            }
        }
    }
    for (idx row = 0; row <= rows; row++)
        for (idx k = 0; k < width; k += 8) {
            v8 all = load(sums + row * width + k);
            for (idx number = 1; number < chunks; number++) all += load(sums + number * sums_size + row * width + k);
            float *to = row < rows ? gradient + row * K : bias_gradient;
            for (idx q = 0; q < at_most(8, K - k); q++) to[k + q] = all[q];
        }
}
