// Attention on every device beyond the op table: the lengths, head sizes and masks that training meets.
#include "model/ops/attention.hpp"

#include <cmath>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/ops/kernel.hpp"
#include "tests/model/run_op.hpp"
#include "tests/reference/attention.hpp"

namespace muster::testing {
namespace {

using reference::AttentionProblem;
using reference::Segments;
using reference::Tensors;
using reference::Values;

struct Case {
  AttentionShape shape;
  std::int64_t queries = 0, keys = 0;
  Segments segments = {};
  double scale = 1;  // of the inputs

  Case documents(const Values& starts) && {
    segments = {starts, starts};
    return std::move(*this);
  }
  Case in_segments(Segments both) && {
    segments = std::move(both);
    return std::move(*this);
  }
};

Case packed(std::int64_t batch, int heads, int kv_heads, int head_size, std::int64_t length,
            bool causal = true, float dropout = 0) {
  return {AttentionShape::packed(batch, heads, kv_heads, head_size, causal, dropout), length, length};
}

// Queries and keys in sources of their own, with columns before, between and behind the heads.
Case crossed(std::int64_t batch, int heads, int kv_heads, int head_size, std::int64_t queries,
             std::int64_t keys, bool causal) {
  Case c = packed(batch, heads, kv_heads, head_size, queries, causal);
  c.keys = keys;
  c.shape.q_column = 3;
  c.shape.k_column = 5;
  c.shape.v_column = 5 + kv_heads * head_size + 2;
  return c;
}

// The tensors of a case, run through the kernels.
class Trial {
 public:
  Trial(TestDevice& device, Case c, DType type) : device_(&device), case_(std::move(c)), type_(type) {
    const AttentionShape& s = case_.shape;
    same_source_ = s.q_column == 0;
    const std::int64_t q_columns =
        same_source_ ? (s.heads + 2 * s.kv_heads) * s.head_size : s.q_column + s.heads * s.head_size + 1;
    const std::int64_t kv_columns = same_source_ ? q_columns : s.v_column + s.kv_heads * s.head_size + 4;
    q_ = random({{s.batch * case_.queries, q_columns}, type}, 1);
    kv_ = same_source_ ? q_ : random({{s.batch * case_.keys, kv_columns}, type}, 2);
    d_o_ = random({{s.batch * case_.queries, s.heads * s.head_size}, type}, 3);
    const auto starts_of = [](const Values& starts) {
      return TestTensor({{static_cast<std::int64_t>(starts.size())}, DType::i32}, starts);
    };
    if (!case_.segments.queries.empty()) {
      query_starts_ = starts_of(case_.segments.queries);
      key_starts_ = starts_of(case_.segments.keys);
    }
    options_.scalars = {.seed = 0x123456789abcdefull, .step = 7, .first_slot = 3};
    options_.random_key = 0xc0ffee;
  }

  RunOptions& options() { return options_; }
  TestTensor& q() { return q_; }
  TestTensor& kv() { return kv_; }
  TestTensor& d_o() { return d_o_; }
  const TestTensor& o() const { return forward_[0]; }
  const TestTensor& lse() const { return forward_[1]; }
  const std::vector<TestTensor>& gradients() const { return gradients_; }

  void run() {
    std::vector<TestTensor> inputs = {q_, kv_, query_starts_, key_starts_};
    forward_ = run_op(*device_, Attention(case_.shape), inputs, options_);
    inputs = {d_o_, q_, kv_, forward_[0], forward_[1], query_starts_, key_starts_};
    gradients_ = run_op(*device_, AttentionGradient(case_.shape, same_source_), inputs, options_);
  }

  void expect_agreement() {
    run();
    SCOPED_TRACE(fmt::format("{} B {} H {}:{} D {} T {} x {} causal {} dropout {}", name_of(type_),
                             case_.shape.batch, case_.shape.heads, case_.shape.kv_heads,
                             case_.shape.head_size, case_.queries, case_.keys, case_.shape.causal,
                             case_.shape.dropout));
    const AttentionProblem problem(
        case_.shape, static_cast<std::size_t>(case_.queries), static_cast<std::size_t>(case_.keys),
        static_cast<std::size_t>(q_.type().columns()), static_cast<std::size_t>(kv_.type().columns()),
        case_.segments, options_.scalars, options_.random_key);
    const Values q = q_.values(), kv = kv_.values();
    const Tensors forward = problem.forward(q, kv);
    Tensors gradient = problem.gradient(d_o_.values(), q, kv);
    if (same_source_)
      for (std::size_t i = 0; i < q.size(); ++i) gradient[0][i] += gradient[1][i];
    // Scores are sums of D products of O(scale^2), whose rounding errors the exponential passes on; outputs
    // are sums over the keys, gradients of keys over the queries and the heads of a group.
    const double f32 = (static_cast<double>(case_.shape.head_size) * case_.scale * case_.scale +
                        static_cast<double>(case_.keys + case_.queries)) *
                       0x1p-24;
    expect_near("o", o(), forward[0], f32);
    expect_near("lse", lse(), forward[1], f32);
    expect_near("d q_source", gradients_[0], gradient[0], 2 * f32);
    if (!same_source_) expect_near("d kv_source", gradients_[1], gradient[1], 2 * f32);
  }

