#include "model/ops/cpu/matmul.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/vector.hpp"

namespace muster::cpu {
namespace {

// The micro-kernel keeps `rows` x `columns` sums in registers: 24 of AVX-512's 32, or 8 pairs of AVX2's 16.
#if MUSTER_AVX512
constexpr int rows = 8, vectors = 3;
#else
constexpr int rows = 4, vectors = 1;
#endif
constexpr std::int64_t columns = vectors * lanes;
constexpr int panel_rows = 8;  // of A; a multiple of rows

// Depth of a block in units: a panel of A (12 KiB) stays in the L1 cache, a block of B (576 KiB) in L2.
constexpr std::int64_t block_units = 384;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// C is cut into tiles of m x n; a task computes one of them, over the whole depth.
struct Tile {
  std::int64_t m = 1024, n = 384;
};

std::int64_t even_cut(std::int64_t extent, std::int64_t at_most, std::int64_t multiple) {
  return divide_up(divide_up(extent, divide_up(extent, at_most)), multiple) * multiple;
}

// Enough tiles for the threads, but no smaller than pays for packing their blocks.
Tile tile_of(const MatmulShape& shape, int threads) {
  const auto count = [&](const Tile& tile) {
    return divide_up(shape.m, tile.m) * divide_up(shape.n, tile.n);
  };
  Tile tile;
  const std::int64_t wanted = threads == 1 ? 1 : 4 * threads;
  while (count(tile) < wanted && tile.m > 256 && tile.m > shape.m / 8) tile.m /= 2;
  if (count(tile) < wanted) tile.n = 192;
  if (count(tile) < wanted) tile.m = 128;
  if (count(tile) < wanted) tile.n = 96;
  tile.m = even_cut(shape.m, tile.m, panel_rows);
  tile.n = even_cut(shape.n, tile.n, columns);
  return tile;
}

template <class T>
MUSTER_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if MUSTER_AVX512 && defined(__AVX512BF16__)
  if constexpr (unit_depth<T> == 2)
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(c), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#endif
  return fma(a, b, c);
}

// c[i][j] = (add ? c[i][j] : 0) + sum over u of a[u][i] b[u][j].
template <class T>
[[gnu::noinline]] void micro_kernel(const float* a, const float* b, std::int64_t units, float* c,
                                    std::int64_t stride, bool add) {
  Floats sums[rows][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; ++j) sums[i][j] = add ? load(c + i * stride + j * lanes) : Floats{};
  for (std::int64_t u = 0; u < units; ++u, a += panel_rows, b += columns) {
    Floats line[vectors];
#pragma GCC unroll 3
    for (int j = 0; j < vectors; ++j) line[j] = load(b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Floats factor = broadcast(a[i]);
#pragma GCC unroll 3
      for (int j = 0; j < vectors; ++j) sums[i][j] = multiply_add<T>(factor, line[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; ++j) store(c + i * stride + j * lanes, sums[i][j]);
}

// Brings `count` finished sums of row m, from column n on, to where they go.
template <class T>
void finish(const float* sums, std::int64_t m, std::int64_t n, std::int64_t count, const MatmulOutput& c) {
  T* const to = static_cast<T*>(c.data) + m * c.stride + n;
  T* const before_gelu = c.before_gelu ? static_cast<T*>(c.before_gelu) + m * c.stride + n : nullptr;
  for (std::int64_t j = 0; j < count; j += lanes) {
    const std::int64_t part = std::min(lanes, count - j);
    Floats v = load(sums + j);
    if (c.bias) v += load_part(c.bias + n + j, part);
    if (c.gelu) {
      if constexpr (std::is_same_v<T, bf16>) v = widen(narrow(v));
      if (before_gelu) store_part(before_gelu + j, v, part);
      v = gelu(v);
    }
    store_part(to + j, v, part);
  }
}

void finish(const float* sums, std::int64_t m, std::int64_t n, std::int64_t count, const MatmulOutput& c) {
  c.dtype == DType::bf16 ? finish<bf16>(sums, m, n, count, c) : finish<float>(sums, m, n, count, c);
}

// What a thread needs of the workspace.
struct Scratch {
  std::uint64_t b_block, partial;  // offsets of the packed block of B and of sums over the blocks so far
  std::uint64_t bytes;

  Scratch(const Tile& tile, std::int64_t units, bool direct) {
    const std::int64_t block = std::min(units, block_units);
    b_block = static_cast<std::uint64_t>(panel_rows * block) * sizeof(float);
    partial = b_block + static_cast<std::uint64_t>(tile.n * block) * sizeof(float);
    bytes = partial +
            (direct || units <= block ? 0 : static_cast<std::uint64_t>(tile.m * tile.n) * sizeof(float));
    bytes = (bytes + 63) / 64 * 64;
  }
};

// f32 sums that need nothing done to them are formed in C itself.
bool formed_in_place(const MatmulOutput& c) { return c.dtype == DType::f32 && !c.bias && !c.gelu; }

template <class T>
void multiply_tile(const MatmulShape& shape, const Tile& tile, std::int64_t m0, std::int64_t n0,
                   const MatrixView& a, const MatrixView& b, const MatmulOutput& c, std::byte* workspace) {
  const std::int64_t m_end = std::min(shape.m, m0 + tile.m), n_end = std::min(shape.n, n0 + tile.n);
  const bool direct = formed_in_place(c);
  const Scratch scratch(tile, units_of<T>(shape.k), direct);
  float* const a_panel = reinterpret_cast<float*>(workspace);
  float* const b_block = reinterpret_cast<float*>(workspace + scratch.b_block);
  float* const partial = reinterpret_cast<float*>(workspace + scratch.partial);
  constexpr std::int64_t block = block_units * unit_depth<T>;

  for (std::int64_t k0 = 0; k0 < shape.k; k0 += block) {
    const std::int64_t depth = std::min(block, shape.k - k0), units = units_of<T>(depth);
    const bool first = k0 == 0, last = k0 + depth == shape.k;
    for (std::int64_t n = n0; n < n_end; n += columns)
      pack_panel<static_cast<int>(columns)>(
          static_cast<const T*>(b.data) + k0 * b.row_stride + n * b.column_stride, b.column_stride,
          b.row_stride, std::min(columns, n_end - n), depth, b_block + (n - n0) * units);
    for (std::int64_t m = m0; m < m_end; m += panel_rows) {
      const std::int64_t m_count = std::min<std::int64_t>(panel_rows, m_end - m);
      pack_panel<panel_rows>(static_cast<const T*>(a.data) + m * a.row_stride + k0 * a.column_stride,
                             a.row_stride, a.column_stride, m_count, depth, a_panel);
      for (std::int64_t n = n0; n < n_end; n += columns) {
        const std::int64_t n_count = std::min(columns, n_end - n);
        const float* const b_panel = b_block + (n - n0) * units;
        alignas(64) float sums[panel_rows * columns];
        // Where the sums stand between blocks of depth, and where this block leaves them.
        float* const output = direct ? static_cast<float*>(c.data) + m * c.stride + n : nullptr;
        float* const kept = partial + (m - m0) * tile.n + (n - n0) * panel_rows;
        const bool whole = m_count == panel_rows && n_count == columns;
        const bool add = !first || c.accumulate;
        if (direct && whole) {
          for (int i = 0; i < panel_rows; i += rows)
            micro_kernel<T>(a_panel + i, b_panel, units, output + i * c.stride, c.stride, add);
          continue;
        }
        float* const target = !direct && !last ? kept : sums;
        if (direct && add)
          for (std::int64_t i = 0; i < m_count; ++i)
            for (std::int64_t j = 0; j < n_count; ++j) sums[i * columns + j] = output[i * c.stride + j];
        if (!direct && last && !first) std::copy_n(kept, panel_rows * columns, sums);
        for (int i = 0; i < panel_rows; i += rows)
          micro_kernel<T>(a_panel + i, b_panel, units, target + i * columns, columns, add);
        if (direct || last)
          for (std::int64_t i = 0; i < m_count; ++i) finish(sums + i * columns, m + i, n, n_count, c);
      }
    }
  }
}

template <class T>
void multiply(const MatmulShape& shape, const MatrixView& a, const MatrixView& b, const MatmulOutput& c,
              std::byte* workspace) {
  const Tile tile = tile_of(shape, thread_count());
  const Scratch scratch(tile, units_of<T>(shape.k), formed_in_place(c));
  const std::int64_t n_tiles = divide_up(shape.n, tile.n);
  parallel_tasks(divide_up(shape.m, tile.m) * n_tiles, [&](std::int64_t task, int thread) {
    multiply_tile<T>(shape, tile, task / n_tiles * tile.m, task % n_tiles * tile.n, a, b, c,
                     workspace + static_cast<std::uint64_t>(thread) * scratch.bytes);
  });
}

}  // namespace

std::uint64_t matmul_workspace(DType type, const MatmulShape& shape, int threads) {
  const std::int64_t units = type == DType::bf16 ? units_of<bf16>(shape.k) : units_of<float>(shape.k);
  return static_cast<std::uint64_t>(threads) * Scratch(tile_of(shape, threads), units, false).bytes;
}

void matmul(DType type, const MatmulShape& shape, const MatrixView& a, const MatrixView& b,
            const MatmulOutput& c, std::byte* workspace) {
  check(!c.accumulate || formed_in_place(c), "only plain f32 sums accumulate");
  type == DType::bf16 ? multiply<bf16>(shape, a, b, c, workspace)
                      : multiply<float>(shape, a, b, c, workspace);
}

}  // namespace muster::cpu
