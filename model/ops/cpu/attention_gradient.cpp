// Attention backward: a block of keys meets the queries that may see it, block by block; probabilities are
// computed again from lse. Gradients of keys and values gather in the block, those of queries in the
// workspace.
//
// A task is a few query heads of one key and value head, or a range of the queries of one; where several
// tasks share keys, each leaves a partial sum, and these are added in the order of the tasks.
#include <cmath>

#include "core/parallel.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/cpu/attention_setup.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

constexpr std::int64_t block_keys = 64;
constexpr std::int64_t score_row = row_stride(block_keys);

// How the work is cut, by the shapes alone.
struct Cut {
  std::int64_t heads;    // query heads of a task
  std::int64_t queries;  // queries of a task
  std::int64_t head_parts, query_parts;

  Cut(const AttentionShape& shape, std::int64_t query_count) {
    const std::int64_t all = shape.batch * shape.heads, group = shape.heads / shape.kv_heads;
    heads = std::clamp<std::int64_t>(all / wanted_tasks, 1, group);
    queries = queries_per_task(all, query_count);
    head_parts = divide_up(group, heads);
    query_parts = divide_up(query_count, queries);
  }
  // Tasks that share a head of keys and values.
  std::int64_t parts() const { return head_parts * query_parts; }
};

// Floats of a task's gradients of keys and values for one block of keys: first the keys', then the values'.
std::int64_t block_floats(std::int64_t head_size) { return 2 * block_keys * row_stride(head_size); }

template <class Unit>
struct Workspace {
  // Rows of queries and of d o, with the columns as depth and with the rows as depth (the same for f32).
  Unit *q, *d_o, *q_depth, *d_o_depth;
  Unit *keys_transposed, *values_transposed, *keys_depth;  // of a block
  float *scores, *slopes;                                  // P and dS of a block, in f32 also operands
  Unit *p_across, *slopes_across, *slopes_along;
  float *dq, *dkv, *lse, *delta;  // lse in units of ln 2
  KeyRange* ranges;
  std::uint32_t* words;
  std::uint64_t bytes;

  Workspace(std::byte* base, std::int64_t head_size, std::int64_t key_count, const Cut& cut) {
    Pieces pieces(base);
    const std::int64_t rows = round_up(cut.queries, block_rows), stride = row_stride(head_size);
    q = pieces.take<Unit>(rows * along_stride(head_size));
    d_o = pieces.take<Unit>(rows * along_stride(head_size));
    keys_transposed = pieces.take<Unit>(block_keys * transposed_depth<Unit>(head_size));
    values_transposed = pieces.take<Unit>(block_keys * transposed_depth<Unit>(head_size));
    keys_depth = pieces.take<Unit>(block_keys / unit_depth<Unit> * stride);
    scores = pieces.take<float>(block_rows * score_row);
    slopes = pieces.take<float>(block_rows * score_row);
    if constexpr (std::is_same_v<Unit, float>) {
      q_depth = q;
      d_o_depth = d_o;
      p_across = scores;
      slopes_across = slopes_along = slopes;
    } else {
      q_depth = pieces.take<Unit>(rows / unit_depth<Unit> * stride);
      d_o_depth = pieces.take<Unit>(rows / unit_depth<Unit> * stride);
      p_across = pieces.take<Unit>(block_rows / unit_depth<Unit> * score_row);
      slopes_across = pieces.take<Unit>(block_rows / unit_depth<Unit> * score_row);
      slopes_along = pieces.take<Unit>(block_rows * score_row);
    }
    dq = pieces.take<float>(rows * stride);
    // Where a task sums over several heads it keeps all blocks of keys until the last head is done.
    dkv =
        pieces.take<float>((cut.heads > 1 ? divide_up(key_count, block_keys) : 1) * block_floats(head_size));
    lse = pieces.take<float>(rows);
    delta = pieces.take<float>(rows);
    ranges = pieces.take<KeyRange>(rows);
    words = pieces.take<std::uint32_t>(2 * ProbabilityDropout::words(block_keys));
    bytes = pieces.bytes();
  }

  static std::int64_t along_stride(std::int64_t head_size) {
    return row_stride(std::is_same_v<Unit, float> ? head_size : divide_up(head_size, unit_depth<Unit>));
  }
};

