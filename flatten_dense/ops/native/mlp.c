// The MLP of a transformer block with its LayerNorm and its sum: the hidden channels of a block of tokens never leave the
// cache.

#include <omp.h>

#include "block.h"

#define TOKENS 64 // a multiple of every TILE

// x (1 + erf(x / sqrt 2)) / 2. The quotient was fitted to erf(x / sqrt 2) on [0, 5.6]: it errs by 2e-8, and by no more
// than float32 itself in the product.
static inline vf gelu(vf x) {
    const vf edge = splat(5.6f);
    vf z = pick(x > edge, edge, pick(x < -edge, -edge, x)), s = z * z;
    vf over = s * 4.42925629e-08f + 1.27125233e-05f, under = s * 1.18022058e-06f + 7.50938979e-05f;
    over = over * s + 0.000347654931f, under = under * s + 0.00191284672f;
    over = over * s + 0.00941423222f, under = under * s + 0.0289388185f;
    over = over * s + 0.0687478718f, under = under * s + 0.252828395f;
    over = over * s + 0.797884443f, under = under * s + 1.0f;
    vf half = x * 0.5f;
    return half + half * (z * over / under);
}

// out[t] = x[t] + fc2(gelu(fc1(norm(x[t])))) for `tokens` rows [C], so far apart; `out` may be `x`. Returns 0, or 1
// without memory.
int mlp_add(const float *x, int64_t stride, int64_t tokens, const norm_t *norm, const linear_t *fc1, const linear_t *fc2,
            float *out, int64_t out_stride, int64_t threads) {
    const linear_t *layers[] = {fc1, fc2};
    const int64_t channels = fc1->depth, hidden = fc1->width, own = TOKENS * (2 * channels + hidden);
    const int64_t weights = packed_size(layers, 2), blocks = (tokens + TOKENS - 1) / TOKENS;
    float *memory = take(weights + threads * own);
    if (!memory) return 1;
#pragma omp parallel num_threads((int)threads)
    {
        matrix_t matrices[2];
        pack_layers(layers, 2, memory, matrices);
        float *y = memory + weights + omp_get_thread_num() * own, *h = y + TOKENS * channels, *z = h + TOKENS * hidden;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t first = block * TOKENS, count = tokens - first < TOKENS ? tokens - first : TOKENS;
            normalise_block(x + first * stride, stride, norm, count, TOKENS, channels, y);
            tokens_times(y, channels, matrices[0], TOKENS, h, hidden);
            for (int64_t c = 0; c < TOKENS * hidden; c += LANES) store(h + c, gelu(load(h + c)));
            tokens_times(h, hidden, matrices[1], TOKENS, z, channels);
            for (int64_t i = first; i < first + count; i++)
                for (int64_t c = 0; c < channels; c += LANES)
                    store(out + i * out_stride + c, load(x + i * stride + c) + load(z + (i - first) * channels + c));
        }
    }
    free(memory);
    return 0;
}
