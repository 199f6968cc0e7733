/* What the C files beside this one have in common: eight float32 numbers at a time. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t idx;
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef uint8_t b8 __attribute__((vector_size(8)));
typedef uint8_t b8_any __attribute__((vector_size(8), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))

int omp_get_thread_num(void); /* of the runtime that torch has loaded, so that both share one set of threads */

INLINE v8 load(const float *p) { return *(const v8_any *)p; }
INLINE void store(float *p, v8 v) { *(v8_any *)p = v; }
INLINE v8 all_of(float value) { return (v8){0} + value; }
INLINE i8 load_bytes(const uint8_t *p) { return __builtin_convertvector(*(const b8_any *)p, i8); }
INLINE void store_bytes(uint8_t *p, i8 v) { *(b8_any *)p = __builtin_convertvector(v, b8); }
INLINE idx at_most(idx a, idx b) { return a < b ? a : b; }

/* `yes` where `mask` is all ones, `no` where it is all zeros. */
INLINE v8 chosen(i8 mask, v8 yes, v8 no) { return (v8)((mask & (i8)yes) | (~mask & (i8)no)); }

/* Put the larger of both and its number in the place of `largest` and `number`. Of equal values the first is the largest,
   and nan is larger than any number, as torch has it. */
INLINE void keep_larger(v8 *largest, i8 *number, v8 value, int own) {
    i8 is_larger = (value > *largest) | (value != value);
    *largest = chosen(is_larger, value, *largest);
    *number = (is_larger & own) | (~is_larger & *number);
}

/* Results of more bytes than this have left the caches before anything reads them again. They are streamed: a
   processor then writes lines without reading them first, which is a third of the traffic of an operation that reads as
   much as it writes. */
#define STREAMED_BYTES (1 << 24)

/* Return whether `numbers` results from `p` are streamed, each at a multiple of eight. */
INLINE int is_streamed(const float *p, idx numbers) {
    return numbers * (idx)sizeof(float) > STREAMED_BYTES && (uintptr_t)p % sizeof(v8) == 0;
}

INLINE void put(float *p, v8 v, int streamed) {
    if (!streamed) store(p, v);
#if defined(__clang__)
    else __builtin_nontemporal_store(v, (v8 *)p);
#elif defined(__AVX__)
    else __builtin_ia32_movntps256(p, v);
#else
    else store(p, v);
#endif
}

/* To be called by each thread after its last `put`: what was streamed is in its place for all others. */
INLINE void end_stream(void) {
#if defined(__AVX__)
    __builtin_ia32_sfence();
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