template <class T>
struct Tensors {
  const T *d_o, *q, *k, *v, *o;
  const float* lse;
  T *dq, *dk, *dv;
  std::int64_t q_row, kv_row, o_row, dq_row, dkv_row;
  std::int64_t queries, keys;
};

template <class T>
void store_scaled(const float* from, float factor, std::int64_t columns, T* to) {
  for (std::int64_t c = 0; c < columns; c += lanes)
    store_columns(to + c, load(from + c) * factor, columns - c);
}

// Gradients of keys and values from a task's sums, or from the partial sums of several tasks, `apart` floats
// from one to the next.
template <class T>
void write_keys(const float* sums, std::int64_t parts, std::int64_t apart, std::int64_t rows,
                std::int64_t head_size, float scale, T* dk, T* dv, std::int64_t row) {
  const std::int64_t stride = row_stride(head_size);
  for (std::int64_t r = 0; r < 2 * block_keys; ++r) {
    const std::int64_t key = r % block_keys;
    const bool is_key = r < block_keys;
    if (key >= rows) continue;
    for (std::int64_t c = 0; c < head_size; c += lanes) {
      Floats total = load(sums + r * stride + c);
      for (std::int64_t p = 1; p < parts; ++p) total += load(sums + p * apart + r * stride + c);
      store_columns((is_key ? dk : dv) + key * row + c, total * (is_key ? scale : 1), head_size - c);
    }
  }
}

template <class T>
class HeadGradient {
  using Unit = UnitOf<T>;

 public:
  HeadGradient(const AttentionShape& shape, const Mask& mask, const ProbabilityDropout& dropout,
               const Workspace<Unit>& work)
      : shape_(shape), mask_(mask), dropout_(dropout), work_(work) {}

  // Packs the queries [first, first + count) of a head.
  void begin(const Tensors<T>& t, std::int64_t sample, std::int64_t head, std::int64_t first,
             std::int64_t count) {
    sample_ = sample;
    head_ = head;
    first_ = first;
    count_ = count;
    const std::int64_t rows = round_up(count, block_rows), row = sample * t.queries + first;
    const T* q = t.q + row * t.q_row + head * size();
    const T* d_o = t.d_o + row * t.o_row + head * size();
    const T* o = t.o + row * t.o_row + head * size();
    const float* lse = lse_ = t.lse + (sample * shape_.heads + head) * t.queries + first;
    pack_rows(q, t.q_row, count, rows, size(), work_.q, along());
    pack_rows(d_o, t.o_row, count, rows, size(), work_.d_o, along());
    if constexpr (!std::is_same_v<Unit, float>) {
      pack_depth(q, t.q_row, count, rows, size(), work_.q_depth, stride());
      pack_depth(d_o, t.o_row, count, rows, size(), work_.d_o_depth, stride());
    }
    std::fill_n(work_.dq, rows * stride(), 0.0f);
    some_large_ = false;
    for (std::int64_t i = 0; i < rows; ++i) {
      Floats products{};
      if (i < count)
        for (std::int64_t c = 0; c < size(); c += lanes)
          products = fma(load_columns(d_o + i * t.o_row + c, size() - c),
                         load_columns(o + i * t.o_row + c, size() - c), products);
      work_.delta[i] = sum(products);
      work_.lse[i] = i < count && !is_large(lse[i]) ? lse[i] * log2_e : 0;
      some_large_ = some_large_ || (i < count && is_large(lse[i]));
      work_.ranges[i] = i < count ? mask_.keys_of(sample, first + i) : KeyRange{};
    }
  }

  // Adds what the head gives to dk and dv of the keys [key, key + count), and to dq.
  void add_keys(const T* k, const T* v, std::int64_t row, std::int64_t key, std::int64_t count, float* dk,
                float* dv) {
    const KeyRange *all = work_.ranges, *end = all + count_;
    const auto from = std::partition_point(all, end, [&](KeyRange range) { return range.end <= key; });
    const auto to =
        std::partition_point(from, end, [&](KeyRange range) { return range.begin < key + count; });
    if (from == to) return;
    pack_transposed(k, row, count, size(), work_.keys_transposed);
    pack_transposed(v, row, count, size(), work_.values_transposed);
    pack_depth(k, row, count, round_up(count, panel), size(), work_.keys_depth, stride());
    for (std::int64_t i = (from - all) / tile_rows * tile_rows; i < to - all; i += block_rows) {
      const std::int64_t rows = round_up(std::min(block_rows, to - all - i), tile_rows);
      const std::int64_t seen = work_.ranges[std::min(i + rows, count_) - 1].end - key;
      add_block(i, rows, key, round_up(std::min(count, seen), panel), dk, dv);
    }
  }

