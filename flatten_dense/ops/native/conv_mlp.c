// PVTv2's MLP with its LayerNorm and its sum: of the hidden map, only a strip of a few rows exists at a time.

#include <omp.h>

#include "block.h"
#include "depthwise.h"
#include "gelu.h"

#define SIDE 3
#define ROWS 8            // of the hidden map that are kept: two above and below the two being convolved, and some to come
#define FEWEST_COLUMNS 32 // a multiple of every TILE
#define CACHE (1 << 18)   // floats that should stay in the second-level cache

typedef struct {
    const norm_t *norm;
    const float *kernels; // packed
    int64_t height, width, channels, hidden;
    int64_t columns; // of a strip, those shared with its neighbours included; a multiple of every TILE
    int64_t relu;    // after fc1
} plan_t;

static int64_t columns_of_strip(int64_t width, int64_t hidden) {
    int64_t columns = CACHE / ((ROWS - 2) * hidden) / FEWEST_COLUMNS * FEWEST_COLUMNS;
    const int64_t enough = (width + FEWEST_COLUMNS - 1) / FEWEST_COLUMNS * FEWEST_COLUMNS;
    columns = columns < FEWEST_COLUMNS ? FEWEST_COLUMNS : columns;
    return columns < enough ? columns : enough;
}

// Rows of the hidden map, one or two, from a column on; zeros beyond the map, which the convolution reads.
static void expand(const plan_t *p, const float *x, matrix_t fc1, int64_t row, int64_t rows, int64_t column, float *y,
                   float *h) {
    const int64_t left = p->width - column, count = left < p->columns ? left : p->columns, beyond = p->columns - count;
    for (int64_t i = 0; i < rows; i++)
        normalise_block(x + ((row + i) * p->width + column) * p->channels, p->channels, p->norm, count, p->columns,
                        p->channels, y + i * p->columns * p->channels);
    tokens_times(y, p->channels, fc1, rows * p->columns, h, p->hidden);
    if (p->relu)
        for (int64_t c = 0; c < rows * p->columns * p->hidden; c += LANES)
            store(h + c, pick(load(h + c) < 0, (vf){}, load(h + c)));
    for (int64_t i = 0; i < rows; i++)
        memset(h + (i * p->columns + count) * p->hidden, 0, (size_t)(beyond * p->hidden) * sizeof *h);
}

// Rows [first, last) of one image, columns [begin, end), of which the strip's first may be a neighbour's.
static void strip(const plan_t *p, const float *x, const matrix_t *matrices, int64_t first, int64_t last, int64_t begin,
                  int64_t end, float *out, float *memory) {
    const int64_t row_size = p->columns * p->hidden, column = begin ? begin - 1 : 0, channels = p->channels;
    float *h = memory, *convolved = h + ROWS * row_size, *y = convolved + 2 * row_size, *z = y + 2 * p->columns * channels;
    int64_t top = first ? first - 1 : 0, next = top; // rows [top, next) are in h
    for (int64_t row = first; row < last; row += 2) {
        const int64_t rows = last - row < 2 ? 1 : 2, above = row ? row - 1 : 0;
        const int64_t below = row + rows < p->height ? row + rows + 1 : p->height;
        while (next < below) {
            const int64_t count = below - next < 2 ? 1 : 2;
            if (next + count - top > ROWS) {
                memmove(h, h + (above - top) * row_size, (size_t)((next - above) * row_size) * sizeof *h);
                top = above;
            }
            expand(p, x, matrices[0], next, count, column, y, h + (next - top) * row_size);
            next += count;
        }
        depthwise_rows(h, p->hidden, p->kernels, convolved, next - top, p->columns, p->hidden, row - top, (int)rows, SIDE);
        for (int64_t c = 0; c < rows * row_size; c += LANES) store(convolved + c, gelu(load(convolved + c)));
        tokens_times(convolved, p->hidden, matrices[1], rows * p->columns, z, channels);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t at = ((row + i) * p->width + begin) * channels;
            const float *from = z + (i * p->columns + begin - column) * channels;
            for (int64_t c = 0; c < (end - begin) * channels; c += LANES)
                store(out + at + c, load(x + at + c) + load(from + c));
        }
    }
}

// out = x + fc2(gelu(convolution(fc1(norm(x))))) for images [height * width, C], dense; the convolution is [hidden, 3, 3].
// Returns 0, or 1 without memory.
int conv_mlp_add(const float *x, int64_t images, int64_t height, int64_t width, const norm_t *norm, const linear_t *fc1,
                 const float *weight, const float *bias, const linear_t *fc2, int64_t relu, float *out, int64_t threads) {
    const int64_t channels = fc1->depth, hidden = fc1->width, columns = columns_of_strip(width, hidden);
    // The first strip shares a column with its only neighbour, the others two.
    const int64_t strips = width <= columns ? 1 : 1 + (width - columns + columns - 3) / (columns - 2);
    const int64_t wanted = 2 * threads / images + 1, most = (height + ROWS - 1) / ROWS, bands = wanted < most ? wanted : most;
    const linear_t *layers[] = {fc1, fc2};
    const int64_t weights = packed_size(layers, 2), kernels = depthwise_packed_size(hidden, SIDE);
    const int64_t own = columns * ((ROWS + 2) * hidden + 4 * channels);
    float *memory = take(weights + kernels + threads * own);
    if (!memory) return 1;
    const plan_t plan = {norm, memory + weights, height, width, channels, hidden, columns, relu};
    depthwise_pack(weight, bias, memory + weights, hidden, hidden, SIDE, 0);
#pragma omp parallel num_threads((int)threads)
    {
        matrix_t matrices[2];
        pack_layers(layers, 2, memory, matrices);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * bands * strips; task++) {
            const int64_t image = task / (bands * strips), band = task / strips % bands, s = task % strips;
            const int64_t begin = s ? columns - 1 + (s - 1) * (columns - 2) : 0;
            const int64_t end = s == strips - 1 ? width : columns - 1 + s * (columns - 2);
            const int64_t skip = image * height * width * channels;
            strip(&plan, x + skip, matrices, band * height / bands, (band + 1) * height / bands, begin, end, out + skip,
                  memory + weights + kernels + omp_get_thread_num() * own);
        }
    }
    free(memory);
    return 0;
}
