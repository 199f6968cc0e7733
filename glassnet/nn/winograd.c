/* Convolutions of 3x3 kernels with stride 1 by Winograd's minimal filtering F(4x4, 3x3), in float32.

   Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4: with Y an output tile of 4x4,
   d the 6x6 inputs that it sees and g the kernel,

       Y = A^T [(G g G^T) * (B^T d B)] A          dg = G^T [(B^T d B) * (A dY A^T)] G

   where * is the product element by element. Summed over channels, it is 36 matrix products, one for each of the 6x6
   places, with 36 multiplications where the sum as it is written takes 144.

   Images lie with their channels innermost, (N, H, W, C), kernels as (3, 3, C, K). C and K are multiples of 8. A place
   is a number from 0 to 35 in the 6x6; a panel is NR neighbouring outputs, in whose order a product reads its right
   side. The planes of the 36 places are SKEW numbers further apart than they are long: at a distance of a power of two
   all 36 would want the same lines of the cache.

   Each number is summed in an order that does not depend on the number of threads. */

#include <stddef.h>
#include <string.h>

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
#define SKEW 16

typedef ptrdiff_t idx;
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vec __attribute__((vector_size(4 * VL)));
typedef float vec_any __attribute__((vector_size(4 * VL), aligned(4), may_alias));

int omp_get_thread_num(void); /* of the runtime that torch has loaded, so that both share one set of threads */

#define INLINE static inline __attribute__((always_inline))

INLINE v8 load(const float *p) { return *(const v8_any *)p; }
INLINE void store(float *p, v8 v) { *(v8_any *)p = v; }
INLINE idx at_most(idx a, idx b) { return a < b ? a : b; }
INLINE idx padded(idx K) { return (K + NR - 1) / NR * NR; }

/* Geometry of one convolution. */
typedef struct {
    idx N, H, W, C, K, padding; /* of the images, and the outputs' channels */
    idx out_H, out_W, rows, columns, tiles; /* outputs, tiles of an image, tiles of all images */
} shape;

INLINE shape shape_of(idx N, idx H, idx W, idx C, idx K, idx padding) {
    shape s = {N, H, W, C, K, padding, H + 2 * padding - 2, W + 2 * padding - 2, 0, 0, 0};
    s.rows = (s.out_H + 3) / 4;
    s.columns = (s.out_W + 3) / 4;
    s.tiles = N * s.rows * s.columns;
    return s;
}

/* ---- transforms of one dimension; `step` is the distance between their results ---- */

INLINE void times_Bt(v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3, v8 a4, v8 a5) {
    v8 p = a4 - 4 * a2, q = a3 - 4 * a1, r = a4 - a2, s = 2 * (a3 - a1);
    o[0] = 4 * a0 - 5 * a2 + a4;
    o[step] = p + q;
    o[2 * step] = p - q;
    o[3 * step] = r + s;
    o[4 * step] = r - s;
    o[5 * step] = 4 * a1 - 5 * a3 + a5;
}

INLINE void times_At(v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3, v8 a4, v8 a5) {
    v8 p = a1 + a2, q = a1 - a2, r = a3 + a4, s = a3 - a4;
    o[0] = a0 + p + r;
    o[step] = q + 2 * s;
    o[2 * step] = p + 4 * r;
    o[3 * step] = q + 8 * s + a5;
}