  void write_queries(const Tensors<T>& t) const {
    T* dq = t.dq + (sample_ * t.queries + first_) * t.dq_row + head_ * size();
    for (std::int64_t i = 0; i < count_; ++i)
      store_scaled(work_.dq + i * stride(), shape_.scale(), size(), dq + i * t.dq_row);
  }

 private:
  std::int64_t size() const { return shape_.head_size; }
  std::int64_t stride() const { return row_stride(size()); }
  std::int64_t along() const { return Workspace<Unit>::along_stride(size()); }

  void add_block(std::int64_t i, std::int64_t rows, std::int64_t key, std::int64_t columns, float* dk,
                 float* dv) {
    const std::int64_t depth = divide_up(size(), unit_depth<Unit>), row_depth = rows / unit_depth<Unit>;
    const std::int64_t transposed_panel = transposed_depth<Unit>(size());
    for (std::int64_t j = 0; j < columns; j += panel) {
      multiply<false, false>(Left<Unit>{work_.q + i * along(), along(), 1},
                             Right<Unit>{work_.keys_transposed + j * transposed_panel, panel}, rows, panel,
                             depth, work_.scores + j, score_row);
      multiply<false, false>(Left<Unit>{work_.d_o + i * along(), along(), 1},
                             Right<Unit>{work_.values_transposed + j * transposed_panel, panel}, rows, panel,
                             depth, work_.slopes + j, score_row);
    }
    if (some_large_) subtract_large_lse(i, rows, columns);
    for (std::int64_t r = 0; r < rows; r += 2) {
      const KeyRange a = work_.ranges[i + r], b = work_.ranges[i + r + 1];
      const bool whole = std::max(a.begin, b.begin) <= key && std::min(a.end, b.end) >= key + columns;
      if (dropout_.active())
        slopes_of_rows<true, true>(i, r, key, columns);
      else if (whole)
        slopes_of_rows<false, false>(i, r, key, columns);
      else
        slopes_of_rows<true, false>(i, r, key, columns);
    }
    const std::int64_t offset = i / unit_depth<Unit> * stride();
    multiply<true, true>(Left<Unit>{work_.p_across, 1, score_row},
                         Right<Unit>{work_.d_o_depth + offset, stride()}, columns, size(), row_depth, dv,
                         stride());
    multiply<true, true>(Left<Unit>{work_.slopes_across, 1, score_row},
                         Right<Unit>{work_.q_depth + offset, stride()}, columns, size(), row_depth, dk,
                         stride());
    multiply<true, false>(Left<Unit>{work_.slopes_along, score_row, 1},
                          Right<Unit>{work_.keys_depth, stride()}, rows, size(), columns / unit_depth<Unit>,
                          work_.dq + i * stride(), stride());
  }

  static bool is_large(float lse) { return std::abs(lse) > large_score; }

  // Of the rows whose lse is large: leaves scores that are already what they are to it, rounded as it was. The work's own
  // lse of these rows is 0.
  [[gnu::noinline]] void subtract_large_lse(std::int64_t i, std::int64_t rows, std::int64_t columns) const {
    const float scale = shape_.scale();
    for (std::int64_t r = 0; r < rows && i + r < count_; ++r) {
      const float lse = lse_[i + r];
      float* scores = work_.scores + r * score_row;
      if (!is_large(lse)) continue;
      for (std::int64_t j = 0; j < columns; j += lanes)
        store(scores + j, (load(scores + j) * scale - lse) * (1 / scale));
    }
  }