 private:
  TestTensor random(TensorType type, std::uint64_t seed) const {
    const std::int64_t count = type.elements();
    return {std::move(type), reference::random_values(count, seed, case_.scale)};
  }

  // f32: each element, relative to the largest. bf16: the norm of the error; its unit roundoff is 2^-9, and
  // at most four roundings add to an output: of P or dS, of o in delta, and of the output itself.
  static void expect_near(const char* name, const TestTensor& got, const Values& want, double f32) {
    const Values values = got.values();
    ASSERT_EQ(values.size(), want.size());
    double largest = 0, worst = 0, error = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (std::isinf(want[i])) {
        EXPECT_EQ(values[i], want[i]) << name;
        continue;
      }
      const double difference = std::abs(values[i] - want[i]);
      ASSERT_FALSE(std::isnan(difference)) << name << ", element " << i;
      worst = std::max(worst, difference);
      error += difference * difference;
      norm += want[i] * want[i];
      largest = std::max(largest, std::abs(want[i]));
    }
    if (got.type().dtype == DType::f32) {
      EXPECT_LE(worst, f32 * largest) << name << ", of " << largest;
    } else {
      EXPECT_LE(std::sqrt(error), 4 * 0x1p-9 * std::sqrt(norm)) << name;
    }
  }

  TestDevice* device_;
  Case case_;
  DType type_;
  bool same_source_ = true;
  TestTensor q_, kv_, d_o_, query_starts_, key_starts_;
  RunOptions options_;
  std::vector<TestTensor> forward_, gradients_;
};

class AttentionOn : public ::testing::TestWithParam<TestBackend> {
 protected:
  void SetUp() override {
    if (!has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
    device_.emplace(GetParam());
  }
  TestDevice& device() { return *device_; }
  void expect_agreement(const Case& c) {
    for (const DType type : {DType::f32, DType::bf16}) Trial(device(), c, type).expect_agreement();
  }

 private:
  std::optional<TestDevice> device_;
};

TEST_P(AttentionOn, agrees_with_double_precision_at_every_head_size) {
  for (const int size : {1, 7, 20, 64, 80, 96, 128, 256}) expect_agreement(packed(1, 2, 1, size, 70));
}

TEST_P(AttentionOn, agrees_with_double_precision_at_awkward_lengths) {
  for (const std::int64_t length : {1, 2, 31, 33, 65, 257}) {
    expect_agreement(packed(2, 2, 2, 24, length));
    expect_agreement(packed(1, 3, 1, 16, length, false));
  }
  // Several blocks of keys meet a running maximum; a GPU's blocks are smaller.
  if (GetParam().kind == DeviceKind::cpu) expect_agreement(packed(1, 1, 1, 8, 600));
}

// The largest score takes all, and no probability may exceed 1 by what f32 rounds off a score of 1e12.
TEST_P(AttentionOn, keeps_its_gradient_where_scores_are_huge) {
  const Case c = packed(2, 3, 1, 16, 300);
  const std::int64_t columns = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_size;
  constexpr double huge = 1e6;
  Trial trial(device(), c, DType::f32);
  Values qkv = trial.q().values();
  for (std::size_t i = 0; i < qkv.size(); ++i)
    if (static_cast<std::int64_t>(i) % columns < c.shape.v_column) qkv[i] *= huge;
  trial.q() = trial.kv() = TestTensor({{c.shape.batch * c.queries, columns}, DType::f32}, qkv);
  trial.run();
  for (const double slope : trial.gradients()[0].values()) ASSERT_LE(std::abs(slope), huge);

  const AttentionProblem problem(c.shape, c.queries, c.keys, columns, columns);
  const Tensors forward = problem.forward(qkv, qkv);
  const Values o = trial.o().values(), lse = trial.lse().values();
  for (std::size_t i = 0; i < o.size(); ++i) ASSERT_NEAR(o[i], forward[0][i], 1e-5);
  for (std::size_t i = 0; i < lse.size(); ++i) ASSERT_NEAR(lse[i] / forward[1][i], 1, 1e-5);
  if (GetParam().kind != DeviceKind::cpu) return;  // rounds lse twice, so that a row's sum may be below 1
  const Tensors gradient = problem.gradient(trial.d_o().values(), qkv, qkv);
  const Values slopes = trial.gradients()[0].values();
  for (std::size_t i = 0; i < slopes.size(); ++i) {
    if (static_cast<std::int64_t>(i) % columns < c.shape.v_column) continue;
    ASSERT_NEAR(slopes[i], gradient[1][i], 1e-3);
  }
}

TEST_P(AttentionOn, serves_groups_of_query_heads) {
  expect_agreement(packed(1, 14, 2, 64, 129));
  expect_agreement(packed(2, 12, 2, 32, 65));
  expect_agreement(packed(3, 21, 3, 16, 40));  // groups too many for a task a head: uneven shares of seven
}

TEST_P(AttentionOn, lets_queries_meet_other_keys) {
  expect_agreement(crossed(2, 4, 2, 16, 70, 37, false));
  expect_agreement(crossed(2, 4, 4, 20, 37, 300, false));
  expect_agreement(crossed(1, 2, 1, 16, 33, 90, true));
  // Some queries see no key of a whole block of keys. (A GPU's blocks are smaller.)
  if (GetParam().kind == DeviceKind::cpu) expect_agreement(crossed(2, 6, 2, 32, 140, 567, true));
}

// Between two segments with keys one has none, and rows at both ends are in no segment.
TEST_P(AttentionOn, gives_zero_to_queries_that_see_no_key) {
  const Case c = crossed(1, 2, 1, 16, 90, 33, true).in_segments({{2, 40, 70, 80, 80}, {0, 20, 20, 33, 33}});
  expect_agreement(c);
  for (const DType type : {DType::f32, DType::bf16}) {
    Trial run(device(), c, type);
    run.run();
    const Values o = run.o().values(), lse = run.lse().values(), dq = run.gradients()[0].values();
    for (std::size_t query = 0; query < 90; ++query) {
      const bool blind = query < 2 || (query >= 40 && query < 70) || query >= 80;
      EXPECT_EQ(lse[query] == -std::numeric_limits<double>::infinity(), blind) << query;
      const auto is_zero = [&](const Values& values) {
        const std::size_t columns = values.size() / 90;
        return std::all_of(values.begin() + static_cast<std::ptrdiff_t>(query * columns),
                           values.begin() + static_cast<std::ptrdiff_t>((query + 1) * columns),
                           [](double x) { return x == 0; });
      };
      EXPECT_EQ(is_zero(o), blind) << query;
      if (blind) {
        EXPECT_TRUE(is_zero(dq)) << query;
      }
    }
  }
}

// Of packed sequences without padding, as an encoder-decoder has them.
TEST_P(AttentionOn, lets_the_queries_of_a_segment_meet_its_keys_alone) {
  for (const bool causal : {false, true}) {
    // One query of many keys, many of one, long ones beside short ones, empty ones on either side.
    expect_agreement(
        crossed(1, 4, 2, 16, 140, 300, causal)
            .in_segments({{0, 1, 35, 35, 99, 100, 140, 140}, {0, 200, 201, 205, 205, 260, 300, 300}}));
    expect_agreement(crossed(1, 14, 2, 64, 65, 33, causal).in_segments({{0, 3, 40, 65}, {0, 20, 21, 33}}));
    expect_agreement(
        crossed(2, 2, 2, 20, 50, 40, causal).in_segments({{0, 30, 50, 60, 100}, {0, 25, 40, 45, 70}}));
  }
}

// A segment gives what it gives alone, whatever lies beside it.
TEST_P(AttentionOn, packs_sequences_as_if_each_were_alone) {
  constexpr std::int64_t queries[] = {1, 37, 5, 20}, keys[] = {90, 3, 64, 33};
  Case all = crossed(1, 2, 1, 16, 63, 190, false);
  Segments& segments = all.segments;
  for (Values* starts : {&segments.queries, &segments.keys}) starts->push_back(0);
  for (int s = 0; s < 4; ++s) {
    segments.queries.push_back(segments.queries.back() + static_cast<double>(queries[s]));
    segments.keys.push_back(segments.keys.back() + static_cast<double>(keys[s]));
  }
  Trial packed(device(), all, DType::f32);
  packed.run();
  for (std::size_t s = 0; s < 4; ++s) {
    Trial alone(device(), crossed(1, 2, 1, 16, queries[s], keys[s], false), DType::f32);
    const auto part = [](const Values& rows, std::int64_t columns, double first, std::int64_t count) {
      const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(first) * columns;
      return Values(begin, begin + count * columns);
    };
    const auto of_queries = [&](const TestTensor& t) {
      return part(t.values(), t.type().columns(), segments.queries[s], queries[s]);
    };
    const auto of_keys = [&](const TestTensor& t) {
      return part(t.values(), t.type().columns(), segments.keys[s], keys[s]);
    };
    alone.q().fill(of_queries(packed.q()));
    alone.kv().fill(of_keys(packed.kv()));
    alone.d_o().fill(of_queries(packed.d_o()));
    alone.run();
    const auto expect_equal = [&](const Values& a, const Values& b) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5) << "segment " << s;
    };
    expect_equal(alone.o().values(), of_queries(packed.o()));
    expect_equal(alone.gradients()[0].values(), of_queries(packed.gradients()[0]));
    expect_equal(alone.gradients()[1].values(), of_keys(packed.gradients()[1]));
  }
}

