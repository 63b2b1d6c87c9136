// Rows of tables, and their gradient, for N ids of a table [V, C].
//
// embedding: reads N C elements of each table, writes N C. A thread copies 16 bytes of the wider type.
//
// embedding_gradient sorts the ids by (id, position), then adds the rows of each id in that order, without atomics:
//   sort       runs of 512 keys by counting smaller ones, then log2(N / 512) merges, 16 N bytes each, in which every
//              key finds its place by binary search: some 30 us at N = 16,384
//   sums       reads N C elements of dy, writes (accumulating: reads, too) 4 C bytes for each id that occurs
//   clearing   4 V C bytes, unless the gradient is accumulated; the rows that occur are written twice
// A block of the sums belongs to a sorted key, and goes on only where that is the first of its id.
#include <algorithm>

#include "model/ops/cuda/elementwise.cuh"
#include "model/ops/cuda/embedding_sort.hpp"
#include "model/ops/cuda/kernels.hpp"
#include "model/ops/embedding.hpp"

namespace muster::cuda {
namespace {

constexpr int run_keys = 512;

template <int W, class From, class To>
__global__ void __launch_bounds__(block_threads)
    embedding_kernel(To* y, const From* table, const std::int32_t* tokens, const From* position_table,
                     const std::int32_t* positions, std::int64_t items, unsigned items_of_row) {
  const std::int64_t item = thread_of_grid();
  if (item >= items) return;
  const unsigned row = static_cast<unsigned>(item) / items_of_row;
  const unsigned column = (static_cast<unsigned>(item) - row * items_of_row) * W;
  const std::int64_t width = std::int64_t{items_of_row} * W;
  Floats<W> sum = load_floats<W>(table + tokens[row] * width + column);
  if (positions != nullptr) {
    const Floats<W> place = load_floats<W>(position_table + positions[row] * width + column);
    for (int i = 0; i < W; ++i) sum[i] += place[i];
  }
  store_floats(y + item * W, sum);
}

// A key's place in its run is the number of smaller keys.
__global__ void __launch_bounds__(run_keys)
    sort_runs(EmbeddingKey* to, const std::int32_t* ids, std::int64_t count) {
  __shared__ EmbeddingKey run[run_keys];
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * run_keys, n = begin + threadIdx.x;
  EmbeddingKey mine = ~EmbeddingKey{0};
  if (n < count) mine = static_cast<EmbeddingKey>(ids[n]) << 32 | static_cast<EmbeddingKey>(n);
  run[threadIdx.x] = mine;
  __syncthreads();
  if (n >= count) return;
  int smaller = 0;
  for (int k = 0; k < run_keys; ++k) smaller += run[k] < mine ? 1 : 0;
  to[begin + smaller] = mine;
}

// Merges runs of `length` in pairs: a key's place is its own in its run and the number of smaller keys in the other.
__global__ void __launch_bounds__(block_threads)
    merge_runs(EmbeddingKey* to, const EmbeddingKey* from, std::int64_t count, std::int64_t length) {
  const std::int64_t n = thread_of_grid();
  if (n >= count) return;
  const EmbeddingKey mine = from[n];
  const std::int64_t pair = n / (2 * length) * (2 * length), middle = std::min(pair + length, count);
  const bool left = n < middle;
  std::int64_t low = left ? middle : pair, high = left ? std::min(middle + length, count) : middle;
  const std::int64_t other = low;
  while (low < high) {
    const std::int64_t half = (low + high) / 2;
    if (from[half] < mine)
      low = half + 1;
    else
      high = half;
  }
  to[(left ? n : n - length) + (low - other)] = mine;
}

__device__ inline std::int32_t id_of(EmbeddingKey key) { return static_cast<std::int32_t>(key >> 32); }

// Columns along y. A warp reads 32 keys at once; the rows they name do not wait for each other.
template <int W, class T>
__global__ void __launch_bounds__(block_threads)
    add_rows(float* table, const T* dy, const EmbeddingKey* keys, std::int64_t count, std::int64_t width,
             bool accumulate) {
  const std::int64_t first = blockIdx.x;
  const std::int32_t id = id_of(keys[first]);
  if (first > 0 && id_of(keys[first - 1]) == id) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * W;
  const bool inside = column < width;
  Floats<W> sum{};
  bool more = true;
  for (std::int64_t begin = first; more; begin += warp_size) {
    const bool exists = begin + lane < count;
    const EmbeddingKey key = exists ? keys[begin + lane] : 0;
    const unsigned same = __ballot_sync(all_lanes, exists && id_of(key) == id);
    const int rows = __popc(same);  // of sorted keys, the first ones
    more = rows == warp_size;
#pragma unroll 4
    for (int i = 0; i < rows; ++i) {
      const auto position = __shfl_sync(all_lanes, static_cast<std::uint32_t>(key), i);
      if (!inside) continue;
      const Floats<W> row = load_floats<W>(dy + std::int64_t{position} * width + column);
      for (int k = 0; k < W; ++k) sum[k] += row[k];
    }
  }
  if (!inside) return;
  float* to = table + id * width + column;
  if (accumulate) {
    const Floats<W> before = load_floats<W>(to);
    for (int k = 0; k < W; ++k) sum[k] = before[k] + sum[k];
  }
  store_floats(to, sum);
}

// The keys of `ids` in order, in one half of the workspace.
const EmbeddingKey* sorted_keys(const std::int32_t* ids, std::int64_t count, std::byte* workspace,
                                NativeStream stream) {
  EmbeddingKey *keys = reinterpret_cast<EmbeddingKey*>(workspace), *other = keys + count;
  launch(sort_runs, dim3(static_cast<unsigned>(divide_up(count, run_keys))), run_keys, 0, stream, keys, ids,
         count);
  for (std::int64_t length = run_keys; length < count; length *= 2) {
    launch(merge_runs, blocks_for(count), block_threads, 0, stream, other, keys, count, length);
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace

void embedding(const Op&, const KernelArgs& args) {
  const TensorView &table = args.inputs[1], &y = args.outputs[0];
  if (y.elements() == 0) return;
  const bool positional = args.inputs.size() == 4 && args.inputs[2];
  with_element_type(table.dtype(), [&](auto* like_table) {
    using From = std::remove_pointer_t<decltype(like_table)>;
    with_element_type(y.dtype(), [&](auto* like) {
      using To = std::remove_pointer_t<decltype(like)>;
      const From* places = positional ? args.inputs[3].as<const From>() : nullptr;
      constexpr int vector = std::min(Vector<From>::size, Vector<To>::size);
      with_width<vector>(y.columns() % vector == 0 && aligned(16, y.data, table.data, places), [&](auto w) {
        const std::int64_t items = y.elements() / w();
        launch(embedding_kernel<w(), From, To>, blocks_for_items(items), block_threads, 0, args.stream,
               y.as<To>(), table.as<const From>(), args.inputs[0].as<const std::int32_t>(), places,
               positional ? args.inputs[2].as<const std::int32_t>() : nullptr, items,
               static_cast<unsigned>(y.columns() / w()));
      });
    });
  });
}

void embedding_gradient(const Op&, const KernelArgs& args) {
  const std::int64_t positions = args.inputs[0].elements(), width = args.outputs[0].columns();
  float* table = args.outputs[0].as<float>();
  if (!args.accumulate)
    check_cuda(
        cudaMemsetAsync(table, 0, args.outputs[0].type->bytes(), static_cast<cudaStream_t>(args.stream)),
        "clearing a gradient");
  if (positions * width == 0) return;
  const EmbeddingKey* keys =
      sorted_keys(args.inputs[0].as<const std::int32_t>(), positions, args.workspace, args.stream);
  with_element_type(args.inputs[1].dtype(), [&](auto* like) {
    using T = std::remove_pointer_t<decltype(like)>;
    const T* dy = args.inputs[1].as<const T>();
    constexpr int vector = Vector<T>::size;
    with_width<vector>(width % vector == 0 && aligned(16, table, dy), [&](auto w) {
      const std::int64_t threads = divide_up(width, w());
      const auto block =
          static_cast<unsigned>(std::min<std::int64_t>(block_threads, divide_up(threads, 32) * 32));
      const dim3 grid(static_cast<unsigned>(positions), static_cast<unsigned>(divide_up(threads, block)));
      launch(add_rows<w(), T>, grid, block, 0, args.stream, table, dy, keys, positions, width,
             args.accumulate);
    });
  });
}

}  // namespace muster::cuda
