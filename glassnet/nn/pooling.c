/* Max pooling over windows of 2x2 with stride 2, in float32, channels innermost: (N, H, W, C) to (N, H/2, W/2, C).

   Of each window the number of its largest value is kept, 0 to 3 row by row, in one byte; torch keeps eight, and fills
   the gradient with zeros before it writes into it. What comes out has torch's bits: of equal values the first is the
   largest, nan is larger than any number, and rows or columns that fill no window are left out.

   Channels are taken eight at a time. The last of a pixel, where there are fewer, run on into the next pixel, which is
   written afterwards; in the last window of a row only as many as there are go through a copy. */

#include "vectors.h"

#define WINDOW 4
#define AHEAD 4096 /* numbers from what is read now to what is asked for, so that it is there in time */

INLINE v8 load_some(const float *p, idx count) {
    v8 values = {0};
    if (count >= 8) return load(p);
    memcpy(&values, p, count * sizeof(float));
    return values;
}

INLINE void put_some(float *p, v8 values, idx count, int streamed) {
    if (count >= 8) put(p, values, streamed);
    else memcpy(p, &values, count * sizeof(float));
}

INLINE i8 load_some_bytes(const uint8_t *p, idx count) {
    uint8_t bytes[8] = {0};
    if (count >= 8) return load_bytes(p);
    memcpy(bytes, p, count);
    return load_bytes(bytes);
}

INLINE void store_some_bytes(uint8_t *p, i8 values, idx count) {
    uint8_t bytes[8];
    store_bytes(count >= 8 ? p : bytes, values);
    if (count < 8) memcpy(p, bytes, count);
}

INLINE void pool_row(const float *top, float *to, uint8_t *place, idx W, idx C, int streamed) {
    const float *bottom = top + W * C;
    idx out_W = W / 2;
    for (idx x = 0; x < out_W; x++, top += 2 * C, bottom += 2 * C, to += C, place += C)
        for (idx c = 0; c < C; c += 8) {
            idx count = (out_W - x) * C - c; /* to the end of the row */
            __builtin_prefetch(top + c + AHEAD);
            __builtin_prefetch(bottom + c + AHEAD);
            v8 largest = load_some(top + c, count);
            i8 number = {0};
            for (int n = 1; n < WINDOW; n++)
                keep_larger(&largest, &number, load_some((n < 2 ? top : bottom) + n % 2 * C + c, count), n);
            put_some(to + c, largest, count, streamed);
            store_some_bytes(place + c, number, count);
        }
}

/* outputs and places (N, H/2, W/2, C) of images (N, H, W, C). */
void max_pool(const float *images, float *outputs, uint8_t *places, idx N, idx H, idx W, idx C, int threads) {
    idx out_H = H / 2, out_row = W / 2 * C;
    int streamed = C % 8 == 0 && is_streamed(outputs, N * out_H * out_row);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx row = 0; row < N * out_H; row++) {
            const float *top = images + (row / out_H * H + row % out_H * 2) * W * C;
            if (streamed) pool_row(top, outputs + row * out_row, places + row * out_row, W, C, 1);
            else pool_row(top, outputs + row * out_row, places + row * out_row, W, C, 0);
        }
        end_stream();
    }
}

INLINE void spread_row(const float *slope, const uint8_t *place, float *top, idx W, idx C, int streamed) {
    float *bottom = top + W * C;
    idx out_W = W / 2;
    for (idx x = 0; x < out_W; x++, slope += C, place += C, top += 2 * C, bottom += 2 * C)
        for (idx c = (C - 1) / 8 * 8; c >= 0; c -= 8) { /* the last first: it runs on into what the first writes */
            idx count = (out_W - x) * C - c;
            v8 value = load_some(slope + c, count) + 0.0f; /* torch adds to zero, which -0 becomes 0 by */
            i8 number = load_some_bytes(place + c, count);
            put_some(top + c, (v8)((number == 0) & (i8)value), count, streamed);
            put_some(top + C + c, (v8)((number == 1) & (i8)value), count, streamed);
            put_some(bottom + c, (v8)((number == 2) & (i8)value), count, streamed);
            put_some(bottom + C + c, (v8)((number == 3) & (i8)value), count, streamed);
        }
    if (W % 2) {
        memset(top, 0, C * sizeof(float));
        memset(bottom, 0, C * sizeof(float));
    }
}

/* gradient (N, H, W, C) of the images, from that of the outputs and the places (N, H/2, W/2, C). */
void max_pool_gradient(const float *slopes, const uint8_t *places, float *gradient, idx N, idx H, idx W, idx C,
                       int threads) {
    idx out_H = H / 2, out_row = W / 2 * C, turns = H - out_H; /* the last row of an odd height has its own */
    int streamed = C % 8 == 0 && is_streamed(gradient, N * H * W * C);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx turn = 0; turn < N * turns; turn++) {
            idx image = turn / turns, y = turn % turns, from = (image * out_H + y) * out_row;
            float *top = gradient + (image * H + 2 * y) * W * C;
            if (y >= out_H) memset(top, 0, W * C * sizeof(float));
            else if (streamed) spread_row(slopes + from, places + from, top, W, C, 1);
            else spread_row(slopes + from, places + from, top, W, C, 0);
        }
        end_stream();
    }
}