TEST_P(AttentionOn, keeps_documents_apart) {
  for (const bool causal : {true, false}) {
    expect_agreement(
        packed(2, 3, 1, 16, 150, causal).documents({0, 1, 2, 90, 140, 150, 182, 290, 300, 300, 300}));
    if (GetParam().kind != DeviceKind::cpu) continue;
    expect_agreement(
        packed(2, 4, 2, 20, 387, causal).documents({0, 3, 100, 270, 300, 387, 400, 700, 774, 774}));
  }
}

TEST_P(AttentionOn, never_touches_blocks_of_keys_outside_of_a_document) {
  // What lies in another document would show as NaN if it were multiplied at all, even with zero.
  const Case c = packed(1, 2, 2, 16, 384, false).documents({0, 128, 256, 384});
  for (const DType type : {DType::f32, DType::bf16}) {
    Trial run(device(), c, type);
    Values qkv = run.q().values();
    const std::size_t third = qkv.size() / 3;
    std::fill_n(qkv.begin() + static_cast<std::ptrdiff_t>(third), third, std::nan(""));
    run.q().fill(qkv);
    run.kv().fill(qkv);
    run.run();
    const Values o = run.o().values(), gradient = run.gradients()[0].values();
    for (std::size_t i = 0; i < o.size(); ++i) EXPECT_EQ(std::isnan(o[i]), i / (o.size() / 3) == 1);
    for (std::size_t i = 0; i < qkv.size(); ++i) EXPECT_EQ(std::isnan(gradient[i]), i / third == 1);
  }
}

