// Gradients of focused linear attention. What the forward pass did not keep, all but q, k, v and the state, is made again
// in the cache.

#include <omp.h>

#include "focus.h"

// From g, the gradient of phi times |y| / |p|, of a block: the gradient of the rows, and what it adds to that of
// 1 / softplus(scale) times its value.
ALWAYS_INLINE void unfocus(const float *t, const float *p, const float *g, const float *length, const float *powered,
                           const uint8_t *mask, const float *inv_scale, int64_t count, int64_t channels, const int power,
                           const rows_t *out, int64_t at, float *scale_sums) {
    for (int64_t i = 0; i < count; i++, at += out->token) {
        const int64_t begin = i * channels;
        if (mask && mask[i]) {
            for (int64_t c = 0; c < channels; c += LANES) store_any(out->data, at + c, out->type, (vf){});
            continue;
        }
        vf dot = {};
        for (int64_t c = 0; c < channels; c += LANES) dot += load(g + begin + c) * load(p + begin + c);
        const float along = sum(dot), across = along / (powered[i] * powered[i]), inverse = 1 / length[i];
        for (int64_t c = 0; c < channels; c += LANES) {
            vf direction = load(t + begin + c), slope = splat(power), inv = load(inv_scale + c);
            for (int n = 1; n < power; n++) slope *= direction;
            vf gradient = slope * (load(g + begin + c) - across * load(p + begin + c)) + along * direction;
            store(scale_sums + c, load(scale_sums + c) + gradient * direction);
            // A channel that the ReLU closed has the value that focus() gave it, up to rounding. NaN is not closed.
            vi closed = direction <= EPS * 1.000001f * inv * inverse;
            store_any(out->data, at + c, out->type, pick(closed, (vf){}, gradient * inverse * inv));
        }
    }
}

ALWAYS_INLINE void answer_backward(const shape_t *s, const rows_t *q, const rows_t *grad, const float *state,
                                   const float *transposed, const float *keys, const rows_t *out, int64_t image,
                                   int64_t first, int64_t last, float *state_sums, float *keys_sums, float *scale_sums,
                                   float *scratch, const int power) {
    const int64_t channels = s->heads * s->dim, dim = s->dim, size = BLOCK * channels;
    float *t = scratch, *p = t + size, *products = p + size, *w = products + size, *g = w + size;
    float length[BLOCK], powered[BLOCK];
    for (int64_t token = first; token < last; token += BLOCK) {
        const int64_t count = last - token < BLOCK ? last - token : BLOCK;
        int64_t stride;
        const float *given = as_float(grad, image, token, count, channels, NULL, 1, g, &stride);
        focus(q, image * q->batch + token * q->token, count, NULL, NULL, s->inv_scale, channels, power, t, p, length,
              powered);
        fill(p + count * channels, 0, (BLOCK - count) * channels);
        fill(w + count * channels, 0, (BLOCK - count) * channels);
        for (int64_t h = 0; h < s->heads; h++) {
            const int64_t begin = h * dim;
            tokens_times(p + begin, channels, square(state + begin * dim, dim), BLOCK, products + begin, channels);
            for (int64_t i = 0; i < count; i++) {
                vf dot = {}, pull = {};
                for (int64_t d = begin; d < begin + dim; d += LANES) {
                    dot += load(p + i * channels + d) * load(keys + d);
                    pull += load(products + i * channels + d) * load(given + i * stride + d);
                }
                const float inverse = 1 / (sum(dot) + EPS * powered[i] / length[i]), back = sum(pull) * inverse * inverse;
                for (int64_t d = begin; d < begin + dim; d += LANES) {
                    store(w + i * channels + d, load(given + i * stride + d) * inverse);
                    store(products + i * channels + d, load(keys + d) * back);
                    store(keys_sums + d, load(keys_sums + d) - load(p + i * channels + d) * back);
                }
            }
            add_outer(p + begin, channels, w + begin, channels, dim, count, state_sums + begin * dim);
        }
        for (int64_t h = 0; h < s->heads; h++)
            tokens_times(w + h * dim, channels, square(transposed + h * dim * dim, dim), BLOCK, g + h * dim, channels);
        for (int64_t c = 0; c < count * channels; c += LANES) store(g + c, load(g + c) - load(products + c));
        unfocus(t, p, g, length, powered, NULL, s->inv_scale, count, channels, power, out,
                image * out->batch + token * out->token, scale_sums);
    }
}

