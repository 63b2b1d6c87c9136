// A block computes 64 x 64 elements of c, a thread 4 x 4 of them, from tiles of 16 along k in shared memory. FLOPs:
// 2 m n k on the ordinary units; each input is read once for every 64 rows or columns of the output. One thread adds
// up an element, k in order.
#include "model/ops/cuda/device.cuh"
#include "model/ops/cuda/matmul_plain.hpp"

namespace muster::cuda {
namespace {

constexpr int tile = 64, depth = 16, of_thread = 4, side = tile / of_thread;

template <class T, class C>
struct Operands {
  std::int64_t m, n, k;
  const T *a, *b;
  std::int64_t a_row, a_depth, b_column, b_depth;  // strides
  const C* bias;
  C* c;
  std::int64_t c_stride;
  bool accumulate;
};

// to[l][i] = from(first + i, l0 + l), zero outside.
template <class T>
__device__ void load_tile(float (*to)[tile], const T* from, std::int64_t first, std::int64_t count,
                          std::int64_t stride, std::int64_t l0, std::int64_t k, std::int64_t depth_stride) {
  const int threads = side * side,
            self = static_cast<int>(threadIdx.y) * side + static_cast<int>(threadIdx.x);
  for (int element = self; element < tile * depth; element += threads) {
    // Neighbouring threads take neighbouring addresses.
    const int i = depth_stride == 1 ? element / depth : element % tile;
    const int l = depth_stride == 1 ? element % depth : element / tile;
    const bool inside = first + i < count && l0 + l < k;
    to[l][i] = inside ? to_float(from[(first + i) * stride + (l0 + l) * depth_stride]) : 0.0f;
  }
}

template <class T, class C>
__global__ void __launch_bounds__(side* side) plain_product_kernel(Operands<T, C> p) {
  __shared__ float a[depth][tile], b[depth][tile];
  const std::int64_t row0 = std::int64_t{blockIdx.y} * tile, column0 = std::int64_t{blockIdx.x} * tile;
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  float sums[of_thread][of_thread] = {};
  for (std::int64_t l0 = 0; l0 < p.k; l0 += depth) {
    load_tile(a, p.a, row0, p.m, p.a_row, l0, p.k, p.a_depth);
    load_tile(b, p.b, column0, p.n, p.b_column, l0, p.k, p.b_depth);
    __syncthreads();
    for (int l = 0; l < depth; ++l)
      for (int i = 0; i < of_thread; ++i)
        for (int j = 0; j < of_thread; ++j)
          sums[i][j] = fmaf(a[l][y + i * side], b[l][x + j * side], sums[i][j]);
    __syncthreads();
  }
  for (int i = 0; i < of_thread; ++i)
    for (int j = 0; j < of_thread; ++j) {
      const std::int64_t row = row0 + y + i * side, column = column0 + x + j * side;
      if (row >= p.m || column >= p.n) continue;
      C* const to = p.c + row * p.c_stride + column;
      float value = sums[i][j];
      if (p.bias) value += to_float(p.bias[column]);
      if (p.accumulate) value += to_float(*to);
      *to = from_float<C>(value);
    }
}

}  // namespace

void plain_product(const Product& product, NativeStream stream) {
  const Matrix &a = product.a, &b = product.b;
  const std::int64_t rows = divide_up(product.m, tile), columns = divide_up(product.n, tile);
  check(rows < 65536 && columns < (std::int64_t{1} << 31), "a plain product has fewer than 4 million rows");
  with_element_type(product.inputs, [&](auto* like_input) {
    with_element_type(product.output, [&](auto* like_output) {
      using T = std::remove_pointer_t<decltype(like_input)>;
      using C = std::remove_pointer_t<decltype(like_output)>;
      const Operands<T, C> operands{product.m,
                                    product.n,
                                    product.k,
                                    static_cast<const T*>(a.data),
                                    static_cast<const T*>(b.data),
                                    a.transposed ? 1 : a.stride,
                                    a.transposed ? a.stride : 1,
                                    b.transposed ? b.stride : 1,
                                    b.transposed ? 1 : b.stride,
                                    static_cast<const C*>(product.bias),
                                    static_cast<C*>(product.c),
                                    product.c_stride,
                                    product.accumulate};
      launch(plain_product_kernel<T, C>, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(rows)),
             dim3(side, side), 0, stream, operands);
    });
  });
}

}  // namespace muster::cuda
