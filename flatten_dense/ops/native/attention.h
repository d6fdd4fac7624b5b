// What attention makes of one block of tokens.
#pragma once

#include "focus.h"

ALWAYS_INLINE void add_block_at(const shape_t *s, const rows_t *k, int64_t at, const float *v, int64_t stride,
                                const position_t *positions, const uint8_t *ignored, int64_t count, float *state,
                                float *keys, float *p, const int power) {
    const int64_t channels = s->heads * s->dim;
    float length[BLOCK], powered[BLOCK];
    focus(k, at, count, positions, ignored, s->inv_scale, channels, power, p, p, length, powered);
    for (int64_t i = 0; i < count; i++) length[i] /= powered[i];
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            vf phi = load(p + i * channels + c) * length[i];
            store(p + i * channels + c, phi);
            store(keys + c, load(keys + c) + phi);
        }
    for (int64_t h = 0; h < s->heads; h++)
        add_outer(p + h * s->dim, channels, v + h * s->dim, stride, s->dim, count, state + h * s->dim * s->dim);
}

// state [G, D, D] += sum_i phi(k)_i v_i^T and keys [C] += sum_i phi(k)_i of `count` keys, at `at` in `k`, and values, in
// rows `stride` apart. scratch [BLOCK, C].
static inline void add_block(const shape_t *s, const rows_t *k, int64_t at, const float *v, int64_t stride,
                             const position_t *positions, const uint8_t *ignored, int64_t count, float *state,
                             float *keys, float *scratch) {
    if (s->power == 3)
        add_block_at(s, k, at, v, stride, positions, ignored, count, state, keys, scratch, 3);
    else
        add_block_at(s, k, at, v, stride, positions, ignored, count, state, keys, scratch, s->power);
}

ALWAYS_INLINE void answer_block_at(const shape_t *s, const rows_t *q, int64_t at, const float *state, const float *keys,
                                   const rows_t *out, int64_t out_at, int add, int64_t count, float *scratch,
                                   const int power) {
    const int64_t channels = s->heads * s->dim, dim = s->dim;
    float *p = scratch, *products = p + BLOCK * channels, *dots = products + BLOCK * channels;
    float length[BLOCK], powered[BLOCK];
    focus(q, at, count, NULL, NULL, s->inv_scale, channels, power, p, p, length, powered);
    fill(p + count * channels, 0, (BLOCK - count) * channels);
    for (int64_t h = 0; h < s->heads; h++)
        tokens_times(p + h * dim, channels, square(state + h * dim * dim, dim), BLOCK, products + h * dim, channels);
    for (int64_t i = 0; i < count; i++)
        for (int64_t h = 0; h < s->heads; h++) {
            vf dot = {};
            for (int64_t d = h * dim; d < (h + 1) * dim; d += LANES) dot += load(p + i * channels + d) * load(keys + d);
            dots[i * s->heads + h] = sum(dot) + EPS * powered[i] / length[i];
        }
    for (int64_t i = 0; i < count * s->heads; i++) dots[i] = 1 / dots[i];
    for (int64_t i = 0; i < count; i++, out_at += out->token)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t d = h * dim; d < (h + 1) * dim; d += LANES) {
                vf o = load(products + i * channels + d) * dots[i * s->heads + h];
                if (add) o += load_any(out->data, out_at + d, out->type);
                store_any(out->data, out_at + d, out->type, o);
            }
}

// out (+)= phi(q) state / (phi(q) . keys + 1e-6) of `count` queries at `at`, with means over all keys. scratch
// [2 * BLOCK, C] and [BLOCK, G].
static inline void answer_block(const shape_t *s, const rows_t *q, int64_t at, const float *state, const float *keys,
                                const rows_t *out, int64_t out_at, int add, int64_t count, float *scratch) {
    if (s->power == 3)
        answer_block_at(s, q, at, state, keys, out, out_at, add, count, scratch, 3);
    else
        answer_block_at(s, q, at, state, keys, out, out_at, add, count, scratch, s->power);
}

// Add the sums of the parts of each image, [state and keys] one after another, to state [B, G, D, D] and keys [B, C].
static inline void add_parts(const float *sums, int64_t batch, int64_t parts, int64_t size, int64_t channels,
                             float *state, float *keys) {
    for (int64_t image = 0; image < batch; image++, state += size, keys += channels)
        for (int64_t part = 0; part < parts; part++, sums += size + channels) {
            for (int64_t i = 0; i < size; i++) state[i] += sums[i];
            for (int64_t i = 0; i < channels; i++) keys[i] += sums[size + i];
        }
}
