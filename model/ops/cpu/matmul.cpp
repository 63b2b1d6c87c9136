#include "model/ops/cpu/matmul.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/matmul_kernel.hpp"
#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {
namespace {

// Depth of a block in units: with 384 columns a block of B (576 KiB) stays in the L2 cache.
constexpr std::int64_t block_units = 384;
constexpr std::int64_t group_rows = 32;  // of A, packed at once: whole cache lines of a transposed A

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

// C is cut into tiles of m x n; a task computes one of them, over the whole depth.
struct Tile {
  std::int64_t m = 1024, n = 8 * panel_columns;
};

// Enough tiles to keep the threads busy to the end, but no smaller than pays for packing their blocks.
Tile tile_of(const MatmulShape& shape, int threads) {
  Tile tile;
  const auto too_few = [&] {
    return divide_up(shape.m, tile.m) * divide_up(shape.n, tile.n) < (threads == 1 ? 1 : 4 * threads);
  };
  while (too_few() && tile.m > 256) tile.m /= 2;
  while (too_few() && tile.n > 2 * panel_columns) tile.n /= 2;
  while (too_few() && tile.m > 64) tile.m /= 2;
  const auto even = [](std::int64_t extent, std::int64_t at_most, std::int64_t multiple) {
    return round_up(divide_up(extent, divide_up(extent, at_most)), multiple);
  };
  return {even(shape.m, tile.m, panel_rows), even(shape.n, tile.n, panel_columns)};
}

// f32 sums to which nothing is done are formed in C itself.
bool formed_in_place(const MatmulOutput& c) { return c.dtype == DType::f32 && !c.bias && !c.gelu; }

// What a thread needs of the workspace: panels of A, a block of B, and sums over the blocks of depth so far.
struct Scratch {
  std::uint64_t b_block, partial, bytes;  // offsets, size

  Scratch(const Tile& tile, std::int64_t units) {
    const std::int64_t block = std::min(units, block_units);
    const auto floats = [](std::int64_t count) {
      return static_cast<std::uint64_t>(round_up(count, 16)) * sizeof(float);
    };
    b_block = floats(group_rows * block);
    partial = b_block + floats(round_up(tile.n, panel_columns) * block);
    bytes = partial + (units <= block ? 0 : floats(tile.m * tile.n));
  }
};

// Brings `count` finished sums of row m, from column n on, to where they go.
template <class T>
void finish(const float* sums, std::int64_t m, std::int64_t n, std::int64_t count, const MatmulOutput& c) {
  T* const to = static_cast<T*>(c.data) + m * c.stride + n;
  T* const before_gelu = c.before_gelu ? static_cast<T*>(c.before_gelu) + m * c.stride + n : nullptr;
  const auto finish_lanes = [&](std::int64_t j, auto load_some, auto store_some) {
    Floats v = load(sums + j);
    if (c.bias) v += load_some(c.bias + n + j);
    if (c.gelu) {
      if constexpr (std::is_same_v<T, bf16>) v = widen(narrow(v));
      if (before_gelu) store_some(before_gelu + j, v);
      v = gelu(v);
    }
    store_some(to + j, v);
  };
  std::int64_t j = 0;
  for (; j + lanes <= count; j += lanes)
    finish_lanes(
        j, [](const float* from) { return load(from); }, [](T* at, Floats v) { store(at, v); });
  if (j < count)
    finish_lanes(
        j, [&](const float* from) { return load_part(from, count - j); },
        [&](T* at, Floats v) { store_part(at, v, count - j); });
}

template <class T>
struct Multiplication {
  MatmulShape shape;
  MatrixView a, b;
  MatmulOutput c;
  Tile tile;

  static constexpr std::int64_t block_depth = block_units * unit_depth<T>;

  Lines<T> rows_of_a(std::int64_t m, std::int64_t end, std::int64_t k) const {
    return {static_cast<const T*>(a.data) + m * a.row_stride + k * a.column_stride, a.row_stride,
            a.column_stride, std::max<std::int64_t>(end - m, 0), std::min(block_depth, shape.k - k)};
  }
  Lines<T> columns_of_b(std::int64_t n, std::int64_t k) const {
    return {static_cast<const T*>(b.data) + n * b.column_stride + k * b.row_stride, b.column_stride,
            b.row_stride, std::clamp<std::int64_t>(shape.n - n, 0, tile.n),
            std::min(block_depth, shape.k - k)};
  }

