/* Depth-wise convolution of token maps [B, H*W, C] (channels innermost), stride 1, zeros around the map.
 *
 * A tile of ROWS x COLS outputs by one vector of channels stays in registers; each input of its window is loaded once
 * and used for every output that it touches.
 * Numbers are float32 or bfloat16 in memory and float32 in registers.
 */

#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "depthwise.h"

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 2  /* 2 x 8 accumulators among 32 registers */
#define GROUP 3 /* 3 x 5 accumulators and 8 gradients */
#elif defined(__AVX__)
#define LANES 8
#define ROWS 1
#define GROUP 1
#else
#define LANES 4
#define ROWS 2
#define GROUP 3
#endif
#define COLS 8
#define BAND 4   /* rows whose gradients of the kernel are summed in registers */
#define MAX_K 5
#define INLINE static inline __attribute__((always_inline)) /* so that k and bf16 are constants inside */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef struct {
    char *data;
    ptrdiff_t stride; /* between tokens, in bytes */
} tokens;

typedef struct {
    ptrdiff_t height, width, channels;
} shape;

INLINE ptrdiff_t size_of(int bf16) { return bf16 ? 2 : 4; }

INLINE floats load(const char *at, int bf16) {
    if (bf16) return (floats)(__builtin_convertvector(*(const halves *)at, words) << 16);
    return *(const floats *)at;
}

INLINE void store(char *at, floats value, int bf16) {
    if (bf16) {
        words bits = (words)value, is_nan = (words)(value != value);
        words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to the nearest, ties to even */
        *(halves *)at = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0), halves);
    } else {
        *(floats *)at = value;
    }
}

INLINE floats load_float(const float *at) { return *(const floats *)at; }

static ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* The part of a map that a tile reads: rows, NULL for those outside, each from a column on that may lie outside. Of its
 * columns, only those from `left` to `right` - 1 exist. */
typedef struct {
    const char *rows[MAX_K + ROWS - 1];
    ptrdiff_t stride;
    int left, right;
} window;

INLINE window window_of(tokens map, shape s, ptrdiff_t row, ptrdiff_t column, int row_count, int count) {
    window w = {.stride = map.stride, .left = larger(0, -column), .right = smaller(count, s.width - column)};
    UNROLL for (int i = 0; i < row_count; i++)
        w.rows[i] = row + i < 0 || row + i >= s.height ? NULL : map.data + ((row + i) * s.width + column) * map.stride;
    return w;
}

/* ROWS x COLS outputs at `out`, of which row_count x count are wanted. */
INLINE void convolve_tile(window in, const float *weight, floats bias, char *out, ptrdiff_t out_row,
                          ptrdiff_t out_stride, int row_count, int count, int k, int bf16) {
    floats sum[ROWS][COLS];
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < COLS; c++) sum[r][c] = bias;
    UNROLL for (int i = 0; i < k + ROWS - 1; i++) {
        if (!in.rows[i]) continue;
        UNROLL for (int j = 0; j < COLS + k - 1; j++) {
            if (j < in.left || j >= in.right) continue;
            const floats x = load(in.rows[i] + j * in.stride, bf16);
            UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int t = 0; t < k; t++)
                if (i - r >= 0 && i - r < k && j - t >= 0 && j - t < COLS)
                    sum[r][j - t] += x * load_float(weight + ((i - r) * k + t) * LANES);
        }
    }
    if (row_count == ROWS && count == COLS) {
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < COLS; c++)
            store(out + r * out_row + c * out_stride, sum[r][c], bf16);
    } else {
        floats spare[ROWS][COLS];
        memcpy(spare, sum, sizeof sum);
        for (int r = 0; r < row_count; r++) for (int c = 0; c < count; c++)
            store(out + r * out_row + c * out_stride, spare[r][c], bf16);
    }
}

/* Output rows [row, row + row_count) of one map; `out` starts at the first of them. All channels of a tile come before
 * the next: tokens that are a power of two apart share few places in the L1 cache. */
