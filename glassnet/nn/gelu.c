/* GELU (Hendrycks and Gimpel 2016), x Phi(x), and its gradient, in float32; Phi(x) is the share of the standard normal
   distribution below x.

   With a = |x|, Phi(-a) = exp(-a^2 / 2) P(s) / (a + K) where s = (a - K) / (a + K), the substitution of Shepherd and
   Laframboise (1981); P is the polynomial of seven terms with the least error, 4e-10 at most. Then x Phi(x) = max(x, 0)
   - a Phi(-a), which cancels nothing: (1 + erf(x / sqrt 2)) / 2 has hardly a digit left at -4. */

#include "vectors.h"

#define K 4.25f
#define FURTHEST 12.f /* Phi(-a) is 1e-33 there, and taken for 0 beyond */
#define BLOCK 4096 /* numbers that a thread takes at once */

/* 2 to the power of y, from -110 to 0, by the polynomial of six terms with the least error, 2e-9. */
INLINE v8 power_of_two(v8 y) {
    v8 rounder = all_of(12582912.f), turns = y + rounder; /* 1.5 * 2^23: such a sum is a whole number */
    v8 rest = y - (turns - rounder);
    v8 sum = rest * 0.0001535334221286471f + 0.0013398872453020925f;
    sum = sum * rest + 0.009618437402732837f;
    sum = sum * rest + 0.05550332476058188f;
    sum = sum * rest + 0.2402264791347817f;
    sum = sum * rest + 0.6931472028528297f;
    sum = sum * rest + 1.f;
    return (v8)((i8)sum + ((i8)turns << 23));
}

/* Return Phi(-a), and exp(-a^2 / 2). */
INLINE v8 share_below(v8 a, v8 *bell) {
    v8 part = 1.f / (a + K), s = 1.f - part * (2 * K);
    v8 sum = s * -0.009001189705180046f - 0.031721278633232486f;
    sum = sum * s + 0.07519497560881927f;
    sum = sum * s - 0.22530569926568011f;
    sum = sum * s + 0.41691817489967464f;
    sum = sum * s - 0.6253176062642699f;
    sum = sum * s + 0.7595434822124054f;
    *bell = power_of_two(a * a * -0.72134752f); /* half the logarithm of e to the base 2 */
    return sum * part * *bell;
}

INLINE v8 gelu_of(v8 x) {
    v8 a = (v8)((i8)x & 0x7fffffff), bell, tail = a * share_below(a, &bell);
    return x * 0.5f + a * 0.5f - (v8)(~(a > FURTHEST) & (i8)tail); /* the first two are max(x, 0) */
}

INLINE v8 slope_of(v8 x) {
    i8 sign = (i8)x & ~0x7fffffff;
    v8 a = (v8)((i8)x ^ sign), bell, tail = share_below(a, &bell);
    v8 difference = a * bell * 0.398942280f - tail; /* one over the root of 2 pi */
    difference = 0.5f + (v8)(~(a > FURTHEST) & (i8)difference);
    return 0.5f + (v8)((i8)difference ^ sign);
}

/* results = gelu_of(x), or of the gradient slopes * slope_of(x); of `count` numbers, eight at a time. */
INLINE void apply(const float *x, const float *slopes, float *results, idx count, int of_gradient, int streamed) {
    idx i = 0;
    for (; i + 8 <= count; i += 8) {
        v8 values = load(x + i);
        put(results + i, of_gradient ? slope_of(values) * load(slopes + i) : gelu_of(values), streamed);
    }
    if (i == count) return;
    v8 values = {0}, own = {0};
    memcpy(&values, x + i, (count - i) * sizeof(float));
    if (of_gradient) memcpy(&own, slopes + i, (count - i) * sizeof(float));
    values = of_gradient ? slope_of(values) * own : gelu_of(values);
    memcpy(results + i, &values, (count - i) * sizeof(float));
}

INLINE void apply_to_all(const float *x, const float *slopes, float *results, idx count, int of_gradient, int threads) {
    int streamed = is_streamed(results, count);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (idx start = 0; start < count; start += BLOCK) {
            idx own = of_gradient ? start : 0, length = at_most(BLOCK, count - start);
            if (streamed) apply(x + start, slopes + own, results + start, length, of_gradient, 1);
            else apply(x + start, slopes + own, results + start, length, of_gradient, 0);
        }
        end_stream();
    }
}

/* results (count) = GELU of x (count). */
void gelu(const float *x, float *results, idx count, int threads) {
    apply_to_all(x, NULL, results, count, 0, threads);
}

/* gradient (count) of x (count) from `slopes`, that of the results. */
void gelu_gradient(const float *x, const float *slopes, float *gradient, idx count, int threads) {
    apply_to_all(x, slopes, gradient, count, 1, threads);
}
