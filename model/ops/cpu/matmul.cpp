#include "model/ops/cpu/matmul.hpp"

#include <algorithm>
#include <limits>
#include <optional>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/matmul_kernel.hpp"
#include "model/ops/cpu/matmul_pack.hpp"
#include "model/ops/cpu/rounding.hpp"
#include "model/ops/cpu/vector.hpp"
#include "model/ops/onednn_product.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// Goto, van de Geijn 2008, "Anatomy of high-performance matrix multiplication": a block of A of block_rows x
// block_units (192 to 256 KiB) stays in the second cache while it meets the panels of B one by one, each of which
// (24 KiB; 96 KiB with AVX-512, whose sums ask for less a cycle) stays in the first, or comes from the second.
constexpr std::int64_t block_units = MUSTER_AVX512 ? 512 : 256;
constexpr std::int64_t block_rows = MUSTER_AVX512 ? 128 : 192;

// C is cut into tiles of m x n; a task computes one of them, over the whole depth.
struct Tile {
  std::int64_t m = 0, n = 0;
};

// Whether units of A's rows are 32 bits of memory side by side, and are multiplied from there: NEON takes them out of
// registers that a packed panel fills at once.
template <class T>
bool reads_in_place(const MatrixView& a, std::int64_t k) {
  return !MUSTER_NEON && sizeof(T) * unit_depth<T> == sizeof(float) && a.column_stride == 1 &&
         k % unit_depth<T> == 0;
}

// To pack an element costs about as much as so many products.
constexpr std::int64_t packing = 16;

// The tiles that should take least time, where an element of A costs `of_a` products beside its own: the thread with most
// tiles counts. Four a thread if the shape allows, so that a thread which others delay holds up little.
Tile tile_of(const MatmulShape& shape, std::int64_t of_a, int threads) {
  constexpr std::int64_t least_m = 64, most_m = 1024, least_n = 96, most_n = 768;
  const std::int64_t wanted = threads == 1 ? 1 : 4 * threads;
  Tile best{round_up(shape.m, panel_rows), round_up(shape.n, panel_columns)};
  std::int64_t best_cost = std::numeric_limits<std::int64_t>::max(), best_tiles = 0;
  for (std::int64_t m_parts = divide_up(shape.m, most_m); m_parts <= divide_up(shape.m, least_m); ++m_parts) {
    const std::int64_t m = round_up(divide_up(shape.m, m_parts), panel_rows);
    for (std::int64_t n_parts = divide_up(shape.n, most_n); n_parts <= divide_up(shape.n, least_n);
         ++n_parts) {
      const std::int64_t n = round_up(divide_up(shape.n, n_parts), panel_columns);
      const std::int64_t tiles = divide_up(shape.m, m) * divide_up(shape.n, n);
      const std::int64_t cost = divide_up(tiles, threads) * (m * n + of_a * m + packing * n);
      const std::int64_t enough = std::min(tiles, wanted);
      if (enough > best_tiles || (enough == best_tiles && cost < best_cost)) {
        best = {m, n};
        best_cost = cost;
        best_tiles = enough;
      }
      if (tiles > 16 * wanted) break;  // smaller ones cost more
    }
  }
  return best;
}

// Whether something is done to an element's sum before it is written.
bool is_finished(const MatmulOutput& c) { return c.bias != nullptr || c.gelu || c.dtype != DType::f32; }

// What a thread needs of the workspace: a block of A, a block of B, and sums over the blocks of depth so far where C
// itself cannot hold them.
struct Scratch {
  std::uint64_t b_block, partial, bytes;  // offsets, size

  Scratch(const Tile& tile, std::int64_t units, DType c) {
    const std::int64_t depth = std::min(units, block_units);
    const auto floats = [](std::int64_t count) {
      return static_cast<std::uint64_t>(round_up(count, 16)) * sizeof(float);
    };
    b_block = floats(round_up(std::min(tile.m, block_rows), lanes) * depth);
    partial = b_block + floats(round_up(tile.n, panel_columns) * depth);
    bytes = partial + (units <= depth || c == DType::f32 ? 0 : floats(tile.m * tile.n));
  }
};