INLINE void convolve_rows(tokens map, const float *packed, tokens out, shape s, ptrdiff_t row, int row_count, int k,
                          int bf16) {
    for (ptrdiff_t column = 0; column < s.width; column += COLS)
        for (ptrdiff_t block = 0; block < s.channels / LANES; block++) {
            const ptrdiff_t offset = block * LANES * size_of(bf16);
            const tokens part = {map.data + offset, map.stride};
            convolve_tile(window_of(part, s, row - k / 2, column - k / 2, k + ROWS - 1, COLS + k - 1),
                          packed + block * k * k * LANES,
                          load_float(packed + k * k * s.channels + block * LANES),
                          out.data + offset + column * out.stride, s.width * out.stride, out.stride, row_count,
                          smaller(COLS, s.width - column), k, bf16);
        }
}

static void convolve_rows_of(tokens map, const float *packed, tokens out, shape s, ptrdiff_t row, int row_count, int k,
                             int bf16) {
    if (k == 5 && bf16) convolve_rows(map, packed, out, s, row, row_count, 5, 1);
    else if (k == 5) convolve_rows(map, packed, out, s, row, row_count, 5, 0);
    else if (bf16) convolve_rows(map, packed, out, s, row, row_count, 3, 1);
    else convolve_rows(map, packed, out, s, row, row_count, 3, 0);
}

ptrdiff_t depthwise_packed_size(ptrdiff_t channels, int k) { return (k * k + 1) * channels; }

/* Kernels of each block of channels as [block][k * k][LANES], then the biases. */
void depthwise_pack(const float *weight, const float *bias, float *packed, ptrdiff_t channels, ptrdiff_t kernels, int k,
                    int flip) {
    for (ptrdiff_t c = 0; c < channels; c++) {
        for (int i = 0; i < k * k; i++)
            packed[(c / LANES * k * k + i) * LANES + c % LANES] =
                weight[c % kernels * k * k + (flip ? k * k - 1 - i : i)];
        packed[k * k * channels + c] = bias ? bias[c % kernels] : 0;
    }
}

void depthwise_rows(const float *map, ptrdiff_t token_stride, const float *packed, float *out, ptrdiff_t height,
                    ptrdiff_t width, ptrdiff_t channels, ptrdiff_t row, int row_count, int k) {
    const shape s = {height, width, channels};
    for (int done = 0; done < row_count; done += ROWS)
        convolve_rows_of((tokens){(char *)map, token_stride * 4}, packed,
                         (tokens){(char *)(out + done * width * channels), channels * 4}, s, row + done,
                         smaller(ROWS, row_count - done), k, 0);
}

/* Output rows [first, last) of each map into `out`, which holds those rows alone. `weight` is [kernels, k, k], `bias`
 * [kernels] or NULL; with `flip` the kernels are turned, which makes this the gradient of the input. Strides are in
 * bytes; k is 3 or 5, channels a multiple of 16. Returns 0, or 1 where memory is short. */
int depthwise_forward(const void *x, ptrdiff_t x_batch, ptrdiff_t x_token, const float *weight, const float *bias,
                      void *out, ptrdiff_t out_batch, ptrdiff_t out_token, ptrdiff_t batch, ptrdiff_t height,
                      ptrdiff_t width, ptrdiff_t channels, ptrdiff_t kernels, ptrdiff_t first, ptrdiff_t last, int k,
                      int flip, int bf16, int threads) {
    const shape s = {height, width, channels};
    float *packed = malloc(depthwise_packed_size(channels, k) * sizeof *packed);
    if (!packed) return 1;
    depthwise_pack(weight, bias, packed, channels, kernels, k, flip);
    const ptrdiff_t pairs = (last - first + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < batch * pairs; i++) {
        const ptrdiff_t b = i / pairs, row = i % pairs * ROWS;
        const tokens map = {(char *)x + b * x_batch, x_token};
        const tokens rows = {(char *)out + b * out_batch + row * width * out_token, out_token};
        convolve_rows_of(map, packed, rows, s, first + row, smaller(ROWS, last - first - row), k, bf16);
    }
    free(packed);
    return 0;
}

/* Add rows [row, row + row_count) to sums [block][k * k cells of the kernel, then the bias][LANES]; GROUP rows of the
 * kernel at a time. */