  // P and dS of the rows i + r and i + r + 1 from their scores and from d o . v.
  template <bool masked, bool drops>
  void slopes_of_rows(std::int64_t i, std::int64_t r, std::int64_t key, std::int64_t columns) {
    const Floats scale = broadcast(shape_.scale() * log2_e);
    const std::uint32_t* words[2] = {};
    if constexpr (drops)
      for (int row = 0; row < 2; ++row)
        words[row] = dropout_.draw(sample_, head_, first_ + i + r + row, key, columns,
                                   work_.words + row * ProbabilityDropout::words(block_keys));
    for (std::int64_t j = 0; j < columns; j += panel) {
      Floats p[2][2], slopes[2][2];
#pragma GCC unroll 2
      for (int row = 0; row < 2; ++row) {
        const std::int64_t at = (r + row) * score_row + j, query = i + r + row;
        const Floats lse = broadcast(work_.lse[query]), delta = broadcast(work_.delta[query]);
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          Floats probability = exp2_of_score(fma(load(work_.scores + at + v * lanes), scale, -lse));
          if constexpr (masked)
            probability = select(inside(work_.ranges[query], key + j + v * lanes), probability, Floats{});
          Floats dp = load(work_.slopes + at + v * lanes);
          p[row][v] = probability;
          if constexpr (drops) {
            const Floats factors = dropout_.factors(words[row] + j + v * lanes);
            p[row][v] *= factors;
            dp *= factors;
          }
          slopes[row][v] = probability * (dp - delta);
        }
      }
      if constexpr (std::is_same_v<Unit, float>) {
        for (int row = 0; row < 2; ++row) {
          store_along(work_.p_across + (r + row) * score_row + j, p[row][0], p[row][1]);
          store_along(work_.slopes_along + (r + row) * score_row + j, slopes[row][0], slopes[row][1]);
        }
      } else {
        const std::int64_t across = r / 2 * score_row + j;
        for (int v = 0; v < 2; ++v) {
          store_across(work_.p_across + across + v * lanes, p[0][v], p[1][v]);
          store_across(work_.slopes_across + across + v * lanes, slopes[0][v], slopes[1][v]);
        }
        for (int row = 0; row < 2; ++row)
          store_along(work_.slopes_along + (r + row) * score_row + j / 2, slopes[row][0], slopes[row][1]);
      }
    }
  }

  const AttentionShape& shape_;
  const Mask& mask_;
  const ProbabilityDropout& dropout_;
  const Workspace<Unit>& work_;
  std::int64_t sample_ = 0, head_ = 0, first_ = 0, count_ = 0;
  const float* lse_ = nullptr;  // of the queries
  bool some_large_ = false;
};

// Zeroes the columns of a source's gradient that hold no head.
template <class T>
void clear_other_columns(T* rows, std::int64_t count, std::int64_t columns, std::array<KeyRange, 3> heads) {
  std::ranges::sort(heads, {}, &KeyRange::begin);
  parallel_ranges(count, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::int64_t at = 0;
      for (const KeyRange& head : heads) {
        std::fill(rows + r * columns + at, rows + r * columns + std::max(at, head.begin), T{});
        at = std::max(at, head.end);
      }
      std::fill(rows + r * columns + at, rows + (r + 1) * columns, T{});
    }
  });
}

