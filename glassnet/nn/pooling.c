/* Max pooling over windows of 2x2 with stride 2, in float32, channels innermost: (N, H, W, C) to (N, H/2, W/2, C).

   Of each window the number of its largest value is kept, 0 to 3 row by row, in one byte; torch keeps eight, and fills
   the gradient with zeros before it writes into it. What comes out has torch's bits: of equal values the first is the
   largest, nan is larger than any number, and rows or columns that fill no window are left out.

   Channels are taken eight at a time. The last of a pixel, where there are fewer, run on into the next pixel, which is
   written afterwards; in the last window of a row only as many as there are go through a copy. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t idx;
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef uint8_t b8 __attribute__((vector_size(8)));
typedef uint8_t b8_any __attribute__((vector_size(8), aligned(1), may_alias));

#define WINDOW 4
#define INLINE static inline __attribute__((always_inline))

/* `yes` where `mask` is all ones, `no` where it is all zeros. */
INLINE i8 chosen(i8 mask, i8 yes, i8 no) { return (mask & yes) | (~mask & no); }

INLINE v8 load(const float *p, idx count) {
    v8 values = {0};
    if (count >= 8) return *(const v8_any *)p;
    memcpy(&values, p, count * sizeof(float));
    return values;
}

INLINE void store(float *p, v8 values, idx count) {
    if (count >= 8) *(v8_any *)p = values;
    else memcpy(p, &values, count * sizeof(float));
}

INLINE b8 load_bytes(const uint8_t *p, idx count) {
    b8 values = {0};
    if (count >= 8) return *(const b8_any *)p;
    memcpy(&values, p, count);
    return values;
}

INLINE void store_bytes(uint8_t *p, b8 values, idx count) {
    if (count >= 8) *(b8_any *)p = values;
    else memcpy(p, &values, count);
}

/* outputs and places (N, H/2, W/2, C) of images (N, H, W, C). */
void max_pool(const float *images, float *outputs, uint8_t *places, idx N, idx H, idx W, idx C, int threads) {
    idx out_H = H / 2, out_W = W / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (idx row = 0; row < N * out_H; row++) {
        const float *top = images + (row / out_H * H + row % out_H * 2) * W * C, *bottom = top + W * C;
        float *to = outputs + row * out_W * C;
        uint8_t *place = places + row * out_W * C;
        for (idx x = 0; x < out_W; x++, top += 2 * C, bottom += 2 * C, to += C, place += C)
            for (idx c = 0; c < C; c += 8) {
                idx count = (out_W - x) * C - c; /* to the end of the row */
                v8 largest = load(top + c, count);
                i8 number = {0};
                for (int n = 1; n < WINDOW; n++) {
                    v8 value = load((n < 2 ? top : bottom) + n % 2 * C + c, count);
                    i8 is_larger = (value > largest) | (value != value);
                    largest = (v8)chosen(is_larger, (i8)value, (i8)largest);
                    number = chosen(is_larger, (i8){0} + n, number);
                }
                store(to + c, largest, count);
                store_bytes(place + c, __builtin_convertvector(number, b8), count);
            }
    }
}

/* gradient (N, H, W, C) of the images, from that of the outputs and the places (N, H/2, W/2, C). */
void max_pool_gradient(const float *slopes, const uint8_t *places, float *gradient, idx N, idx H, idx W, idx C,
                       int threads) {
    idx out_H = H / 2, out_W = W / 2, out_rows = H - out_H; /* the last row of an odd height has a turn of its own */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (idx turn = 0; turn < N * out_rows; turn++) {
        idx image = turn / out_rows, y = turn % out_rows;
        float *top = gradient + (image * H + 2 * y) * W * C;
        if (y >= out_H) {
            memset(top, 0, W * C * sizeof(float));
            continue;
        }
        const float *slope = slopes + (image * out_H + y) * out_W * C;
        const uint8_t *place = places + (image * out_H + y) * out_W * C;
        float *bottom = top + W * C;
        for (idx x = 0; x < out_W; x++, slope += C, place += C, top += 2 * C, bottom += 2 * C)
            for (idx c = (C - 1) / 8 * 8; c >= 0; c -= 8) { /* the last first: it runs on into what the first writes */
                idx count = (out_W - x) * C - c;
                v8 value = load(slope + c, count) + 0.0f; /* torch adds to zero, which -0 becomes 0 by */
                i8 number = __builtin_convertvector(load_bytes(place + c, count), i8);
                store(top + c, (v8)((number == 0) & (i8)value), count);
                store(top + C + c, (v8)((number == 1) & (i8)value), count);
                store(bottom + c, (v8)((number == 2) & (i8)value), count);
                store(bottom + C + c, (v8)((number == 3) & (i8)value), count);
            }
        if (W % 2) {
            memset(top, 0, C * sizeof(float));
            memset(bottom, 0, C * sizeof(float));
        }
    }
}
