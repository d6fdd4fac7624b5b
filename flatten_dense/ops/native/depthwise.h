/* Depth-wise convolution of single rows of a map of float32, for kernels that go on with them in the cache. */
#pragma once

#include <stddef.h>

/* Floats that packed kernels of side k and their biases take. */
ptrdiff_t depthwise_packed_size(ptrdiff_t channels, int k);

/* Pack `weight` [kernels, k, k] and `bias` [kernels] or NULL; channel c uses kernel c % kernels, turned if `flip`. */
void depthwise_pack(const float *weight, const float *bias, float *packed, ptrdiff_t channels, ptrdiff_t kernels, int k,
                    int flip);

/* Output rows `row` and, if row_count is 2, the next one into `out` [row_count * width, channels]. `map` is
 * [height * width, channels] with its tokens `token_stride` floats apart. */
void depthwise_rows(const float *map, ptrdiff_t token_stride, const float *packed, float *out, ptrdiff_t height,
                    ptrdiff_t width, ptrdiff_t channels, ptrdiff_t row, int row_count, int k);
