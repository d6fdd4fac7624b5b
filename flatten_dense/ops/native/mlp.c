// The MLP of a transformer block with its LayerNorm and its sum: the hidden channels of a block of tokens never leave the
// cache.

#include <omp.h>

#include "block.h"
#include "gelu.h"

#define TOKENS 64 // a multiple of every TILE

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
