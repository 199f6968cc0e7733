/* Convolutions of 3x3 kernels with stride 1 by Winograd's minimal filtering F(4x4, 3x3), in float32.

   Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4: with Y an output tile of 4x4,
   d the 6x6 inputs that it sees and g the kernel,

       Y = A^T [(G g G^T) * (B^T d B)] A          dg = G^T [(B^T d B) * (A dY A^T)] G

   where * is the product element by element. Summed over channels, it is 36 matrix products, one for each of the 6x6
   places, with 36 multiplications where the sum as it is written takes 144.

   Seven outputs are no two fours: tiles are 4 or 3 outputs high, and 4 or 3 wide, so that few reach beyond the outputs.
   F(4, 3) evaluates polynomials at 0, 1, -1, 2, -2 and infinity, F(3, 3) at the same but for -2. So a tile of 3 uses the
   same transformed kernels, without place 4, if its B has the factors by which the two algorithms' G differ: 2, 3, 1, 4
   and 1. Of 15x15 outputs the tiles have 529 places instead of 576, of 7x7 121 instead of 144, of 3x3 25 instead of 36.

   Max pooling of 2x2 that follows is done with the outputs of a tile, which are written nowhere else.

   Images lie with their channels innermost, (N, H, W, C), kernels as (3, 3, C, K). C and K are multiples of 8. A place
   is a number from 0 to 35 in the 6x6; a panel is NR neighbouring outputs, in whose order a product reads its right
   side. The planes of the 36 places are SKEW numbers further apart than they are long: at a distance of a power of two
   all 36 would want the same lines of the cache.

   Each number is summed in an order that does not depend on the number of threads. */

#include "vectors.h"

#ifndef VL /* tests set it, to have a build for other registers run on those that are there */
#ifdef __AVX512F__
#define VL 16 /* numbers in a register */
#define MR 12 /* rows and */
#else
#define VL 8
#define MR 6
#endif
#endif
#define NR (2 * VL) /* columns of a product that registers hold at once */
#define PLACES 36
#define WINDOWS 4 /* of 2x2 in a tile */
#define SKEW 16

typedef float vec __attribute__((vector_size(4 * VL)));
typedef float vec_any __attribute__((vector_size(4 * VL), aligned(4), may_alias));

INLINE idx padded(idx K) { return (K + NR - 1) / NR * NR; }

/* Geometry of one convolution. */
typedef struct {
    idx N, H, W, C, K, padding; /* of the images, and the outputs' channels */
    idx out_H, out_W; /* where they are pooled, rows and columns that fill no window are left out */
    idx rows[2], columns[2]; /* of tiles in an image: those of 4 outputs, and after them those of 3 */
} shape;

/* Tiles that are computed together: all of them `height` by `width` outputs, as compiled code wants it. */
typedef struct {
    idx start, count; /* among those of this kind in all images */
    int is_low, is_narrow; /* 3 outputs instead of 4 */
} tiles;

#define KINDS 4

/* Divide a row of outputs into fours and threes; where few of them would be threes, more kinds cost more than they save.
   No window lies across tiles: where they are pooled, only the last may be a three. */
INLINE void divide(idx *parts, idx outputs, int is_pooled) {
    idx all = (outputs + 3) / 4, threes = at_most(is_pooled ? 1 : all, 4 * all - outputs);
    parts[1] = 6 * threes > all ? threes : 0;
    parts[0] = all - parts[1];
}

INLINE shape shape_of(idx N, idx H, idx W, idx C, idx K, idx padding, int is_pooled) {
    shape s = {N, H, W, C, K, padding, H + 2 * padding - 2, W + 2 * padding - 2, {0}, {0}};
    if (is_pooled) {
        s.out_H = s.out_H / 2 * 2;
        s.out_W = s.out_W / 2 * 2;
    }
    divide(s.rows, s.out_H, is_pooled);
    divide(s.columns, s.out_W, is_pooled);
    return s;
}

INLINE idx tiles_of_kind(shape s, int kind) { return s.N * s.rows[kind / 2] * s.columns[kind % 2]; }