// Brings `count` sums of row m, from column n on, to where they go; they may lie there already.
template <class T>
void finish(const float* sums, std::int64_t m, std::int64_t n, std::int64_t count, const MatmulOutput& c) {
  T* const to = static_cast<T*>(c.data) + m * c.stride + n;
  T* const before_gelu = c.before_gelu ? static_cast<T*>(c.before_gelu) + m * c.stride + n : nullptr;
  for_lanes(0, count, [=](std::int64_t j, auto part) {
    Floats v = load(sums + j, part);
    if (c.bias) v += load(c.bias + n + j, part);
    if (c.gelu) {
      if constexpr (std::is_same_v<T, bf16>) v = widen(narrow(v));
      if (before_gelu) store(before_gelu + j, v, part);
      v = gelu(v);
    }
    store(to + j, v, part);
  });
}

template <class T>
struct Multiplication {
  MatmulShape shape;
  MatrixView a, b;
  MatmulOutput c;
  Tile tile;

  Multiplication(const Matmul& product, const Tile& tiles)
      : shape(product.shape), a(product.a), b(product.b), c(product.c), tile(tiles) {}

  static constexpr std::int64_t block_depth = block_units * unit_depth<T>;

  Lines<T> rows_of_a(std::int64_t m, std::int64_t end, std::int64_t k) const {
    return {static_cast<const T*>(a.data) + m * a.row_stride + k * a.column_stride, a.row_stride,
            a.column_stride, std::max<std::int64_t>(end - m, 0), std::min(block_depth, shape.k - k)};
  }
  // Those of one panel, before `end`.
  Lines<T> columns_of_b(std::int64_t n, std::int64_t end, std::int64_t k) const {
    return {static_cast<const T*>(b.data) + n * b.column_stride + k * b.row_stride, b.column_stride,
            b.row_stride, std::clamp<std::int64_t>(end - n, 0, panel_columns),
            std::min(block_depth, shape.k - k)};
  }

  void compute_tile(std::int64_t m0, std::int64_t n0, std::byte* workspace) const;
  // panel_rows x panel_columns of it, of which some may lie beyond C.
  template <class Rows>
  void compute_panel(std::int64_t m, std::int64_t n, const Rows& rows, const float* b_panel,
                     std::int64_t units, bool first, bool last, float* partial) const;
};

template <class T>
void Multiplication<T>::compute_tile(std::int64_t m0, std::int64_t n0, std::byte* workspace) const {
  const Scratch scratch(tile, units_of<T>(shape.k), c.dtype);
  float* const a_block = reinterpret_cast<float*>(workspace);
  float* const b_block = reinterpret_cast<float*>(workspace + scratch.b_block);
  float* const partial = reinterpret_cast<float*>(workspace + scratch.partial);
  const std::int64_t m_end = std::min(shape.m, m0 + tile.m), n_end = std::min(shape.n, n0 + tile.n);
  const bool in_place = reads_in_place<T>(a, shape.k);

  for (std::int64_t k = 0; k < shape.k; k += block_depth) {
    const std::int64_t units = units_of<T>(std::min(block_depth, shape.k - k));
    const bool last = k + block_depth >= shape.k;
    for (std::int64_t block = m0; block < m_end; block += block_rows) {
      const std::int64_t block_end = std::min(m_end, block + block_rows);
      const std::int64_t m_panels = divide_up(block_end - block, panel_rows);
      // Rows whose units lie side by side are read where they lie; but a panel may reach beyond the last of them.
      const std::int64_t packed_from = block + (in_place ? (block_end - block) / panel_rows * panel_rows : 0);
      pack_panels<panel_rows>(rows_of_a(packed_from, block_end, k), a_block);
      const bool deeper = block_end == m_end;
      Prefetch<T> next_block(
          deeper ? rows_of_a(m0, last ? m0 : std::min(m_end, m0 + block_rows), k + block_depth)
                 : rows_of_a(block_end, std::min(m_end, block_end + block_rows), k),
          m_panels * divide_up(n_end - n0, panel_columns));
      for (std::int64_t n = n0; n < n_end; n += panel_columns) {
        float* const b_panel = b_block + (n - n0) * units;
        // A panel of B is packed when it is first wanted: memory brings it while the one before is multiplied.
        if (block == m0) pack_panels<panel_columns>(columns_of_b(n, n_end, k), b_panel);
        Prefetch<T> next_panel(columns_of_b(n + panel_columns, block == m0 ? n_end : 0, k), m_panels);
        for (std::int64_t m = block; m < block_end; m += panel_rows) {
          next_block.step();
          next_panel.step();
          const auto compute = [&](const auto& rows) {
            compute_panel(m, n, rows, b_panel, units, k == 0, last,
                          partial + (m - m0) * tile.n + (n - n0) * panel_rows);
          };
          if (m < packed_from)
            compute(RowsInPlace<T>{rows_of_a(m, block_end, k).from, a.row_stride});
          else
            compute(PackedRows{a_block + (m - packed_from) * units});
        }
      }
    }
  }
}

