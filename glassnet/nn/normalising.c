/* Batch normalisation in training (Ioffe and Szegedy 2015, algorithm 1), in float32, over (pixels, C) numbers: images of
   a batch with their channels innermost. C is a multiple of eight.

   Mean and variance are those of blocks of pixels, each taken twice from the cache, put together as Chan, Golub and
   LeVeque (1979) do, so that a mean far from zero costs no digits. Each number is summed in an order that does not
   depend on the number of threads. */

#include "vectors.h"

#define CHUNKS 64 /* parts of the pixels that are summed by themselves */
#define BLOCK 64 /* pixels whose mean is taken at once */

/* Add `count` pixels of eight channels to the mean and the sum of squares of what came before, `seen` pixels. */
INLINE void gather(const float *x, idx count, idx C, idx seen, float *mean, float *squares) {
    v8 sum[4] = {{0}}, square[4] = {{0}};
    idx p = 0;
    for (; p + 4 <= count; p += 4)
        for (idx q = 0; q < 4; q++) sum[q] += load(x + (p + q) * C);
    for (; p < count; p++) sum[0] += load(x + p * C);
    v8 own = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * all_of(1.f / count), from = own - load(mean);
    for (p = 0; p + 4 <= count; p += 4)
        for (idx q = 0; q < 4; q++) {
            v8 apart = load(x + (p + q) * C) - own;
            square[q] += apart * apart;
        }
    for (; p < count; p++) {
        v8 apart = load(x + p * C) - own;
        square[0] += apart * apart;
    }
    float share = (float)count / (seen + count);
    store(mean, load(mean) + from * all_of(share));
    store(squares, load(squares) + ((square[0] + square[1]) + (square[2] + square[3])) +
                       from * from * all_of(share * seen));
}

/* Numbers that both functions work in. */
idx batch_norm_space(idx C) { return CHUNKS * 2 * C; }

/* y (pixels, C) = (x - mean) * scale * weight + bias, with `mean` and `scale` (C), one over the standard deviation, which
   are given back. `running_mean` and `running_variance` go towards those of the batch by the share `momentum`. */
void batch_norm(const float *x, const float *weight, const float *bias, float *running_mean, float *running_variance,
                float *mean, float *scale, float *y, float *space, idx pixels, idx C, double epsilon, double momentum,
                int threads) {
    idx chunk = (pixels + CHUNKS - 1) / CHUNKS, chunks = (pixels + chunk - 1) / chunk;
    memset(space, 0, chunks * 2 * C * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx number = 0; number < chunks; number++) {
            const float *from = x + number * chunk * C;
            idx count = at_most(chunk, pixels - number * chunk);
            for (idx seen = 0; seen < count; seen += BLOCK)
                for (idx c = 0; c < C; c += 8)
                    gather(from + seen * C + c, at_most(BLOCK, count - seen), C, seen, space + number * 2 * C + c,
                           space + (number * 2 + 1) * C + c);
        }
#pragma omp for schedule(static)
        for (idx c = 0; c < C; c++) {
            double middle = 0, squares = 0;
            for (idx number = 0; number < chunks; number++) {
                double count = at_most(chunk, pixels - number * chunk), share = count / (number * chunk + count);
                double apart = space[number * 2 * C + c] - middle;
                middle += apart * share;
                squares += space[(number * 2 + 1) * C + c] + apart * apart * share * (number * chunk);
            }
            double variance = squares / pixels;
            mean[c] = middle;
            scale[c] = 1 / __builtin_sqrt(variance + epsilon);
            running_mean[c] += momentum * (middle - running_mean[c]);
            running_variance[c] += momentum * (squares / (pixels - 1) - running_variance[c]);
        }
#pragma omp for schedule(static)
        for (idx number = 0; number < chunks; number++)
            for (idx p = number * chunk; p < at_most(pixels, (number + 1) * chunk); p++)
                for (idx c = 0; c < C; c += 8)
                    store(y + p * C + c,
                          (load(x + p * C + c) - load(mean + c)) * (load(scale + c) * load(weight + c)) + load(bias + c));
    }
}

/* gradient (pixels, C) of x from `slopes`, that of y; and those of weight and bias (C). */
void batch_norm_gradient(const float *x, const float *slopes, const float *weight, const float *mean,
                         const float *scale, float *gradient, float *weight_gradient, float *bias_gradient,
                         float *space, idx pixels, idx C, int threads) {
    idx chunk = (pixels + CHUNKS - 1) / CHUNKS, chunks = (pixels + chunk - 1) / chunk;
    memset(space, 0, chunks * 2 * C * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx number = 0; number < chunks; number++) {
            idx end = at_most(pixels, (number + 1) * chunk);
            for (idx start = number * chunk; start < end; start += BLOCK)
                for (idx c = 0; c < C; c += 8) {
                    float *sums = space + number * 2 * C + c, *products = sums + C;
                    v8 sum[2] = {{0}}, product[2] = {{0}}, middle = load(mean + c);
                    for (idx p = start; p < at_most(end, start + BLOCK); p++) {
                        v8 slope = load(slopes + p * C + c);
                        sum[p % 2] += slope;
                        product[p % 2] += slope * (load(x + p * C + c) - middle);
                    }
                    store(sums, load(sums) + (sum[0] + sum[1]));
                    store(products, load(products) + (product[0] + product[1]));
                }
        }
#pragma omp for schedule(static)
        for (idx c = 0; c < C; c++) {
            double sum = 0, products = 0;
            for (idx number = 0; number < chunks; number++) {
                sum += space[number * 2 * C + c];
                products += space[(number * 2 + 1) * C + c];
            }
            bias_gradient[c] = sum;
            weight_gradient[c] = products * scale[c];
        }
#pragma omp for schedule(static)
        for (idx number = 0; number < chunks; number++)
            for (idx p = number * chunk; p < at_most(pixels, (number + 1) * chunk); p++)
                for (idx c = 0; c < C; c += 8) {
                    v8 factor = load(scale + c), share = all_of(1.f / pixels);
                    v8 apart = (load(x + p * C + c) - load(mean + c)) * factor;
                    v8 own = load(slopes + p * C + c) - (load(bias_gradient + c) + apart * load(weight_gradient + c)) * share;
                    store(gradient + p * C + c, own * (factor * load(weight + c)));
                }
    }
}
