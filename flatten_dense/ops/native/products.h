// Small matrix products over a block of tokens. Widths are multiples of LANES; every matrix is row-major.
#pragma once

#include "vector.h"

#define DEEP 128 // rows of a matrix that are multiplied at a time

#define ALWAYS_INLINE static inline __attribute__((always_inline))

// A tile of y = x a + start. Summed from zero, so that the parts of a long sum stay apart.
ALWAYS_INLINE void tokens_tile(const float *x, int64_t ldx, const float *a, int64_t lda, int64_t depth, float *y,
                               int64_t ldy, const int rows, const int columns, const float *start, int64_t lds) {
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
        for (int c = 0; c < columns; c++) {
            vf total = sums[r * columns + c];
            store(y + r * ldy + c * LANES, start ? total + load(start + r * lds + c * LANES) : total);
        }
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

// A matrix [depth, width] and a bias [width], or NULL. Packed: one panel of columns after another, each of columns_at().
typedef struct {
    const float *data, *bias;
    int64_t depth, width;
    int packed;
} matrix_t;

static inline int columns_at(int64_t column, int64_t width) {
    const int64_t left = (width - column) / LANES;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// A linear layer's weight [width, depth] into the panel of a packed matrix that begins at a column.
static inline void pack_panel(const float *weight, int64_t depth, int64_t width, int64_t column, float *packed) {
    const int64_t count = columns_at(column, width) * LANES;
    float block[LANES][LANES]; // few rows at a time: those a power of two apart share lines of the cache
    for (int64_t c = 0; c < count; c += LANES)
        for (int64_t d = 0; d < depth; d += LANES) {
            for (int i = 0; i < LANES; i++) store(block[i], load(weight + (column + c + i) * depth + d));
            float *to = packed + column * depth + d * count + c;
            for (int j = 0; j < LANES; j++)
                for (int i = 0; i < LANES; i++) to[j * count + i] = block[i][j];
        }
}

// The matrix of one head.
static inline matrix_t square(const float *data, int64_t dim) { return (matrix_t){data, NULL, dim, dim, 0}; }

// y[t] = x[t] a + bias for `tokens` rows, a multiple of TILE.
static inline void tokens_times(const float *x, int64_t ldx, matrix_t a, int64_t tokens, float *y, int64_t ldy) {
    for (int64_t column = 0, columns; column < a.width; column += columns * LANES) {
        columns = columns_at(column, a.width);
        const float *panel = a.data + (a.packed ? column * a.depth : column);
        const int64_t lda = a.packed ? columns * LANES : a.width;
        float *to = y + column;
        // So many rows of the panel stay in the first-level cache for all tokens.
        for (int64_t from = 0; from < a.depth; from += DEEP) {
            const int64_t deep = a.depth - from < DEEP ? a.depth - from : DEEP, lds = from ? ldy : 0;
            const float *start = from ? to : a.bias ? a.bias + column : NULL;
#define EACH_TILE(ROWS, COLUMNS)                                                                   \
    for (int64_t t = 0; t < tokens; t += ROWS)                                                     \
    tokens_tile(x + t * ldx + from, ldx, panel + from * lda, lda, deep, to + t * ldy, ldy, ROWS,   \
                COLUMNS, start ? start + t * lds : NULL, lds)
            if (columns == 1)
                EACH_TILE(TILE, 1);
            else if (columns == 2)
                EACH_TILE((TILE / 2), 2);
            else
                EACH_TILE((TILE / 4), 4);
#undef EACH_TILE
        }
    }
}

// s += x^T w over `tokens` rows, s [D, D].
static inline void add_outer(const float *x, int64_t ldx, const float *w, int64_t ldw, int64_t dim, int64_t tokens, float *s) {
    for (int64_t column = 0; column < dim;) {
        const int columns = columns_at(column, dim);
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