TEST_P(AttentionOn, drops_what_philox_says) {
  for (const std::int64_t length : {64, 65, 66, 131})
    expect_agreement(packed(2, 2, 1, 16, length, true, 0.3f));
  expect_agreement(packed(2, 4, 2, 16, 75, false, 0.1f).documents({0, 33, 75, 110, 150}));
}

TEST_P(AttentionOn, survives_scores_beyond_the_range_of_exp) {
  Case c = packed(1, 2, 2, 64, 300);
  c.scale = 8;  // scores up to some hundred
  Trial(device(), c, DType::f32).expect_agreement();
}

TEST_P(AttentionOn, passes_on_values_that_are_not_numbers) {
  Trial run(device(), packed(1, 1, 1, 16, 40), DType::f32);
  Values qkv = run.q().values();
  qkv[20 * 48] = std::nan("");  // of query 20
  run.q().fill(qkv);
  run.kv().fill(qkv);
  run.run();
  const Values o = run.o().values();
  for (std::size_t i = 0; i < o.size(); ++i) EXPECT_EQ(std::isnan(o[i]), i / 16 == 20);
}

TEST(Attention, gives_the_same_bits_on_any_number_of_threads) {
  TestDevice cpu(DeviceKind::cpu);
  const Case documents = packed(2, 6, 2, 16, 100, true, 0.2f).documents({0, 40, 100, 163, 200});
  // One task a group, several heads a task, one head a task, ranges of queries.
  for (const Case& c :
       {packed(16, 2, 1, 8, 67), packed(3, 14, 2, 8, 67), packed(1, 14, 2, 8, 67), packed(1, 2, 1, 8, 257),
        documents, crossed(1, 2, 2, 8, 70, 130, false),
        crossed(1, 2, 2, 8, 70, 130, false).in_segments({{0, 1, 50, 60, 70}, {0, 70, 70, 71, 130}})})
    for (const DType type : {DType::f32, DType::bf16}) {
      Trial one(cpu, c, type);
      one.options().threads = 1;
      one.run();
      for (const int threads : {2, 3, 4}) {
        Trial other(cpu, c, type);
        other.options().threads = threads;
        other.run();
        EXPECT_TRUE(other.o().same_bits(one.o()));
        EXPECT_TRUE(other.lse().same_bits(one.lse()));
        for (std::size_t i = 0; i < one.gradients().size(); ++i)
          EXPECT_TRUE(other.gradients()[i].same_bits(one.gradients()[i]));
      }
    }
}

