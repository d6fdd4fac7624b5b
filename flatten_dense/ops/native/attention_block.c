// Focused linear attention with its LayerNorm, its projections, its convolution of the values and its sum: of the whole
// map there are only the values and the result. Arguments as in attention.c and mlp.c; all is float32.

#include <omp.h>

#include "attention.h"
#include "block.h"
#include "depthwise.h"

// What follows attention: the convolution [kernels, k, k] of the values, the projection back, and the sum.
typedef struct {
    const float *weight, *bias;
    int64_t kernels, side, height, width;
    int32_t residual; // add x
} around_t;

// values [B, N, C] = to_v(norm(x)), and with to_k the sums of attention_keys.
int attention_block_keys(const shape_t *s, const rows_t *x, const norm_t *norm, const linear_t *to_k,
                         const linear_t *to_v, const encoding_t *encoding, const rows_t *values, float *state,
                         float *keys) {
    const int64_t channels = s->heads * s->dim, size = channels * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const linear_t *layers[] = {to_k, to_v};
    const int64_t weights = packed_size(layers, 2), sums = size + channels, own = 4 * BLOCK * channels;
    float *memory = take(weights + tasks * sums + s->threads * own);
    if (!memory) return 1;
    float *all_sums = memory + weights;
    memset(all_sums, 0, (size_t)(tasks * sums) * sizeof *all_sums);
#pragma omp parallel num_threads(s->threads)
    {
        matrix_t matrices[2];
        pack_layers(layers, 2, memory, matrices);
        float *y = all_sums + tasks * sums + omp_get_thread_num() * own, *k = y + BLOCK * channels;
        float *v = k + BLOCK * channels, *scratch = v + BLOCK * channels;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t first, last, image = task / parts;
            float *total = all_sums + task * sums;
            position_t positions[BLOCK];
            range_of(s, task % parts, parts, &first, &last);
            for (int64_t token = first; token < last; token += BLOCK) {
                const int64_t count = last - token < BLOCK ? last - token : BLOCK;
                const rows_t rows = {k, 0, channels, FLOAT32};
                float *to = (float *)values->data + image * values->batch + token * values->token;
                normalise_block((const float *)x->data + image * x->batch + token * x->token, x->token, norm, count,
                                BLOCK, channels, y);
                tokens_times(y, channels, matrices[0], BLOCK, k, channels);
                tokens_times(y, channels, matrices[1], BLOCK, v, channels);
                for (int64_t i = 0; i < count; i++)
                    memcpy(to + i * values->token, v + i * channels, (size_t)channels * sizeof *v);
                place(encoding, image, token, count, channels, positions);
                add_block(s, &rows, 0, v, channels, positions, NULL, count, total, total + size, scratch);
            }
        }
    }
    add_parts(all_sums, s->batch, parts, size, channels, state, keys);
    free(memory);
    return 0;
}

// out = proj(attention(to_q(norm(x))) + convolution of the values), and x with around->residual.
int attention_block_queries(const shape_t *s, const rows_t *x, const norm_t *norm, const linear_t *to_q,
                            const linear_t *proj, const rows_t *values, const float *state, const float *keys,
                            const around_t *around, const rows_t *out) {
    const int64_t channels = s->heads * s->dim, pairs = (around->height + 1) / 2, width = around->width;
    const linear_t *layers[] = {to_q, proj};
    const int64_t weights = packed_size(layers, 2), kernels = depthwise_packed_size(channels, around->side);
    const int64_t own = 2 * width * channels + 4 * BLOCK * channels + BLOCK * s->heads;
    float *memory = take(weights + kernels + s->threads * own);
    if (!memory) return 1;
    float *packed = memory + weights;
    depthwise_pack(around->weight, around->bias, packed, channels, around->kernels, around->side, 0);
#pragma omp parallel num_threads(s->threads)
    {
        matrix_t matrices[2];
        pack_layers(layers, 2, memory, matrices);
        float *convolved = packed + kernels + omp_get_thread_num() * own, *y = convolved + 2 * width * channels;
        float *q = y + BLOCK * channels, *scratch = q + BLOCK * channels;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s->batch * pairs; task++) {
            const int64_t image = task / pairs, row = task % pairs * 2, rows = around->height - row < 2 ? 1 : 2;
            depthwise_rows((const float *)values->data + image * values->batch, values->token, packed, convolved,
                           around->height, width, channels, row, rows, around->side);
            for (int64_t begin = 0; begin < rows * width; begin += BLOCK) {
                const int64_t token = row * width + begin, left = rows * width - begin, count = left < BLOCK ? left : BLOCK;
                const float *from = (const float *)x->data + image * x->batch + token * x->token;
                float *to = (float *)out->data + image * out->batch + token * out->token;
                const rows_t queries = {q, 0, channels, FLOAT32}, answers = {convolved + begin * channels, 0, channels, FLOAT32};
                normalise_block(from, x->token, norm, count, BLOCK, channels, y);
                tokens_times(y, channels, matrices[0], BLOCK, q, channels);
                answer_block(s, &queries, 0, state + image * channels * s->dim, keys + image * channels, &answers, 0, 1,
                             count, scratch);
                // Rows beyond the last of a map are not there to be read.
                memcpy(y, convolved + begin * channels, (size_t)(count * channels) * sizeof *y);
                tokens_times(y, channels, matrices[1], BLOCK, q, channels);
                for (int64_t i = 0; i < count; i++)
                    for (int64_t c = 0; c < channels; c += LANES) {
                        vf sum = load(q + i * channels + c);
                        store(to + i * out->token + c, around->residual ? sum + load(from + i * x->token + c) : sum);
                    }
            }
        }
    }
    free(memory);
    return 0;
}
