// What lies between the matrix products of an MLP in bfloat16, over dense rows that are in the cache.

#include "block.h"
#include "gelu.h"

enum { NOTHING = 0, RELU = 1, GELU = 2 };

// y = norm(x), bfloat16; x is of either type.
int piece_normalise(const void *x, int64_t type, int64_t rows, int64_t channels, const norm_t *norm, uint16_t *y,
                    int64_t threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        float row[channels];
        for (int64_t c = 0; c < channels; c += LANES) store(row + c, load_any(x, i * channels + c, (int)type));
        normalise(row, norm, channels, row);
        for (int64_t c = 0; c < channels; c += LANES) store_bf16(y + i * channels + c, load(row + c));
    }
    return 0;
}

// h = activation(h + bias), in place; bias == NULL: none.
int piece_activate(uint16_t *h, int64_t rows, int64_t width, const float *bias, int64_t activation, int64_t threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < width; c += LANES) {
            vf x = load_bf16(h + i * width + c);
            if (bias) x += load(bias + c);
            store_bf16(h + i * width + c, activation == GELU ? gelu(x) : activation == RELU ? pick(x < 0, (vf){}, x) : x);
        }
    return 0;
}

// x += y + bias; x is of either type.
int piece_add(void *x, int64_t type, int64_t rows, int64_t channels, const uint16_t *y, const float *bias,
              int64_t threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            const int64_t at = i * channels + c;
            store_any(x, at, (int)type, load_any(x, at, (int)type) + (load_bf16(y + at) + load(bias + c)));
        }
    return 0;
}