INLINE void weight_gradient_rows(tokens map, tokens grad, float *sums, shape s, ptrdiff_t row, int row_count, int k,
                                 int bf16) {
    for (ptrdiff_t column = 0; column < s.width; column += COLS)
        for (ptrdiff_t block = 0; block < s.channels / LANES; block++) {
            const ptrdiff_t offset = block * LANES * size_of(bf16);
            const tokens map_part = {map.data + offset, map.stride}, grad_part = {grad.data + offset, grad.stride};
            floats *total = (floats *)(sums + block * (k * k + 1) * LANES);
            UNROLL for (int group = 0; group < k; group += GROUP) {
                const int group_size = k - group < GROUP ? k - group : GROUP;
                floats sum[GROUP][MAX_K] = {0}, bias = {0};
                for (ptrdiff_t r = row; r < row + row_count; r++) {
                    const ptrdiff_t first = r - k / 2 + group;
                    const window in = window_of(map_part, s, first, column - k / 2, group_size, COLS + k - 1);
                    const window out = window_of(grad_part, s, r, column, 1, COLS);
                    floats g[COLS];
                    UNROLL for (int c = 0; c < COLS; c++) {
                        g[c] = c < out.right ? load(out.rows[0] + c * out.stride, bf16) : (floats){0};
                        bias += g[c];
                    }
                    UNROLL for (int i = 0; i < group_size; i++) {
                        if (!in.rows[i]) continue;
                        UNROLL for (int j = 0; j < COLS + k - 1; j++) {
                            if (j < in.left || j >= in.right) continue;
                            const floats x = load(in.rows[i] + j * in.stride, bf16);
                            UNROLL for (int t = 0; t < k; t++)
                                if (j - t >= 0 && j - t < COLS) sum[i][t] += x * g[j - t];
                        }
                    }
                }
                UNROLL for (int i = 0; i < group_size; i++) UNROLL for (int t = 0; t < k; t++)
                    total[(group + i) * k + t] += sum[i][t];
                if (group == 0) total[k * k] += bias;
            }
        }
}

static void weight_gradient_rows_of(tokens map, tokens grad, float *sums, shape s, ptrdiff_t row, int row_count, int k,
                                    int bf16) {
    if (k == 5 && bf16) weight_gradient_rows(map, grad, sums, s, row, row_count, 5, 1);
    else if (k == 5) weight_gradient_rows(map, grad, sums, s, row, row_count, 5, 0);
    else if (bf16) weight_gradient_rows(map, grad, sums, s, row, row_count, 3, 1);
    else weight_gradient_rows(map, grad, sums, s, row, row_count, 3, 0);
}

/* Gradients of weight [kernels, k, k] and bias [kernels], both float32; arguments as in the forward direction. */
int depthwise_weight_gradient(const void *grad, ptrdiff_t grad_batch, ptrdiff_t grad_token, const void *x,
                              ptrdiff_t x_batch, ptrdiff_t x_token, float *weight, float *bias, ptrdiff_t batch,
                              ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels, ptrdiff_t kernels, int k, int bf16,
                              int threads) {
    const shape s = {height, width, channels};
    const int cells = k * k + 1;
    const ptrdiff_t bands = (height + BAND - 1) / BAND;
    float *sums = calloc(threads * channels * cells, sizeof *sums); /* of each thread */
    if (!sums) return 1;
#pragma omp parallel num_threads(threads)
    {
        float *own = sums + omp_get_thread_num() * channels * cells;
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < batch * bands; i++) {
            const ptrdiff_t b = i / bands, row = i % bands * BAND;
            const tokens map = {(char *)x + b * x_batch, x_token}, grads = {(char *)grad + b * grad_batch, grad_token};
            weight_gradient_rows_of(map, grads, own, s, row, smaller(BAND, height - row), k, bf16);
        }
    }
    memset(weight, 0, kernels * k * k * sizeof *weight);
    memset(bias, 0, kernels * sizeof *bias);
    for (int thread = 0; thread < threads; thread++)
        for (ptrdiff_t c = 0; c < channels; c++) {
            const float *own = sums + (thread * channels + c / LANES * LANES) * cells + c % LANES;
            for (int i = 0; i < k * k; i++) weight[c % kernels * k * k + i] += own[i * LANES];
            bias[c % kernels] += own[k * k * LANES];
        }
    free(sums);
    return 0;
}
