// The focused feature map of a block of tokens, arXiv 2308.00442, eq. 5-6, and the tensors that it is taken of.
//
// With t = y / |y| and p = t^power, phi = (|y| / |p|) p: the factor is a number per token.
#pragma once

#include <math.h>
#include <stdlib.h>

#include "products.h"

#define BLOCK 32 // tokens; a multiple of every TILE
#define EPS 1e-6f

// Rows of C entries: of a batch entry `batch` apart, of a token `token` apart, both in entries. data == NULL: none.
typedef struct {
    void *data;
    int64_t batch, token;
    int32_t type;
} rows_t;

// The table of positions added to keys, bilinearly stretched over the map. batch: 0 when all images share it.
typedef struct {
    const float *data;
    int64_t batch;
    int64_t table_height, table_width, height, width;
    int64_t first_token; // of the map, that the keys of this call begin with
} encoding_t;

typedef struct {
    int64_t batch, tokens, heads, dim; // dim: of a head
    int32_t power, threads;
    const float *inv_scale; // 1 / softplus(scale), [C]
} shape_t;

typedef struct {
    const float *corner[4];
    float weight[4];
    int corners;
} position_t;

static inline void tap(int64_t at, int64_t from, int64_t to, int64_t *low, int64_t *high, float *part) {
    float x = ((float)at + 0.5f) * ((float)from / (float)to) - 0.5f;
    x = x < 0 ? 0 : x;
    *low = (int64_t)x < from - 1 ? (int64_t)x : from - 1;
    *high = *low < from - 1 ? *low + 1 : *low;
    *part = x - (float)*low;
}

// Where the encodings of `count` tokens from `token` on lie.
static inline void place(const encoding_t *e, int64_t image, int64_t token, int64_t count, int64_t channels,
                  position_t *positions) {
    const float *table = e->data + image * e->batch;
    const int fits = e->table_height == e->height && e->table_width == e->width;
    token += e->first_token;
    int64_t row = token / e->width, column = token % e->width, top, bottom, left, right;
    float down, across;
    tap(row, e->table_height, e->height, &top, &bottom, &down);
    for (int64_t i = 0; i < count; i++) {
        position_t *p = positions + i;
        p->corners = e->data ? fits ? 1 : 4 : 0;
        if (p->corners == 1) p->corner[0] = table + (token + i) * channels;
        if (p->corners < 4) continue;
        tap(column, e->table_width, e->width, &left, &right, &across);
        p->corner[0] = table + (top * e->table_width + left) * channels;
        p->corner[1] = table + (top * e->table_width + right) * channels;
        p->corner[2] = table + (bottom * e->table_width + left) * channels;
        p->corner[3] = table + (bottom * e->table_width + right) * channels;
        p->weight[0] = (1 - down) * (1 - across);
        p->weight[1] = (1 - down) * across;
        p->weight[2] = down * (1 - across);
        p->weight[3] = down * across;
        if (++column == e->width) {
            column = 0;
            tap(++row, e->table_height, e->height, &top, &bottom, &down);
        }
    }
}

static inline void fill(float *x, float value, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = value;
}

// Divide a row by its largest entry, which is returned, and say what its squares come to then.
static inline float shrink(float *row, int64_t channels, float *squares) {
    float largest = row[0];
    for (int64_t c = 1; c < channels; c++) largest = row[c] > largest ? row[c] : largest;
    *squares = 0;
    for (int64_t c = 0; c < channels; c++) {
        row[c] /= largest;
        *squares += row[c] * row[c];
    }
    return largest;
}

// Focus a block of rows, at `at` in `x`: t and p [BLOCK, C] (t == p: only p is kept), |y| and |p| [BLOCK].
// In three passes, so that the roots and quotients of a row never wait for each other.
ALWAYS_INLINE void focus(const rows_t *x, int64_t at, int64_t count, const position_t *positions, const uint8_t *mask,
                         const float *inv_scale, int64_t channels, const int power, float *t, float *p, float *length,
                         float *powered) {
    const vf zero = {};
    for (int64_t i = 0; i < count; i++, at += x->token) {
        float *row = t + i * channels;
        const position_t *e = positions ? positions + i : NULL;
        vf squares = {};
        if (mask && mask[i]) {
            fill(row, 0, channels);
            length[i] = 1;
            continue;
        }
        for (int64_t c = 0; c < channels; c += LANES) {
            vf a = load_any(x->data, at + c, x->type);
            if (e && e->corners == 1) a += load(e->corner[0] + c);
            if (e && e->corners == 4)
                a += e->weight[0] * load(e->corner[0] + c) + e->weight[1] * load(e->corner[1] + c) +
                     e->weight[2] * load(e->corner[2] + c) + e->weight[3] * load(e->corner[3] + c);
            vf y = (pick(a < zero, zero, a) + EPS) * load(inv_scale + c); // not a > 0: NaN stays NaN
            store(row + c, y);
            squares += y * y;
        }
        length[i] = sum(squares);
    }
    for (int64_t i = 0; i < count; i++) {
        // Squares that float32 does not hold: such a row is divided by its largest entry first.
        const float largest = length[i] < 1e-30f || length[i] > 1e30f ? shrink(t + i * channels, channels, length + i) : 1;
        const float shrunk = sqrtf(length[i]);
        powered[i] = 1 / shrunk;
        length[i] = largest * shrunk;
    }
    for (int64_t i = 0; i < count; i++) {
        const float inverse = powered[i];
        // |p|^2 is at least C^(1 - power). From 0 the squares of dead channels would be denormal, at 100 cycles each.
        vf powers = splat(1e-30f);
        for (int64_t c = i * channels; c < (i + 1) * channels; c += LANES) {
            vf y = load(t + c) * inverse, z = y;
            for (int n = 1; n < power; n++) z *= y;
            store(t + c, y);
            store(p + c, z);
            powers += z * z;
        }
        powered[i] = sum(powers);
    }
    for (int64_t i = 0; i < count; i++) powered[i] = sqrtf(powered[i]);
}

// The `count` rows of a block as float32, BLOCK rows if `whole`: where they lie if that will do, else in `scratch`, with
// zeros for those ignored and beyond the last.
static inline const float *as_float(const rows_t *rows, int64_t image, int64_t token, int64_t count, int64_t channels,
                             const uint8_t *mask, int whole, float *scratch, int64_t *stride) {
    const int64_t at = image * rows->batch + token * rows->token;
    if (rows->type == FLOAT32 && !mask && (count == BLOCK || !whole)) {
        *stride = rows->token;
        return (const float *)rows->data + at;
    }
    *stride = channels;
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < channels; c += LANES)
            store(scratch + i * channels + c,
                  mask && mask[i] ? (vf){} : load_any(rows->data, at + i * rows->token + c, rows->type));
    fill(scratch + count * channels, 0, (BLOCK - count) * channels);
    return scratch;
}

// Parts that the tokens of an image are cut into, so that every thread has work.
static inline int64_t parts_of(const shape_t *s) {
    int64_t parts = (s->threads + s->batch - 1) / s->batch, most = (s->tokens + BLOCK - 1) / BLOCK;
    return parts < most ? parts : most > 0 ? most : 1;
}

static inline void range_of(const shape_t *s, int64_t part, int64_t parts, int64_t *first, int64_t *last) {
    int64_t blocks = (s->tokens + BLOCK - 1) / BLOCK;
    *first = blocks * part / parts * BLOCK;
    *last = blocks * (part + 1) / parts * BLOCK;
    if (*last > s->tokens) *last = s->tokens;
}