/* Blocks of at most `block` tiles of one kind. */
INLINE idx blocks_of(shape s, idx block) {
    idx all = 0;
    for (int kind = 0; kind < KINDS; kind++) all += (tiles_of_kind(s, kind) + block - 1) / block;
    return all;
}

INLINE tiles tiles_of(shape s, idx block, idx number) {
    int kind = 0;
    for (idx blocks; number >= (blocks = (tiles_of_kind(s, kind) + block - 1) / block); kind++) number -= blocks;
    tiles t = {number * block, at_most(block, tiles_of_kind(s, kind) - number * block), kind / 2, kind % 2};
    return t;
}

/* Return how many places tiles have, and which. */
INLINE idx places_of(tiles t, idx *list) {
    idx count = 0;
    for (idx p = 0; p < PLACES; p++)
        if (!(t.is_low && p / 6 == 4) && !(t.is_narrow && p % 6 == 4)) list[count++] = p;
    return count;
}

/* ---- transforms of one dimension; `step` is the distance between their results, `is_3` asks for F(3, 3) ---- */

INLINE void times_Bt(int is_3, v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3, v8 a4, v8 a5) {
    if (is_3) {
        v8 even = a3 - a2, odd = a3 - a1;
        o[0] = 4 * (a0 - a2) + 2 * odd;
        o[step] = 3 * (even - 2 * a1);
        o[2 * step] = even - 2 * (a2 - a1);
        o[3 * step] = 4 * odd;
        o[5 * step] = a4 - a2 - 2 * odd;
        return;
    }
    v8 p = a4 - 4 * a2, q = a3 - 4 * a1, r = a4 - a2, s = 2 * (a3 - a1);
    o[0] = 4 * a0 - 5 * a2 + a4;
    o[step] = p + q;
    o[2 * step] = p - q;
    o[3 * step] = r + s;
    o[4 * step] = r - s;
    o[5 * step] = 4 * a1 - 5 * a3 + a5;
}

INLINE void times_At(int is_3, v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3, v8 a4, v8 a5) {
    if (is_3) {
        v8 sum = a1 + a2;
        o[0] = a0 + sum + a3;
        o[step] = a1 - a2 + 2 * a3;
        o[2 * step] = sum + 4 * a3 + a5;
        return;
    }
    v8 p = a1 + a2, q = a1 - a2, r = a3 + a4, s = a3 - a4;
    o[0] = a0 + p + r;
    o[step] = q + 2 * s;
    o[2 * step] = p + 4 * r;
    o[3 * step] = q + 8 * s + a5;
}

INLINE void times_A(int is_3, v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3) {
    if (is_3) {
        v8 sum = a0 + a2;
        o[0] = a0;
        o[step] = sum + a1;
        o[2 * step] = sum - a1;
        o[3 * step] = a0 + 2 * a1 + 4 * a2;
        o[5 * step] = a2;
        return;
    }
    v8 p = a0 + a2, q = a1 + a3, r = a0 + 4 * a2, s = 2 * a1 + 8 * a3;
    o[0] = a0;
    o[step] = p + q;
    o[2 * step] = p - q;
    o[3 * step] = r + s;
    o[4 * step] = r - s;
    o[5 * step] = a3;
}

INLINE void times_G(v8 *o, idx step, v8 a0, v8 a1, v8 a2) {
    v8 p = a0 + a2, q = a0 + 4 * a2;
    o[0] = a0 * 0.25f;
    o[step] = (p + a1) * (-1.f / 6);
    o[2 * step] = (p - a1) * (-1.f / 6);
    o[3 * step] = (q + 2 * a1) * (1.f / 24);
    o[4 * step] = (q - 2 * a1) * (1.f / 24);
    o[5 * step] = a2;
}

INLINE void times_Gt(v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3, v8 a4, v8 a5) {
    v8 s = (a1 + a2) * (-1.f / 6), e = (a3 + a4) * (1.f / 24);
    o[0] = a0 * 0.25f + s + e;
    o[step] = (a2 - a1) * (1.f / 6) + (a3 - a4) * (1.f / 12);
    o[2 * step] = s + 4 * e + a5;
}