template <class T>
template <class Rows>
void Multiplication<T>::compute_panel(std::int64_t m, std::int64_t n, const Rows& rows, const float* b_panel,
                                      std::int64_t units, bool first, bool last, float* partial) const {
  const std::int64_t m_count = std::min<std::int64_t>(panel_rows, shape.m - m);
  const std::int64_t n_count = std::min<std::int64_t>(panel_columns, shape.n - n);
  const auto finish_rows = [&](const float* sums, std::int64_t stride) {
    for (std::int64_t i = 0; i < m_count; ++i) finish<T>(sums + i * stride, m + i, n, n_count, c);
  };
  if (c.dtype != DType::f32) {
    alignas(64) float sums[panel_rows * panel_columns];
    if (last && !first) std::copy_n(partial, std::size(sums), sums);
    multiply_panels<T>(rows, b_panel, units, last ? sums : partial, panel_columns, !first);
    if (last) finish_rows(sums, panel_columns);
    return;
  }
  float* const to = static_cast<float*>(c.data) + m * c.stride + n;
  const bool add = !first || c.accumulate;
  if (m_count == panel_rows && n_count == panel_columns) {
    multiply_panels<T>(rows, b_panel, units, to, c.stride, add);
  } else {
    alignas(64) float sums[panel_rows * panel_columns] = {};
    if (add)
      for (std::int64_t i = 0; i < m_count; ++i)
        std::copy_n(to + i * c.stride, n_count, sums + i * panel_columns);
    multiply_panels<T>(rows, b_panel, units, sums, panel_columns, add);
    for (std::int64_t i = 0; i < m_count; ++i)
      std::copy_n(sums + i * panel_columns, n_count, to + i * c.stride);
  }
  if (last && is_finished(c)) finish_rows(to, c.stride);
}

// The tiles of C as tasks; those that follow each other share the smaller matrix's part.
class Tiling {
 public:
  Tiling(const MatmulShape& shape, const Tile& tile)
      : tile_(tile),
        m_tiles_(divide_up(shape.m, tile.m)),
        n_tiles_(divide_up(shape.n, tile.n)),
        n_first_(shape.m > shape.n) {}
  std::int64_t tasks() const { return m_tiles_ * n_tiles_; }
  std::int64_t m(std::int64_t task) const { return (n_first_ ? task / n_tiles_ : task % m_tiles_) * tile_.m; }
  std::int64_t n(std::int64_t task) const { return (n_first_ ? task % n_tiles_ : task / m_tiles_) * tile_.n; }

 private:
  Tile tile_;
  std::int64_t m_tiles_, n_tiles_;
  bool n_first_;
};

template <class T>
Tile tile_of(const Matmul& product, int threads) {
  return tile_of(product.shape, reads_in_place<T>(product.a, product.shape.k) ? 2 : packing, threads);
}

template <class T>
void multiply(const Matmul& product, std::byte* workspace) {
  const Multiplication<T> multiplication(product, tile_of<T>(product, thread_count()));
  const Tiling tiling(product.shape, multiplication.tile);
  const std::uint64_t scratch =
      Scratch(multiplication.tile, units_of<T>(product.shape.k), product.c.dtype).bytes;
  parallel_tasks(tiling.tasks(), [&](std::int64_t task, int thread) {
    multiplication.compute_tile(tiling.m(task), tiling.n(task),
                                workspace + static_cast<std::uint64_t>(thread) * scratch);
  });
}

