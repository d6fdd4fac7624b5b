// What a transformer block does to each token by itself: normalise, project.
#pragma once

#include <math.h>
#include <stdlib.h>

#include "products.h"

// LayerNorm over C channels; weight == NULL: none.
typedef struct {
    const float *weight, *bias;
    float eps;
} norm_t;

// A linear layer: weight [width, depth], bias [width].
typedef struct {
    const float *weight, *bias;
    int64_t depth, width;
} linear_t;

static inline void normalise(const float *x, const norm_t *norm, int64_t channels, float *y) {
    if (!norm->weight) {
        memcpy(y, x, (size_t)channels * sizeof *y);
        return;
    }
    vf total = {}, squares = {};
    for (int64_t c = 0; c < channels; c += LANES) total += load(x + c);
    const float mean = sum(total) / (float)channels;
    for (int64_t c = 0; c < channels; c += LANES) {
        vf apart = load(x + c) - mean;
        squares += apart * apart;
    }
    const float factor = 1 / sqrtf(sum(squares) / (float)channels + norm->eps);
    for (int64_t c = 0; c < channels; c += LANES)
        store(y + c, (load(x + c) - mean) * factor * load(norm->weight + c) + load(norm->bias + c));
}

// `count` normalised rows of `x` and zeros up to `block` rows.
static inline void normalise_block(const float *x, int64_t stride, const norm_t *norm, int64_t count, int64_t block,
                                   int64_t channels, float *y) {
    for (int64_t i = 0; i < count; i++) normalise(x + i * stride, norm, channels, y + i * channels);
    memset(y + count * channels, 0, (size_t)((block - count) * channels) * sizeof *y);
}

// Floats that the packed matrices of some layers take.
static inline int64_t packed_size(const linear_t *const *layers, int count) {
    int64_t size = 0;
    for (int i = 0; i < count; i++) size += layers[i]->depth * layers[i]->width;
    return size;
}

// Pack the weights of some layers one after another into `memory`; called by all threads of a team together.
static inline void pack_layers(const linear_t *const *layers, int count, float *memory, matrix_t *matrices) {
    for (int i = 0; i < count; memory += layers[i]->depth * layers[i]->width, i++) {
        const linear_t *l = layers[i];
        matrices[i] = (matrix_t){memory, l->bias, l->depth, l->width, 1};
#pragma omp for schedule(static) nowait
        for (int64_t panel = 0; panel < (l->width + 4 * LANES - 1) / (4 * LANES); panel++)
            for (int64_t c = panel * 4 * LANES; c < l->width && c < (panel + 1) * 4 * LANES; c += columns_at(c, l->width) * LANES)
                pack_panel(l->weight, l->depth, l->width, c, memory);
    }
#pragma omp barrier
}