// From the gradient of attention_queries' output: that of q, those of the mean state and mean keys (added), and
// scale_sums [C] += (gradient of y) y.
int attention_queries_backward(const shape_t *s, const rows_t *q, const rows_t *grad, const float *state,
                               const float *transposed, const float *keys, const rows_t *out, float *state_grad,
                               float *keys_grad, float *scale_sums) {
    const int64_t channels = s->heads * s->dim, size = channels * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t own = size + 2 * channels, scratch = 5 * BLOCK * channels;
    float *memory = take(tasks * own + s->threads * scratch);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts;
        range_of(s, task % parts, parts, &first, &last);
        float *sums = memory + task * own, *keys_sums = sums + size, *scales = keys_sums + channels;
        const float *own_state = state + image * size, *own_transposed = transposed + image * size;
        fill(sums, 0, size + 2 * channels);
        if (s->power == 3)
            answer_backward(s, q, grad, own_state, own_transposed, keys + image * channels, out, image, first, last, sums,
                            keys_sums, scales, memory + tasks * own + omp_get_thread_num() * scratch, 3);
        else
            answer_backward(s, q, grad, own_state, own_transposed, keys + image * channels, out, image, first, last, sums,
                            keys_sums, scales, memory + tasks * own + omp_get_thread_num() * scratch, s->power);
    }
    for (int64_t task = 0; task < tasks; task++) {
        const float *sums = memory + task * own;
        float *to = state_grad + task / parts * size, *to_keys = keys_grad + task / parts * channels;
        for (int64_t i = 0; i < size; i++) to[i] += sums[i];
        for (int64_t i = 0; i < channels; i++) to_keys[i] += sums[size + i];
        for (int64_t i = 0; i < channels; i++) scale_sums[i] += sums[size + channels + i];
    }
    free(memory);
    return 0;
}

ALWAYS_INLINE void add_keys_backward(const shape_t *s, const rows_t *k, const rows_t *v, const encoding_t *encoding,
                                     const uint8_t *mask, const float *state_grad, const float *transposed,
                                     const float *keys_grad, const rows_t *k_out, const rows_t *v_out, int64_t image,
                                     int64_t first, int64_t last, float *scale_sums, float *scratch, const int power) {
    const int64_t channels = s->heads * s->dim, dim = s->dim, size = BLOCK * channels;
    float *t = scratch, *p = t + size, *values = p + size, *g = values + size;
    float length[BLOCK], powered[BLOCK];
    position_t positions[BLOCK];
    for (int64_t token = first; token < last; token += BLOCK) {
        const int64_t count = last - token < BLOCK ? last - token : BLOCK;
        const uint8_t *ignored = mask ? mask + image * s->tokens + token : NULL;
        int64_t stride;
        const float *x = as_float(v, image, token, count, channels, ignored, 1, values, &stride);
        place(encoding, image, token, count, channels, positions);
        focus(k, image * k->batch + token * k->token, count, positions, ignored, s->inv_scale, channels, power, t, p,
              length, powered);
        fill(p + count * channels, 0, (BLOCK - count) * channels);
        for (int64_t h = 0; h < s->heads; h++)
            tokens_times(x + h * dim, stride, square(transposed + h * dim * dim, dim), BLOCK, g + h * dim, channels);
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < channels; c += LANES)
                store(g + i * channels + c, (load(g + i * channels + c) + load(keys_grad + c)) * (length[i] / powered[i]));
        unfocus(t, p, g, length, powered, ignored, s->inv_scale, count, channels, power, k_out,
                image * k_out->batch + token * k_out->token, scale_sums);
        for (int64_t h = 0; h < s->heads; h++)
            tokens_times(p + h * dim, channels, square(state_grad + h * dim * dim, dim), BLOCK, g + h * dim, channels);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = image * v_out->batch + (token + i) * v_out->token;
            const float factor = ignored && ignored[i] ? 0 : length[i] / powered[i];
            for (int64_t c = 0; c < channels; c += LANES)
                store_any(v_out->data, at + c, v_out->type, load(g + i * channels + c) * factor);
        }
    }
}

// From the gradients of attention_keys' sums [B, G, D, D] (and transposed) and [B, C]: those of k and v, and
// scale_sums [C] as above. That of the encoding is k's.
int attention_keys_backward(const shape_t *s, const rows_t *k, const rows_t *v, const encoding_t *encoding,
                            const uint8_t *mask, const float *state_grad, const float *transposed,
                            const float *keys_grad, const rows_t *k_out, const rows_t *v_out, float *scale_sums) {
    const int64_t channels = s->heads * s->dim, size = channels * s->dim, parts = parts_of(s), tasks = s->batch * parts;
    const int64_t own = channels, scratch = 4 * BLOCK * channels;
    float *memory = take(tasks * own + s->threads * scratch);
    if (!memory) return 1;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first, last, image = task / parts;
        range_of(s, task % parts, parts, &first, &last);
        float *sums = memory + task * own;
        const float *own_grad = state_grad + image * size, *own_transposed = transposed + image * size;
        fill(sums, 0, channels);
        if (s->power == 3)
            add_keys_backward(s, k, v, encoding, mask, own_grad, own_transposed, keys_grad + image * channels, k_out,
                              v_out, image, first, last, sums, memory + tasks * own + omp_get_thread_num() * scratch, 3);
        else
            add_keys_backward(s, k, v, encoding, mask, own_grad, own_transposed, keys_grad + image * channels, k_out,
                              v_out, image, first, last, sums, memory + tasks * own + omp_get_thread_num() * scratch, s->power);
    }
    for (int64_t task = 0; task < tasks; task++)
        for (int64_t i = 0; i < channels; i++) scale_sums[i] += memory[task * own + i];
    free(memory);
    return 0;
}
