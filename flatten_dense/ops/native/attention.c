// Focused linear attention over tokens: arXiv 2308.00442, eq. 3.
//
// A row is focused while it lies in the first-level cache, and the products of a block of tokens are made from there:
// every entry of q, k, v and the output is touched once.

#include <omp.h>

#include "attention.h"

// state [B, G, D, D] += sum_j phi(k)_j v_j^T, keys [B, C] += sum_j phi(k)_j. Returns 0, or 1 without memory.
int attention_keys(const shape_t *s, const rows_t *k, const rows_t *v, const encoding_t *encoding, const uint8_t *mask,
                   float *state, float *keys) {
    const int64_t channels = s->heads * s->dim, size = channels * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t sums = size + channels, own = 2 * BLOCK * channels;
    float *memory = take(tasks * sums + s->threads * own);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts, stride;
        float *total = memory + task * sums, *scratch = memory + tasks * sums + omp_get_thread_num() * own;
        position_t positions[BLOCK];
        fill(total, 0, sums);
        range_of(s, task % parts, parts, &first, &last);
        for (int64_t token = first; token < last; token += BLOCK) {
            const int64_t count = last - token < BLOCK ? last - token : BLOCK;
            const uint8_t *ignored = mask ? mask + image * s->tokens + token : NULL;
            const float *w = as_float(v, image, token, count, channels, ignored, 0, scratch + BLOCK * channels, &stride);
            place(encoding, image, token, count, channels, positions);
            add_block(s, k, image * k->batch + token * k->token, w, stride, positions, ignored, count, total,
                      total + size, scratch);
        }
    }
    add_parts(memory, s->batch, parts, size, channels, state, keys);
    free(memory);
    return 0;
}

// out (+)= phi(q) state / (phi(q) . keys + 1e-6) with the mean state [B, G, D, D] and mean keys [B, C].
int attention_queries(const shape_t *s, const rows_t *q, const float *state, const float *keys, const rows_t *out,
                      int64_t add) {
    const int64_t channels = s->heads * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t own = 2 * BLOCK * channels + BLOCK * s->heads;
    float *memory = take(s->threads * own);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts;
        range_of(s, task % parts, parts, &first, &last);
        for (int64_t token = first; token < last; token += BLOCK)
            answer_block(s, q, image * q->batch + token * q->token, state + image * channels * s->dim,
                         keys + image * channels, out, image * out->batch + token * out->token, add,
                         last - token < BLOCK ? last - token : BLOCK, memory + omp_get_thread_num() * own);
    }
    free(memory);
    return 0;
}
