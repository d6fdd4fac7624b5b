// Focused linear attention over tokens: arXiv 2308.00442, eq. 3.
//
// A row is focused while it lies in the first-level cache, and the products of a block of tokens are made from there:
// every entry of q, k, v and the output is touched once.

#include "focus.h"

ALWAYS_INLINE void add_keys(const shape_t *s, const rows_t *k, const rows_t *v, const encoding_t *encoding,
                            const uint8_t *mask, int64_t image, int64_t first, int64_t last, float *state, float *keys,
                            float *scratch, const int power) {
    const int64_t channels = s->heads * s->dim;
    float *p = scratch, *values = p + BLOCK * channels, length[BLOCK], powered[BLOCK];
    position_t positions[BLOCK];
    for (int64_t token = first; token < last; token += BLOCK) {
        const int64_t count = last - token < BLOCK ? last - token : BLOCK;
        const uint8_t *ignored = mask ? mask + image * s->tokens + token : NULL;
        place(encoding, image, token, count, channels, positions);
        focus(k, image * k->batch + token * k->token, count, positions, ignored, s->inv_scale, channels, power, p, p,
              length, powered);
        for (int64_t i = 0; i < count; i++) length[i] /= powered[i];
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < channels; c += LANES) {
                vf phi = load(p + i * channels + c) * length[i];
                store(p + i * channels + c, phi);
                store(keys + c, load(keys + c) + phi);
            }
        int64_t stride;
        const float *w = as_float(v, image, token, count, channels, ignored, 0, values, &stride);
        for (int64_t h = 0; h < s->heads; h++)
            add_outer(p + h * s->dim, channels, w + h * s->dim, stride, s->dim, count, state + h * s->dim * s->dim);
    }
}

// state [B, G, D, D] += sum_j phi(k)_j v_j^T, keys [B, C] += sum_j phi(k)_j. Returns 0, or 1 without memory.
int attention_keys(const shape_t *s, const rows_t *k, const rows_t *v, const encoding_t *encoding, const uint8_t *mask,
                   float *state, float *keys) {
    const int64_t channels = s->heads * s->dim, size = channels * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t own = size + channels + 2 * BLOCK * channels;
    float *memory = take(tasks * own);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts;
        range_of(s, task % parts, parts, &first, &last);
        float *sums = memory + task * own;
        fill(sums, 0, size + channels);
        if (s->power == 3)
            add_keys(s, k, v, encoding, mask, image, first, last, sums, sums + size, sums + size + channels, 3);
        else
            add_keys(s, k, v, encoding, mask, image, first, last, sums, sums + size, sums + size + channels, s->power);
    }
    for (int64_t task = 0; task < tasks; task++) {
        const float *sums = memory + task * own;
        float *to = state + task / parts * size, *to_keys = keys + task / parts * channels;
        for (int64_t i = 0; i < size; i++) to[i] += sums[i];
        for (int64_t i = 0; i < channels; i++) to_keys[i] += sums[size + i];
    }
    free(memory);
    return 0;
}

ALWAYS_INLINE void answer(const shape_t *s, const rows_t *q, const float *state, const float *keys, const rows_t *out,
                          int add, int64_t image, int64_t first, int64_t last, float *scratch, const int power) {
    const int64_t channels = s->heads * s->dim, dim = s->dim;
    float *p = scratch, *products = p + BLOCK * channels, *dots = products + BLOCK * channels;
    float length[BLOCK], powered[BLOCK];
    for (int64_t token = first; token < last; token += BLOCK) {
        const int64_t count = last - token < BLOCK ? last - token : BLOCK;
        focus(q, image * q->batch + token * q->token, count, NULL, NULL, s->inv_scale, channels, power, p, p, length,
              powered);
        if (count < BLOCK) fill(p + count * channels, 0, (BLOCK - count) * channels);
        for (int64_t h = 0; h < s->heads; h++)
            tokens_times(p + h * dim, channels, state + h * dim * dim, dim, BLOCK, products + h * dim, channels);
        for (int64_t i = 0; i < count; i++)
            for (int64_t h = 0; h < s->heads; h++) {
                vf dot = {};
                for (int64_t d = h * dim; d < (h + 1) * dim; d += LANES) dot += load(p + i * channels + d) * load(keys + d);
                dots[i * s->heads + h] = sum(dot) + EPS * powered[i] / length[i];
            }
        for (int64_t i = 0; i < count * s->heads; i++) dots[i] = 1 / dots[i];
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = image * out->batch + (token + i) * out->token;
            for (int64_t h = 0; h < s->heads; h++)
                for (int64_t d = h * dim; d < (h + 1) * dim; d += LANES) {
                    vf o = load(products + i * channels + d) * dots[i * s->heads + h];
                    if (add) o += load_any(out->data, at + d, out->type);
                    store_any(out->data, at + d, out->type, o);
                }
        }
    }
}

// out (+)= phi(q) state / (phi(q) . keys + 1e-6) with the mean state [B, G, D, D] and mean keys [B, C].
int attention_queries(const shape_t *s, const rows_t *q, const float *state, const float *keys, const rows_t *out,
                      int32_t add) {
    const int64_t channels = s->heads * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t own = 2 * BLOCK * channels + BLOCK * s->heads;
    float *memory = take(tasks * own);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts;
        range_of(s, task % parts, parts, &first, &last);
        const float *own_state = state + image * channels * s->dim, *own_keys = keys + image * channels;
        if (s->power == 3)
            answer(s, q, own_state, own_keys, out, add, image, first, last, memory + task * own, 3);
        else
            answer(s, q, own_state, own_keys, out, add, image, first, last, memory + task * own, s->power);
    }
    free(memory);
    return 0;
}