INLINE void times_A(v8 *o, idx step, v8 a0, v8 a1, v8 a2, v8 a3) {
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

/* Point `in` at the 6x6 inputs of a tile, outside the image at zeros. */
INLINE void inputs_of(const float **in, const float *images, const float *zeros, shape s, idx tile) {
    idx image = tile / (s.rows * s.columns), within = tile % (s.rows * s.columns);
    idx top = 4 * (within / s.columns) - s.padding, left = 4 * (within % s.columns) - s.padding;
    for (idx i = 0; i < 6; i++)
        for (idx j = 0; j < 6; j++) {
            idx y = top + i, x = left + j;
            int is_inside = y >= 0 && y < s.H && x >= 0 && x < s.W;
            in[6 * i + j] = is_inside ? images + ((image * s.H + y) * s.W + x) * s.C : zeros;
        }
}

/* Return where output (i, j) of a tile lies, counted in numbers from the first; -1 outside the outputs. */
INLINE idx output_of(shape s, idx tile, idx i, idx j) {
    idx image = tile / (s.rows * s.columns), within = tile % (s.rows * s.columns);
    idx y = 4 * (within / s.columns) + i, x = 4 * (within % s.columns) + j;
    return y < s.out_H && x < s.out_W ? ((image * s.out_H + y) * s.out_W + x) * s.K : -1;
}

/* B^T d B of eight channels from `c`. */
INLINE void transform_inputs(v8 *places, const float **in, idx c) {
    v8 half[PLACES];
    for (idx j = 0; j < 6; j++)
        times_Bt(half + j, 6, load(in[j] + c), load(in[6 + j] + c), load(in[12 + j] + c), load(in[18 + j] + c),
                 load(in[24 + j] + c), load(in[30 + j] + c));
    for (idx i = 0; i < 6; i++) {
        v8 *h = half + 6 * i;
        times_Bt(places + 6 * i, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
    }
}

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

   `zeros` are C numbers. A thread takes a block of tiles from inputs to outputs, so that what lies between stays in
   its cache. */
void winograd_convolve(const float *images, const float *transformed, const float *bias, float *outputs, float *space,
                       const float *zeros, idx N, idx H, idx W, idx C, idx K, idx padding, idx block, int threads) {
    shape s = shape_of(N, H, W, C, K, padding);
    idx width = padded(K), in_plane = block * C + SKEW, out_plane = block * width + SKEW;
    idx own_space = winograd_convolve_space(C, K, block, 1);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (idx start = 0; start < s.tiles; start += block) {
        float *in = space + omp_get_thread_num() * own_space, *out = in + PLACES * in_plane;
        float *discarded = out + PLACES * out_plane;
        idx count = at_most(block, s.tiles - start);
        for (idx t = 0; t < count; t++) {
            const float *pixels[PLACES];
            inputs_of(pixels, images, zeros, s, start + t);
            for (idx c = 0; c < C; c += 8) {
                v8 places[PLACES];
                transform_inputs(places, pixels, c);
                for (idx p = 0; p < PLACES; p++) store(in + p * in_plane + t * C + c, places[p]);
            }
        }
        for (idx p = 0; p < PLACES; p++)
            for (idx k = 0; k < width; k += NR) {
                const float *panel = transformed + (p * width + k) * C, *left = in + p * in_plane;
                float *to = out + p * out_plane + k;
                idx t = 0;
                for (; t + MR <= count; t += MR) product(MR, left + t * C, C, panel, C, to + t * width, width);
                for (; t < count; t++) product(1, left + t * C, C, panel, C, to + t * width, width);
            }
        for (idx t = 0; t < count; t++) {
            float *pixels[16];
            for (idx o = 0; o < 16; o++) {
                idx place = output_of(s, start + t, o / 4, o % 4);
                pixels[o] = place < 0 ? discarded : outputs + place;
            }
            for (idx k = 0; k < K; k += 8) {
                v8 half[24], tile[16], shift = bias ? load(bias + k) : (v8){0};
                const float *m = out + t * width + k;
                for (idx j = 0; j < 6; j++)
                    times_At(half + j, 6, load(m + j * out_plane), load(m + (6 + j) * out_plane),
                             load(m + (12 + j) * out_plane), load(m + (18 + j) * out_plane),
                             load(m + (24 + j) * out_plane), load(m + (30 + j) * out_plane));
                for (idx i = 0; i < 4; i++) {
                    v8 *h = half + 6 * i;
                    times_At(tile + 4 * i, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
                }
                for (idx o = 0; o < 16; o++) store(pixels[o] + k, tile[o] + shift);
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
    shape s = shape_of(N, H, W, C, K, padding);
    idx width = padded(K), panels = width / NR;
    idx in_plane = block * C + SKEW, slope_plane = block * width + SKEW, sum_plane = C * width + SKEW;
    float *in = space, *slope = in + PLACES * in_plane, *sums = slope + PLACES * slope_plane;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx p = 0; p < PLACES; p++) memset(sums + p * sum_plane, 0, C * width * sizeof(float));
        for (idx start = 0; start < s.tiles; start += block) {
            idx count = at_most(block, s.tiles - start);
#pragma omp for schedule(static)
            for (idx t = 0; t < count; t++) {
                const float *pixels[PLACES], *of_output[16];
                inputs_of(pixels, images, zeros, s, start + t);
                for (idx c = 0; c < C; c += 8) {
                    v8 places[PLACES];
                    transform_inputs(places, pixels, c);
                    for (idx p = 0; p < PLACES; p++) store(in + p * in_plane + c * block + t * 8, places[p]);
                }
                for (idx o = 0; o < 16; o++) {
                    idx place = output_of(s, start + t, o / 4, o % 4);
                    of_output[o] = place < 0 ? zeros : slopes + place;
                }
                for (idx k = 0; k < width; k += 8) {
                    v8 half[24], places[PLACES] = {{0}};
                    if (k < K) {
                        for (idx j = 0; j < 4; j++)
                            times_A(half + j, 4, load(of_output[j] + k), load(of_output[4 + j] + k),
                                    load(of_output[8 + j] + k), load(of_output[12 + j] + k));
                        for (idx i = 0; i < 6; i++)
                            times_A(places + 6 * i, 1, half[4 * i], half[4 * i + 1], half[4 * i + 2], half[4 * i + 3]);
                    }
                    for (idx p = 0; p < PLACES; p++)
                        store(slope + p * slope_plane + (k / NR * block + t) * NR + k % NR, places[p]);
                }
            }
#pragma omp for schedule(static)
            for (idx share = 0; share < PLACES * panels; share++) {
                idx p = share / panels, k = share % panels * NR, c = 0;
                const float *left = in + p * in_plane, *panel = slope + p * slope_plane + k * block;
                float *to = sums + p * sum_plane + k;
                for (; c + MR <= C; c += MR)
                    product_of_transpose(MR, left, c, block, panel, count, to + c * width, width);
                for (; c < C; c += 2) product_of_transpose(2, left, c, block, panel, count, to + c * width, width);
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