// 2 for a multiply and add, of which scores and sums of values have one each; a causal mask's diagonal counts as half.
TEST(Attention, counts_the_pairs_that_may_meet) {
  const auto pairs = [](std::int64_t queries, std::int64_t keys, bool causal) {
    const Case c = crossed(2, 3, 1, 16, queries, keys, causal);
    const std::vector<TensorType> inputs = {{{2 * queries, c.shape.q_column + 3 * 16}, DType::f32},
                                            {{2 * keys, c.shape.v_column + 16}, DType::f32},
                                            {},
                                            {}};
    const Attention op(c.shape);
    return op.cost(inputs, op.infer(inputs)).matrix_flops / (4.0 * 2 * 3 * 16);
  };
  EXPECT_EQ(pairs(6, 4, false), 24);
  EXPECT_EQ(pairs(6, 6, true), 18);
  EXPECT_EQ(pairs(6, 4, true), 8 + 2 * 4);
  EXPECT_EQ(pairs(4, 6, true), 8);
}

TEST(Attention, takes_the_segments_of_both_sides_or_of_neither) {
  const TensorType rows{{8, 3 * 16}, DType::f32}, starts{{3}, DType::i32};
  const Attention op(AttentionShape::packed(1, 1, 1, 16, true, 0));
  const auto infer = [&](TensorType queries, TensorType keys) {
    return op.infer(std::vector<TensorType>{rows, rows, std::move(queries), std::move(keys)});
  };
  EXPECT_NO_THROW(infer({}, {}));
  EXPECT_NO_THROW(infer(starts, starts));
  EXPECT_THROW(infer(starts, {}), Defect);
  EXPECT_THROW(infer({}, starts), Defect);
  EXPECT_THROW(infer(starts, {{4}, DType::i32}), Defect);
  EXPECT_THROW(infer({{3}, DType::f32}, {{3}, DType::f32}), Defect);
}

TEST(Attention, asks_for_memory_that_grows_like_the_length) {
  const auto bytes = [](std::int64_t length, DType type) {
    const AttentionShape shape = AttentionShape::packed(1, 8, 2, 64, true, 0.1f);
    const std::vector<TensorType> forward = {{{length, 12 * 64}, type}, {{length, 12 * 64}, type}, {}, {}};
    const TensorType o{{length, 8 * 64}, type}, lse{{1, 8, length}, DType::f32};
    const std::vector<TensorType> backward = {o, forward[0], forward[0], o, lse, {}, {}};
    const auto of = [&](const Op& op, const std::vector<TensorType>& inputs) {
      return cpu_kernels().at(op.name()).workspace(op, inputs, op.infer(inputs), 4);
    };
    return of(Attention(shape), forward) + of(AttentionGradient(shape, true), backward);
  };
  for (const DType type : {DType::f32, DType::bf16}) EXPECT_LE(bytes(16384, type), 2 * bytes(8192, type));
}