/* ---- tiles ---- */

/* Return the image of tile `number` of a kind, and its first output. */
INLINE idx corner_of(shape s, tiles t, idx number, idx *top, idx *left) {
    idx rows = s.rows[t.is_low], columns = s.columns[t.is_narrow];
    idx row = number / columns % rows, column = number % columns;
    *top = t.is_low ? 4 * s.rows[0] + 3 * row : 4 * row;
    *left = t.is_narrow ? 4 * s.columns[0] + 3 * column : 4 * column;
    return number / columns / rows;
}

/* Point `in` at the 6x6 inputs of a tile, outside the image at zeros. */
INLINE void inputs_of(const float **in, const float *images, const float *zeros, shape s, tiles t, idx number) {
    idx top, left, image = corner_of(s, t, number, &top, &left);
    for (idx i = 0; i < 6; i++)
        for (idx j = 0; j < 6; j++) {
            idx y = top + i - s.padding, x = left + j - s.padding;
            int is_inside = y >= 0 && y < s.H && x >= 0 && x < s.W;
            in[6 * i + j] = is_inside ? images + ((image * s.H + y) * s.W + x) * s.C : zeros;
        }
}

/* Set where the 4x4 outputs of a tile lie, or its windows' largest, counted in numbers from the first; -1 where there is
   none. */
INLINE void outputs_of(idx *out, shape s, tiles t, idx number, int is_pooled) {
    idx top, left, image = corner_of(s, t, number, &top, &left), size = is_pooled ? 2 : 1, side = 4 / size;
    for (idx i = 0; i < side; i++)
        for (idx j = 0; j < side; j++) {
            idx y = top / size + i, x = left / size + j, out_H = s.out_H / size, out_W = s.out_W / size;
            int is_output = y < out_H && x < out_W && i < (4 - t.is_low) / size && j < (4 - t.is_narrow) / size;
            out[side * i + j] = is_output ? ((image * out_H + y) * out_W + x) * s.K : -1;
        }
}

