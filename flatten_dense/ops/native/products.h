// The small matrix products of one head over a block of tokens. D is a multiple of LANES; every matrix is row-major.
#pragma once

#include "vector.h"

// Accumulators that stay in registers: half of what the processor has.
#if defined(__AVX512F__)
#define TILE 16
#else
#define TILE 4
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void tokens_tile(const float *x, int64_t ldx, const float *a, int64_t lda, int64_t depth, float *y,
                               int64_t ldy, const int rows, const int columns) {
    vf sums[TILE] = {};
    for (int64_t d = 0; d < depth; d++) {
        vf b[4];
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) b[c] = load(a + d * lda + c * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vf s = splat(x[r * ldx + d]);
#pragma GCC unroll 4
            for (int c = 0; c < columns; c++) sums[r * columns + c] += s * b[c];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) store(y + r * ldy + c * LANES, sums[r * columns + c]);
}

ALWAYS_INLINE void outer_tile(const float *x, int64_t ldx, const float *w, int64_t ldw, int64_t tokens, float *s,
                              int64_t lds, const int rows, const int columns) {
    vf sums[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) sums[r * columns + c] = load(s + r * lds + c * LANES);
    for (int64_t t = 0; t < tokens; t++) {
        vf b[4];
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) b[c] = load(w + t * ldw + c * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vf a = splat(x[t * ldx + r]);
#pragma GCC unroll 4
            for (int c = 0; c < columns; c++) sums[r * columns + c] += a * b[c];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) store(s + r * lds + c * LANES, sums[r * columns + c]);
}

// y[t] = x[t] a for `tokens` rows (a multiple of TILE), a [D, D].
static inline void tokens_times(const float *x, int64_t ldx, const float *a, int64_t dim, int64_t tokens, float *y,
                         int64_t ldy) {
    for (int64_t column = 0; column < dim;) {
        const int64_t left = (dim - column) / LANES;
        const int columns = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const float *part = a + column;
        float *to = y + column;
#define EACH_TILE(ROWS, COLUMNS)                                                              \
    for (int64_t t = 0; t < tokens; t += ROWS)                                                \
    tokens_tile(x + t * ldx, ldx, part, dim, dim, to + t * ldy, ldy, ROWS, COLUMNS)
        if (columns == 1)
            EACH_TILE(TILE, 1);
        else if (columns == 2)
            EACH_TILE((TILE / 2), 2);
        else
            EACH_TILE((TILE / 4), 4);
#undef EACH_TILE
        column += columns * LANES;
    }
}

// s += x^T w over `tokens` rows, s [D, D].
static inline void add_outer(const float *x, int64_t ldx, const float *w, int64_t ldw, int64_t dim, int64_t tokens, float *s) {
    for (int64_t column = 0; column < dim;) {
        const int64_t left = (dim - column) / LANES;
        const int columns = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const float *part = w + column;
        float *to = s + column;
#define EACH_TILE(ROWS, COLUMNS)                                                              \
    for (int64_t d = 0; d < dim; d += ROWS)                                                   \
    outer_tile(x + d, ldx, part, ldw, tokens, to + d * dim, dim, ROWS, COLUMNS)
        if (columns == 1)
            EACH_TILE(TILE, 1);
        else if (columns == 2)
            EACH_TILE((TILE / 2), 2);
        else
            EACH_TILE((TILE / 4), 4);
#undef EACH_TILE
        column += columns * LANES;
    }
}