TEST_P(AttentionOn, behind_a_cache_equals_attention_when_fed_token_by_token) {
  const std::int64_t batch = 2, length = 75, prefill = 40, room = 80;
  for (const DType type : {DType::f32, DType::bf16}) {
    const Case c = packed(batch, 6, 2, 20, length);
    Trial whole(device(), c, type);
    whole.run();
    const Values qkv = whole.q().values(), want = whole.o().values();
    const std::int64_t columns = whole.q().type().columns(), o_columns = 6 * 20;
    TestTensor cache({{batch, room, 2 * 2 * 20}, type});
    double worst = 0;
    for (std::int64_t at = 0; at < length;) {
      const std::int64_t count = at == 0 ? prefill : 1;
      Values rows;
      for (std::int64_t b = 0; b < batch; ++b)
        rows.insert(rows.end(), qkv.begin() + (b * length + at) * columns,
                    qkv.begin() + (b * length + at + count) * columns);
      std::vector<TestTensor> inputs = {TestTensor({{batch * count, columns}, type}, rows), cache};
      RunOptions options;
      options.scalars.kv_length = static_cast<std::uint32_t>(at);
      options.changed_input = 1;
      const Values o = run_op(device(), CachedAttention(c.shape), inputs, options)[0].values();
      cache = inputs[1];
      for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t i = 0; i < count * o_columns; ++i) {
          const double difference =
              std::abs(o[static_cast<std::size_t>(b * count * o_columns + i)] -
                       want[static_cast<std::size_t>((b * length + at) * o_columns + i)]);
          ASSERT_FALSE(std::isnan(difference));
          worst = std::max(worst, difference);
        }
      at += count;
    }
    // Both sum up to 75 terms of values below 4, and round to their type.
    EXPECT_LE(worst, 4 * (type == DType::f32 ? 75 * 0x1p-24 : 2 * 0x1p-9));
  }
}

// As beams of a search read the keys of their sentence's encoder: a memory with room for more, which holds nothing yet.
TEST_P(AttentionOn, decodes_over_a_memory_of_keys) {
  constexpr std::int64_t sentences = 3, beams = 4, room = 40, lengths[] = {17, 40, 5};
  Case c = crossed(sentences, 6, 2, 20, beams, room, false);
  for (std::int64_t s = 0; s < sentences; ++s) {
    for (const std::int64_t start : {s * beams, (s + 1) * beams})
      c.segments.queries.push_back(static_cast<double>(start));
    for (const std::int64_t start : {s * room, s * room + lengths[s]})
      c.segments.keys.push_back(static_cast<double>(start));
  }
  c.segments.queries.push_back(sentences * beams);
  c.segments.keys.push_back(sentences * room);
  for (const DType type : {DType::f32, DType::bf16}) {
    Trial trial(device(), c, type);
    const Values filled = trial.kv().values();
    const std::int64_t columns = trial.kv().type().columns();
    Values memory = filled;
    for (std::int64_t row = 0; row < sentences * room; ++row)
      if (row % room >= lengths[row / room])
        std::fill_n(memory.begin() + row * columns, columns, std::nan(""));
    std::vector<TestTensor> inputs = {
        trial.q(), TestTensor({{sentences, room, columns}, type}, memory),
        TestTensor({{static_cast<std::int64_t>(c.segments.queries.size())}, DType::i32}, c.segments.queries),
        TestTensor({{static_cast<std::int64_t>(c.segments.keys.size())}, DType::i32}, c.segments.keys)};
    const Values o = run_op(device(), Attention(c.shape), inputs)[0].values();
    const AttentionProblem problem(c.shape, beams, room, static_cast<std::size_t>(trial.q().type().columns()),
                                   static_cast<std::size_t>(columns), c.segments);
    const Values want = problem.forward(trial.q().values(), filled)[0];
    for (std::size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(o[i], want[i], type == DType::f32 ? 1e-5 : 4 * 0x1p-7) << i;
  }
}

// The host cannot read a GPU's length of the cache, so that only its owner can refuse: the kernel must not write.
TEST_P(AttentionOn, writes_nothing_behind_the_room_of_a_cache) {
  for (const std::int64_t queries : {1, 2}) {
    const AttentionShape shape = AttentionShape::packed(1, 1, 1, 8, true, 0);
    std::vector<TestTensor> inputs = {TestTensor({{queries, 24}, DType::f32}, Values(24 * queries)),
                                      TestTensor({{1, 4, 16}, DType::f32}, Values(64))};
    RunOptions options;
    options.scalars.kv_length = static_cast<std::uint32_t>(5 - queries);
    options.changed_input = 1;
    if (GetParam().kind == DeviceKind::cpu)
      EXPECT_THROW(run_op(device(), CachedAttention(shape), inputs, options), Defect);
    else
      run_op(device(), CachedAttention(shape), inputs, options);  // it looks at what surrounds the cache
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionOn, ::testing::ValuesIn(compiled_backends()),
                         [](const auto& kind) { return test_name_of(kind.param); });

}  // namespace
}  // namespace muster::testing
