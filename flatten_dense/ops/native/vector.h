// What the kernels share: vectors as wide as the processor's, and access to rows of either type.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// TILE: accumulators of a product that stay in registers, about half of those that there are.
#if defined(__AVX512F__)
#define LANES 16
#define TILE 16
#elif defined(__AVX__)
#define LANES 8
#define TILE 8
#elif defined(__aarch64__)
#define LANES 4
#define TILE 16
#else
#define LANES 4
#define TILE 8
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

enum { FLOAT32 = 0, BFLOAT16 = 1 };

static inline vf load(const float *x) {
    vf v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline void store(float *x, vf v) { memcpy(x, &v, sizeof v); }

static inline vf splat(float x) { return x - (vf){}; }

static inline vf load_bf16(const uint16_t *x) {
    vh h;
    memcpy(&h, x, sizeof h);
    vu u = __builtin_convertvector(h, vu) << 16;
    return (vf)u;
}

// Round to nearest, ties to even; NaN stays NaN.
static inline void store_bf16(uint16_t *x, vf v) {
#if defined(__AVX512BF16__)
    __m256bh rounded_by_processor = _mm512_cvtneps_pbh((__m512)v);
    memcpy(x, &rounded_by_processor, sizeof rounded_by_processor);
#else
    vu u = (vu)v;
    vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    vu quiet = (u >> 16) | 0x40;
    vu is_nan = (vu)(v != v);
    vh h = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), vh);
    memcpy(x, &h, sizeof h);
#endif
}

// Entry `at` of a tensor of either type.
static inline vf load_any(const void *x, int64_t at, int type) {
    return type == BFLOAT16 ? load_bf16((const uint16_t *)x + at) : load((const float *)x + at);
}

static inline void store_any(void *x, int64_t at, int type, vf v) {
    if (type == BFLOAT16)
        store_bf16((uint16_t *)x + at, v);
    else
        store((float *)x + at, v);
}

// a where `mask` (all bits of a lane, or none) is set, else b.
static inline vf pick(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

// x, but no further from 0 than `edge`; any number within for NaN.
static inline vf clamp(vf x, float edge) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps(_mm512_min_ps((__m512)x, (__m512)splat(edge)), (__m512)splat(-edge));
#else
    return pick(x > edge, splat(edge), pick(x < -edge, splat(-edge), x));
#endif
}

typedef float vf4 __attribute__((vector_size(16)));

// Sum of all entries.
static inline float sum(vf v) {
    vf4 quarters[LANES / 4], total;
    memcpy(quarters, &v, sizeof v);
    total = quarters[0];
    for (int i = 1; i < LANES / 4; i++) total += quarters[i];
    return (total[0] + total[1]) + (total[2] + total[3]);
}

// Memory for so many floats, aligned to a cache line; NULL if there is none.
static inline float *take(int64_t floats) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, (size_t)(floats * (int64_t)sizeof(float))) ? NULL : memory;
}