/* Store B^T d B of eight channels from `c`, its places `plane` apart. */
INLINE void transform_inputs(float *to, idx plane, const float **in, idx c, int is_low, int is_narrow) {
    v8 half[PLACES], row[6];
    for (idx j = 0; j < 6 - is_narrow; j++)
        times_Bt(is_low, half + j, 6, load(in[j] + c), load(in[6 + j] + c), load(in[12 + j] + c), load(in[18 + j] + c),
                 load(in[24 + j] + c), load(in[30 + j] + c));
    for (idx i = 0; i < 6; i++) {
        v8 *h = half + 6 * i;
        if (is_low && i == 4) continue;
        times_Bt(is_narrow, row, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
        for (idx j = 0; j < 6; j++)
            if (!(is_narrow && j == 4)) store(to + (6 * i + j) * plane, row[j]);
    }
}

/* Store A dY A^T of eight channels from `k`, its places `plane` apart. */
INLINE void transform_slopes(float *to, idx plane, const float **of_output, idx k, int is_low, int is_narrow) {
    v8 half[24], row[6];
    for (idx j = 0; j < 4 - is_narrow; j++)
        times_A(is_low, half + j, 4, load(of_output[j] + k), load(of_output[4 + j] + k), load(of_output[8 + j] + k),
                load(of_output[12 + j] + k));
    for (idx i = 0; i < 6; i++) {
        v8 *h = half + 4 * i;
        if (is_low && i == 4) continue;
        times_A(is_narrow, row, 1, h[0], h[1], h[2], h[3]);
        for (idx j = 0; j < 6; j++)
            if (!(is_narrow && j == 4)) store(to + (6 * i + j) * plane, row[j]);
    }
}

/* Store A^T m A + shift of eight channels from `m`, whose places are `plane` apart, at `outputs` + k; or of each window
   the largest, and its place at `largest` + k. */
INLINE void transform_products(float **outputs, uint8_t **largest, const float *m, idx plane, v8 shift, idx k,
                               int is_pooled, int is_low, int is_narrow) {
    v8 half[24], tile[16];
    for (idx j = 0; j < 6; j++)
        if (!(is_narrow && j == 4))
            times_At(is_low, half + j, 6, load(m + j * plane), load(m + (6 + j) * plane), load(m + (12 + j) * plane),
                     load(m + (18 + j) * plane), load(m + (24 + j) * plane), load(m + (30 + j) * plane));
    for (idx i = 0; i < 4 - is_low; i++) {
        v8 *h = half + 6 * i;
        times_At(is_narrow, tile + 4 * i, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
        for (idx j = 0; j < 4 - is_narrow; j++) {
            tile[4 * i + j] += shift;
            if (!is_pooled) store(outputs[4 * i + j] + k, tile[4 * i + j]);
        }
    }
    for (idx w = 0; is_pooled && w < WINDOWS; w++) {
        if ((is_low && w >= 2) || (is_narrow && w % 2)) continue;
        v8 *first = tile + w / 2 * 8 + w % 2 * 2, most = first[0];
        i8 place = {0};
        for (int n = 1; n < 4; n++) keep_larger(&most, &place, first[n / 2 * 4 + n % 2], n);
        store(outputs[w] + k, most);
        store_bytes(largest[w] + k, place);
    }
}

/* `transform`, whose last arguments say what kind of tiles it is for, compiled for each kind by itself. */
#define OF_KIND(t, transform, ...)                                       \
    do {                                                                 \
        if (!(t).is_low && !(t).is_narrow) transform(__VA_ARGS__, 0, 0); \
        else if (!(t).is_low) transform(__VA_ARGS__, 0, 1);              \
        else if (!(t).is_narrow) transform(__VA_ARGS__, 1, 0);           \
        else transform(__VA_ARGS__, 1, 1);                               \
    } while (0)

/* ---- products ---- */

/* out (m, NR) = left (m, depth) @ panel (depth, NR), with the next panel fetched meanwhile. */
INLINE void product(idx m, const float *left, idx left_row, const float *panel, idx depth, float *out, idx out_row) {
    vec sum[MR][2];
    for (idx r = 0; r < m; r++) sum[r][0] = sum[r][1] = (vec){0};
    for (idx c = 0; c < depth; c++) {
        vec first = *(const vec_any *)(panel + c * NR), second = *(const vec_any *)(panel + c * NR + VL);
        __builtin_prefetch(panel + (depth + c) * NR);
#pragma GCC unroll 16
        for (idx r = 0; r < m; r++) {
            float value = left[r * left_row + c];
            sum[r][0] += value * first;
            sum[r][1] += value * second;
        }
    }
    for (idx r = 0; r < m; r++) {
        *(vec_any *)(out + r * out_row) = sum[r][0];
        *(vec_any *)(out + r * out_row + VL) = sum[r][1];
    }
}

/* out (m, NR) += the channels from `c` of left (C/8, length, 8), transposed, @ panel (depth, NR). */
INLINE void product_of_transpose(idx m, const float *left, idx c, idx length, const float *panel, idx depth, float *out,
                                 idx out_row) {
    vec sum[MR][2];
    const float *channel[MR];
    for (idx r = 0; r < m; r++) {
        sum[r][0] = *(vec_any *)(out + r * out_row);
        sum[r][1] = *(vec_any *)(out + r * out_row + VL);
        channel[r] = left + (c + r) / 8 * length * 8 + (c + r) % 8;
    }
    for (idx t = 0; t < depth; t++) {
        vec first = *(const vec_any *)(panel + t * NR), second = *(const vec_any *)(panel + t * NR + VL);
#pragma GCC unroll 16
        for (idx r = 0; r < m; r++) {
            float value = channel[r][t * 8];
            sum[r][0] += value * first;
            sum[r][1] += value * second;
        }
    }
    for (idx r = 0; r < m; r++) {
        *(vec_any *)(out + r * out_row) = sum[r][0];
        *(vec_any *)(out + r * out_row + VL) = sum[r][1];
    }
}

/* ---- what is called ---- */

/* Numbers in a panel: transformed kernels take 36 * C * (K rounded up to whole panels). */
idx winograd_panel(void) { return NR; }

/* Numbers that `winograd_convolve` works in, with blocks of `block` tiles. */
idx winograd_convolve_space(idx C, idx K, idx block, idx threads) {
    return threads * (PLACES * (block * (C + padded(K)) + 2 * SKEW) + padded(K));
}

/* Numbers that `winograd_kernel_gradient` works in. */
idx winograd_kernel_gradient_space(idx C, idx K, idx block) {
    return PLACES * (block * (C + padded(K)) + 2 * SKEW + C * padded(K) + SKEW);
}

/* transformed (36, panels, C, NR) = G g G^T of kernels (3, 3, C, K). */
void winograd_kernels(const float *kernels, float *transformed, idx C, idx K, int threads) {
    idx panels = padded(K) / NR;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (idx c = 0; c < C; c++)
        for (idx k = 0; k < panels * NR; k += 8) {
            v8 half[18], places[PLACES];
            for (idx j = 0; j < 3; j++) {
                v8 g[3];
                for (idx i = 0; i < 3; i++) g[i] = k < K ? load(kernels + ((3 * i + j) * C + c) * K + k) : (v8){0};
                times_G(half + j, 3, g[0], g[1], g[2]);
            }
            for (idx i = 0; i < 6; i++) times_G(places + 6 * i, 1, half[3 * i], half[3 * i + 1], half[3 * i + 2]);
            for (idx p = 0; p < PLACES; p++)
                store(transformed + ((p * panels + k / NR) * C + c) * NR + k % NR, places[p]);
        }
}

/* outputs (N, out_H, out_W, K) = images (N, H, W, C) convolved with transformed kernels, plus `bias` (K) or NULL.

   With `largest` (N, out_H/2, out_W/2, K), outputs of as many numbers are the largest of windows of 2x2, and their
   places 0 to 3, row by row, are written there. `zeros` are C numbers. A thread takes a block of tiles from inputs to
   outputs, so that what lies between stays in its cache. */
void winograd_convolve(const float *images, const float *transformed, const float *bias, float *outputs,
                       uint8_t *largest, float *space, const float *zeros, idx N, idx H, idx W, idx C, idx K,
                       idx padding, idx block, int threads) {
    shape s = shape_of(N, H, W, C, K, padding, largest != NULL);
    idx width = padded(K), in_plane = block * C + SKEW, out_plane = block * width + SKEW;
    idx own_space = winograd_convolve_space(C, K, block, 1), blocks = blocks_of(s, block);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (idx number = 0; number < blocks; number++) {
        float *in = space + omp_get_thread_num() * own_space, *out = in + PLACES * in_plane;
        float *discarded = out + PLACES * out_plane;
        tiles b = tiles_of(s, block, number);
        idx list[PLACES], places = places_of(b, list);
        for (idx t = 0; t < b.count; t++) {
            const float *pixels[PLACES];
            inputs_of(pixels, images, zeros, s, b, b.start + t);
            for (idx c = 0; c < C; c += 8) OF_KIND(b, transform_inputs, in + t * C + c, in_plane, pixels, c);
        }
        for (idx q = 0; q < places; q++)
            for (idx k = 0, p = list[q]; k < width; k += NR) {
                const float *panel = transformed + (p * width + k) * C, *left = in + p * in_plane;
                float *to = out + p * out_plane + k;
                idx t = 0;
                for (; t + MR <= b.count; t += MR) product(MR, left + t * C, C, panel, C, to + t * width, width);
                for (; t < b.count; t++) product(1, left + t * C, C, panel, C, to + t * width, width);
            }
        for (idx t = 0; t < b.count; t++) {
            idx at[16];
            float *to[16];
            uint8_t *places_of_largest[WINDOWS];
            outputs_of(at, s, b, b.start + t, largest != NULL);
            for (idx o = 0; o < (largest ? WINDOWS : 16); o++) {
                to[o] = at[o] < 0 ? discarded : outputs + at[o];
                if (largest) places_of_largest[o] = at[o] < 0 ? (uint8_t *)discarded : largest + at[o];
            }
            for (idx k = 0; k < K; k += 8) {
                const float *m = out + t * width + k;
                v8 shift = bias ? load(bias + k) : (v8){0};
                if (largest) OF_KIND(b, transform_products, to, places_of_largest, m, out_plane, shift, k, 1);
                else OF_KIND(b, transform_products, to, places_of_largest, m, out_plane, shift, k, 0);
            }
        }
    }
}

/* gradient (3, 3, C, K) of the kernels, from images (N, H, W, C) and the gradient of the outputs (N, out_H, out_W, K).

   `zeros` are max(C, K) numbers. Tiles are transformed a block at a time by all threads, which then share the places
   and panels of the products out among them. */
void winograd_kernel_gradient(const float *images, const float *slopes, float *gradient, float *space,
                              const float *zeros, idx N, idx H, idx W, idx C, idx K, idx padding, idx block,
                              int threads) {
    shape s = shape_of(N, H, W, C, K, padding, 0);
    idx width = padded(K), panels = width / NR;
    idx in_plane = block * C + SKEW, slope_plane = block * width + SKEW, sum_plane = C * width + SKEW;
    float *in = space, *slope = in + PLACES * in_plane, *sums = slope + PLACES * slope_plane;
    idx blocks = blocks_of(s, block);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx p = 0; p < PLACES; p++) memset(sums + p * sum_plane, 0, C * width * sizeof(float));
        for (idx number = 0; number < blocks; number++) {
            tiles b = tiles_of(s, block, number);
            idx list[PLACES], places = places_of(b, list);
#pragma omp for schedule(static)
            for (idx t = 0; t < b.count; t++) {
                const float *pixels[PLACES], *of_output[16];
                idx output[16];
                inputs_of(pixels, images, zeros, s, b, b.start + t);
                for (idx c = 0; c < C; c += 8)
                    OF_KIND(b, transform_inputs, in + c * block + t * 8, in_plane, pixels, c);
                outputs_of(output, s, b, b.start + t, 0);
                for (idx o = 0; o < 16; o++) of_output[o] = output[o] < 0 ? zeros : slopes + output[o];
                for (idx k = 0; k < width; k += 8) {
                    float *to = slope + (k / NR * block + t) * NR + k % NR;
                    if (k < K)
                        OF_KIND(b, transform_slopes, to, slope_plane, of_output, k);
                    else
                        for (idx p = 0; p < PLACES; p++) store(to + p * slope_plane, (v8){0});
                }
            }
#pragma omp for schedule(static)
            for (idx share = 0; share < places * panels; share++) {
                idx p = list[share / panels], k = share % panels * NR, c = 0;
                const float *left = in + p * in_plane, *panel = slope + p * slope_plane + k * block;
                float *to = sums + p * sum_plane + k;
                for (; c + MR <= C; c += MR)
                    product_of_transpose(MR, left, c, block, panel, b.count, to + c * width, width);
                for (; c < C; c += 2) product_of_transpose(2, left, c, block, panel, b.count, to + c * width, width);
            }
        }
#pragma omp for schedule(static)
        for (idx c = 0; c < C; c++)
            for (idx k = 0; k < K; k += 8) {
                v8 half[18], tile[9];
                const float *m = sums + c * width + k;
                for (idx j = 0; j < 6; j++)
                    times_Gt(half + j, 6, load(m + j * sum_plane), load(m + (6 + j) * sum_plane),
                             load(m + (12 + j) * sum_plane), load(m + (18 + j) * sum_plane),
                             load(m + (24 + j) * sum_plane), load(m + (30 + j) * sum_plane));
                for (idx i = 0; i < 3; i++) {
                    v8 *h = half + 6 * i;
                    times_Gt(tile + 3 * i, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
                }
                for (idx o = 0; o < 9; o++) store(gradient + (o * C + c) * K + k, tile[o]);
            }
    }
}