// The same by oneDNN: each tile into C or, when something is done to the sums, into scratch first.
class OneDnnMultiplication {
 public:
  explicit OneDnnMultiplication(const Matmul& product)
      : product_(product), tile_(tile_of(product.shape, packing, as_if_threads)) {
    // Whole tiles, and those at the edges.
    const auto& [m, n, k] = product.shape;
    const std::int64_t stride = !is_finished(product.c) ? product.c.stride : tile_.n;
    for (const bool m_edge : {false, true})
      for (const bool n_edge : {false, true}) {
        const MatmulShape extent{m_edge ? m % tile_.m : std::min(m, tile_.m),
                                 n_edge ? n % tile_.n : std::min(n, tile_.n), k};
        if (extent.m == 0 || extent.n == 0) continue;
        auto& tile = tiles_[m_edge][n_edge];
        tile.emplace(product.type, extent, product.a, product.b, stride, product.c.accumulate);
        scratchpad_ = std::max(scratchpad_, (tile->scratchpad_bytes() + 63) / 64 * 64);
      }
  }

  std::uint64_t scratch_bytes() const {
    return scratchpad_ + static_cast<std::uint64_t>(tile_.m * tile_.n) * sizeof(float);
  }

  void run(std::byte* workspace) const {
    const Tiling tiling(product_.shape, tile_);
    parallel_tasks(tiling.tasks(), [&](std::int64_t task, int thread) {
      compute_tile(tiling.m(task), tiling.n(task),
                   workspace + static_cast<std::uint64_t>(thread) * scratch_bytes());
    });
  }

 private:
  static constexpr int as_if_threads =
      8;  // the tiles decide the bits, so the threads may not decide the tiles

  void compute_tile(std::int64_t m0, std::int64_t n0, std::byte* scratch) const {
    const auto& [type, shape, a, b, c] = product_;
    const auto bytes = static_cast<std::int64_t>(size_of(type));
    const void* const a_rows = static_cast<const std::byte*>(a.data) + m0 * a.row_stride * bytes;
    const void* const b_columns = static_cast<const std::byte*>(b.data) + n0 * b.column_stride * bytes;
    const std::int64_t m_count = std::min(tile_.m, shape.m - m0), n_count = std::min(tile_.n, shape.n - n0);
    const bool m_edge = m0 > 0 && m_count<tile_.m, n_edge = n0> 0 && n_count < tile_.n;
    const OneDnnProduct& tile = *tiles_[m_edge][n_edge];
    if (!is_finished(c))
      return tile.run(a_rows, b_columns, static_cast<float*>(c.data) + m0 * c.stride + n0, scratch);
    float* const sums = reinterpret_cast<float*>(scratch + scratchpad_);
    tile.run(a_rows, b_columns, sums, scratch);
    for (std::int64_t i = 0; i < m_count; ++i)
      type == DType::bf16 ? finish<bf16>(sums + i * tile_.n, m0 + i, n0, n_count, c)
                          : finish<float>(sums + i * tile_.n, m0 + i, n0, n_count, c);
  }

  Matmul product_;
  Tile tile_;
  std::optional<OneDnnProduct> tiles_[2][2];  // [m_edge][n_edge]
  std::uint64_t scratchpad_ = 0;
};

}  // namespace

std::uint64_t matmul_workspace(const Matmul& product, int threads, MatmulEngine engine) {
  const auto per_thread = [&] {
    if (engine == MatmulEngine::own) {
      const auto bytes_of = [&]<class T>(T) {
        return Scratch(tile_of<T>(product, threads), units_of<T>(product.shape.k), product.c.dtype).bytes;
      };
      return product.type == DType::bf16 ? bytes_of(bf16{}) : bytes_of(0.0f);
    }
    Matmul either = product;
    either.c.accumulate = false;
    const std::uint64_t fresh = OneDnnMultiplication(either).scratch_bytes();
    if (is_finished(either.c)) return fresh;
    either.c.accumulate = true;
    return std::max(fresh, OneDnnMultiplication(either).scratch_bytes());
  };
  return static_cast<std::uint64_t>(threads) * per_thread();
}

void matmul(const Matmul& product, std::byte* workspace, MatmulEngine engine) {
  const MatmulOutput& c = product.c;
  check(!is_finished(c) || (c.dtype == product.type && !c.accumulate), "only plain f32 sums accumulate");
  if (engine == MatmulEngine::onednn)
    OneDnnMultiplication(product).run(workspace);
  else if (product.type == DType::bf16)
    multiply<bf16>(product, workspace);
  else
    multiply<float>(product, workspace);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
