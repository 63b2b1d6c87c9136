// Bytes: the matrix once, the partial sums of 1/64 of its rows or fewer twice. FLOPs: one an element.
#include "model/ops/cuda/column_sums.hpp"
#include "model/ops/cuda/elementwise.cuh"

namespace muster::cuda {
namespace {

constexpr int row_lanes = 8, block_lanes = 16;

// A block sums a block of rows in a strip of 32 W columns: a warp reads whole lines, each of the eight every eighth
// row, and their sums are added in order.
template <int W, class T>
__global__ void __launch_bounds__(warp_size* row_lanes)
    sum_rows_kernel(const T* matrix, std::int64_t rows, std::int64_t columns, std::int64_t rows_of_block,
                    float* partial) {
  __shared__ float sums[row_lanes][warp_size * W];
  const int lane = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const std::int64_t strip = std::int64_t{blockIdx.x} * warp_size * W, column = strip + lane * W;
  const std::int64_t begin = blockIdx.y * rows_of_block, end = min(rows, begin + rows_of_block);
  Floats<W> sum{};
  if (column < columns)
    for (std::int64_t row = begin + y; row < end; row += row_lanes) {
      const Floats<W> values = load_floats<W>(matrix + row * columns + column);
      for (int i = 0; i < W; ++i) sum[i] += values[i];
    }
  for (int i = 0; i < W; ++i) sums[y][lane * W + i] = sum[i];
  __syncthreads();
  for (int at = y * warp_size + lane; at < warp_size * W && strip + at < columns;
       at += warp_size * row_lanes) {
    float total = 0;
    for (int part = 0; part < row_lanes; ++part) total += sums[part][at];
    partial[blockIdx.y * columns + strip + at] = total;
  }
}

// A block sums 32 columns; each of its 16 warps takes every sixteenth of the partial sums.
__global__ void __launch_bounds__(warp_size* block_lanes)
    sum_blocks_kernel(const float* partial, std::int64_t blocks, std::int64_t columns, float* to,
                      bool accumulate) {
  __shared__ float sums[block_lanes][warp_size];
  const int lane = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const std::int64_t column = std::int64_t{blockIdx.x} * warp_size + lane;
  float sum = 0;
  if (column < columns)
    for (std::int64_t block = y; block < blocks; block += block_lanes)
      sum += partial[block * columns + column];
  sums[y][lane] = sum;
  __syncthreads();
  if (y > 0 || column >= columns) return;
  float total = 0;
  for (int part = 0; part < block_lanes; ++part) total += sums[part][lane];
  to[column] = accumulate ? to[column] + total : total;
}

}  // namespace

void column_sums(const TensorView& matrix, float* to, bool accumulate, std::byte* workspace,
                 NativeStream stream) {
  const std::int64_t rows = matrix.rows(), columns = matrix.columns(), blocks = column_sum_blocks(rows);
  float* const partial = reinterpret_cast<float*>(workspace);
  with_element_type(matrix.dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    constexpr int width = Vector<T>::size;
    with_width<width>(columns % width == 0 && aligned(16, matrix.data), [&](auto w) {
      const auto strips = static_cast<unsigned>(divide_up(columns, warp_size * w()));
      launch(sum_rows_kernel<w(), T>, dim3(strips, static_cast<unsigned>(blocks)), dim3(warp_size, row_lanes),
             0, stream, matrix.as<T>(), rows, columns, column_sum_rows(rows), partial);
    });
  });
  sum_blocks(partial, blocks, columns, to, accumulate, stream);
}

void sum_blocks(const float* partial, std::int64_t blocks, std::int64_t columns, float* to, bool accumulate,
                NativeStream stream) {
  launch(sum_blocks_kernel, dim3(static_cast<unsigned>(divide_up(columns, warp_size))),
         dim3(warp_size, block_lanes), 0, stream, partial, blocks, columns, to, accumulate);
}

}  // namespace muster::cuda