  void compute_tile(std::int64_t m0, std::int64_t n0, std::byte* workspace) const;
  // panel_rows x panel_columns of it, of which some may lie beyond C.
  template <class Multiply>
  void compute_panel(std::int64_t m, std::int64_t n, bool first, bool last, float* partial,
                     Multiply multiply) const;
};

template <class T>
void Multiplication<T>::compute_tile(std::int64_t m0, std::int64_t n0, std::byte* workspace) const {
  const Scratch scratch(tile, units_of<T>(shape.k));
  float* const a_panels = reinterpret_cast<float*>(workspace);
  float* const b_block = reinterpret_cast<float*>(workspace + scratch.b_block);
  float* const partial = reinterpret_cast<float*>(workspace + scratch.partial);
  const std::int64_t m_end = std::min(shape.m, m0 + tile.m), n_end = std::min(shape.n, n0 + tile.n);

  for (std::int64_t k = 0; k < shape.k; k += block_depth) {
    const Lines<T> b_lines = columns_of_b(n0, k);
    const std::int64_t units = units_of<T>(b_lines.depth);
    const bool last = k + block_depth >= shape.k;
    // Rows that are contiguous in depth are read where they lie; what is left of them, and other rows, are
    // packed.
    const bool in_place = a.column_stride == 1 && b_lines.depth % unit_depth<T> == 0;
    pack_panels<panel_columns>(b_lines, b_block);
    for (std::int64_t group = m0; group < m_end; group += group_rows) {
      const std::int64_t group_end = std::min(m_end, group + group_rows);
      const std::int64_t packed = in_place ? group + (group_end - group) / panel_rows * panel_rows : group;
      if (packed < group_end) pack_panels<panel_rows>(rows_of_a(packed, group_end, k), a_panels);
      const Lines<T> next = rows_of_a(group_end, std::min(m_end, group_end + group_rows), k);
      const std::int64_t steps =
          divide_up(group_end - group, panel_rows) * divide_up(n_end - n0, panel_columns);
      std::int64_t step = 0;
      for (std::int64_t m = group; m < group_end; m += panel_rows)
        for (std::int64_t n = n0; n < n_end; n += panel_columns) {
          if (!in_place) prefetch(next, step++, steps);
          const float* const b_panel = b_block + (n - n0) * units;
          float* const kept = partial + (m - m0) * tile.n + (n - n0) * panel_rows;
          compute_panel(m, n, k == 0, last, kept, [&](float* to, std::int64_t stride, bool add) {
            if (m < packed)
              multiply_rows<T>(rows_of_a(m, group_end, k).from, a.row_stride, b_panel, units, to, stride,
                               add);
            else
              multiply_panel<T>(a_panels + (m - packed) * units, b_panel, units, to, stride, add);
          });
        }
    }
  }
}

template <class T>
template <class Multiply>
void Multiplication<T>::compute_panel(std::int64_t m, std::int64_t n, bool first, bool last, float* partial,
                                      Multiply multiply) const {
  const std::int64_t m_count = std::min<std::int64_t>(panel_rows, shape.m - m);
  const std::int64_t n_count = std::min<std::int64_t>(panel_columns, shape.n - n);
  alignas(64) float sums[panel_rows * panel_columns];
  if (!formed_in_place(c)) {
    float* const to = last ? sums : partial;
    if (last && !first) std::copy_n(partial, std::size(sums), sums);
    multiply(to, panel_columns, !first);
    if (!last) return;
    for (std::int64_t i = 0; i < m_count; ++i) finish<T>(sums + i * panel_columns, m + i, n, n_count, c);
    return;
  }
  float* const to = static_cast<float*>(c.data) + m * c.stride + n;
  const bool add = !first || c.accumulate;
  if (m_count == panel_rows && n_count == panel_columns) return multiply(to, c.stride, add);
  std::fill_n(sums, std::size(sums), 0.0f);
  if (add)
    for (std::int64_t i = 0; i < m_count; ++i)
      std::copy_n(to + i * c.stride, n_count, sums + i * panel_columns);
  multiply(sums, panel_columns, add);
  for (std::int64_t i = 0; i < m_count; ++i)
    std::copy_n(sums + i * panel_columns, n_count, to + i * c.stride);
}

template <class T>
void multiply(const MatmulShape& shape, const MatrixView& a, const MatrixView& b, const MatmulOutput& c,
              std::byte* workspace) {
  const Multiplication<T> multiplication{shape, a, b, c, tile_of(shape, thread_count())};
  const Tile& tile = multiplication.tile;
  const std::uint64_t scratch = Scratch(tile, units_of<T>(shape.k)).bytes;
  const std::int64_t m_tiles = divide_up(shape.m, tile.m), n_tiles = divide_up(shape.n, tile.n);
  // Tiles that follow each other share the smaller matrix's part.
  const auto m_of = [&](std::int64_t task) {
    return (shape.m > shape.n ? task / n_tiles : task % m_tiles) * tile.m;
  };
  const auto n_of = [&](std::int64_t task) {
    return (shape.m > shape.n ? task % n_tiles : task / m_tiles) * tile.n;
  };
  parallel_tasks(m_tiles * n_tiles, [&](std::int64_t task, int thread) {
    multiplication.compute_tile(m_of(task), n_of(task),
                                workspace + static_cast<std::uint64_t>(thread) * scratch);
  });
}

}  // namespace

std::uint64_t matmul_workspace(DType type, const MatmulShape& shape, int threads) {
  const std::int64_t units = type == DType::bf16 ? units_of<bf16>(shape.k) : units_of<float>(shape.k);
  return static_cast<std::uint64_t>(threads) * Scratch(tile_of(shape, threads), units).bytes;
}

void matmul(DType type, const MatmulShape& shape, const MatrixView& a, const MatrixView& b,
            const MatmulOutput& c, std::byte* workspace) {
  check(formed_in_place(c) || (c.dtype == type && !c.accumulate), "only plain f32 sums accumulate");
  type == DType::bf16 ? multiply<bf16>(shape, a, b, c, workspace)
                      : multiply<float>(shape, a, b, c, workspace);
}

}  // namespace muster::cpu