template <class T>
void gradient_of(const AttentionGradient& op, const KernelArgs& args) {
  using Unit = UnitOf<T>;
  const AttentionShape& shape = op.shape();
  const TensorView &q = args.inputs[1], &kv = args.inputs[2], &dq = args.outputs[0],
                   &dkv = args.outputs[op.same_source() ? 0 : 1];
  const std::int64_t size = shape.head_size, group = shape.heads / shape.kv_heads;
  const Tensors<T> t{args.inputs[0].as<const T>(),
                     q.as<const T>() + shape.q_column,
                     kv.as<const T>() + shape.k_column,
                     kv.as<const T>() + shape.v_column,
                     args.inputs[3].as<const T>(),
                     args.inputs[4].as<const float>(),
                     dq.as<T>() + shape.q_column,
                     dkv.as<T>() + shape.k_column,
                     dkv.as<T>() + shape.v_column,
                     q.columns(),
                     kv.columns(),
                     shape.heads * size,
                     dq.columns(),
                     dkv.columns(),
                     q.rows() / shape.batch,
                     kv.rows() / shape.batch};

  const KeyRange q_columns{shape.q_column, shape.q_column + shape.heads * size},
      k_columns{shape.k_column, shape.k_column + shape.kv_heads * size},
      v_columns{shape.v_column, shape.v_column + shape.kv_heads * size};
  if (op.same_source()) {
    clear_other_columns(dq.as<T>(), dq.rows(), dq.columns(), {q_columns, k_columns, v_columns});
  } else {
    clear_other_columns(dq.as<T>(), dq.rows(), dq.columns(), {q_columns, q_columns, q_columns});
    clear_other_columns(dkv.as<T>(), dkv.rows(), dkv.columns(), {k_columns, v_columns, v_columns});
  }

  const Mask mask(shape, t.queries, t.keys, args.inputs[5], args.inputs[6]);
  const ProbabilityDropout dropout(shape, t.queries, t.keys, args);
  const Cut cut(shape, t.queries);
  const std::int64_t key_blocks = divide_up(t.keys, block_keys), floats = block_floats(size);
  const std::uint64_t thread_bytes = Workspace<Unit>(nullptr, size, t.keys, cut).bytes;
  float* partial = reinterpret_cast<float*>(args.workspace + thread_bytes * thread_count());

  parallel_tasks(shape.batch * shape.kv_heads * cut.parts(), [&](std::int64_t task, int thread) {
    const std::int64_t part = task % cut.parts(), kv_head = task / cut.parts() % shape.kv_heads;
    const std::int64_t sample = task / cut.parts() / shape.kv_heads;
    const std::int64_t first_head = part / cut.query_parts * cut.heads,
                       last_head = std::min(group, first_head + cut.heads);
    const std::int64_t first = part % cut.query_parts * cut.queries;
    const Workspace<Unit> work(args.workspace + thread_bytes * static_cast<std::uint64_t>(thread), size,
                               t.keys, cut);
    HeadGradient<T> gradient(shape, mask, dropout, work);
    for (std::int64_t head = first_head; head < last_head; ++head) {
      gradient.begin(t, sample, kv_head * group + head, first, std::min(cut.queries, t.queries - first));
      for (std::int64_t block = 0; block < key_blocks; ++block) {
        const std::int64_t key = block * block_keys, count = std::min(block_keys, t.keys - key);
        const std::int64_t row = sample * t.keys + key, column = kv_head * size;
        float* sums = cut.parts() > 1 ? partial + (task * key_blocks + block) * floats
                                      : work.dkv + (cut.heads > 1 ? block * floats : 0);
        if (head == first_head) std::fill_n(sums, floats, 0.0f);
        gradient.add_keys(t.k + row * t.kv_row + column, t.v + row * t.kv_row + column, t.kv_row, key, count,
                          sums, sums + floats / 2);
        if (cut.parts() == 1 && head + 1 == last_head)
          write_keys(sums, 1, 0, count, size, shape.scale(), t.dk + row * t.dkv_row + column,
                     t.dv + row * t.dkv_row + column, t.dkv_row);
      }
      gradient.write_queries(t);
    }
  });

  if (cut.parts() == 1) return;
  parallel_tasks(shape.batch * shape.kv_heads * key_blocks, [&](std::int64_t task, int) {
    const std::int64_t block = task % key_blocks, shared = task / key_blocks;
    const std::int64_t key = block * block_keys, row = shared / shape.kv_heads * t.keys + key;
    const std::int64_t column = shared % shape.kv_heads * size;
    write_keys(partial + (shared * cut.parts() * key_blocks + block) * floats, cut.parts(),
               key_blocks * floats, std::min(block_keys, t.keys - key), size, shape.scale(),
               t.dk + row * t.dkv_row + column, t.dv + row * t.dkv_row + column, t.dkv_row);
  });
}

}  // namespace

void attention_gradient(const Op& op, const KernelArgs& args) {
  const auto& gradient = static_cast<const AttentionGradient&>(op);
  if (args.inputs[1].dtype() == DType::bf16)
    gradient_of<bf16>(gradient, args);
  else
    gradient_of<float>(gradient, args);
}

std::uint64_t attention_gradient_workspace(const Op& op, Types inputs, Types, int threads) {
  const AttentionShape& shape = static_cast<const AttentionGradient&>(op).shape();
  const std::int64_t keys = inputs[2].rows() / shape.batch;
  const Cut cut(shape, inputs[1].rows() / shape.batch);
  const auto bytes_of = [&]<class T>(T) {
    return Workspace<UnitOf<T>>(nullptr, shape.head_size, keys, cut).bytes;
  };
  const std::uint64_t one = inputs[1].dtype == DType::bf16 ? bytes_of(bf16{}) : bytes_of(0.0f);
  std::int64_t partial = 0;
  if (cut.parts() > 1)
    partial = shape.batch * shape.kv_heads * cut.parts() * divide_up(keys, block_keys) *
              block_floats(shape.head_size) * static_cast<std::int64_t>(sizeof(float));
  return one * static_cast<std::uint64_t>(threads) + static_cast<std::uint64_t>(partial);
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
