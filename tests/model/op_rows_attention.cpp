// Rows of the op table: attention. Its deeper tests are attention_test.cpp.
#include "model/ops/attention.hpp"
#include "tests/model/op_table.hpp"
#include "tests/reference/attention.hpp"

namespace muster::testing {
namespace {

using reference::AttentionProblem;
using reference::Segments;

struct Case {
  std::string what;
  AttentionShape shape;
  std::int64_t queries, keys;
  bool same_source;
  Segments segments = {};
};

// Of self-attention.
Segments documents(const Values& starts) { return {starts, starts}; }

// Cross attention as encoder-decoders have it: sources of their own, packed, lengths of their own.
struct Awkward {
  int batch, heads, kv_heads, head_size;
  std::int64_t queries, keys;
  bool causal;
  float dropout;
  Segments segments;
};

std::vector<Awkward> awkward() {
  return {
      {1, 2, 2, 64, 1, 257, false, 0, {}},
      {3, 7, 1, 64, 1, 257, false, 0, {{0, 1, 1, 2, 2, 3, 3}, {0, 257, 257, 300, 514, 515, 771}}},
      {1, 2, 1, 80, 70, 257, false, 0, {{0, 1, 1, 34, 70, 70}, {0, 100, 130, 130, 257, 257}}},
      {1, 2, 2, 96, 67, 41, false, 0.25f, {{0, 5, 6, 60, 66, 66}, {0, 3, 3, 36, 41, 41}}},
      {1, 7, 1, 128, 37, 66, false, 0, {{0, 33, 35, 37}, {0, 1, 60, 66}}},
      {2, 7, 1, 64, 33, 65, true, 0.1f, {{0, 9, 33, 40, 66}, {0, 30, 65, 67, 130}}},
      {1, 1, 1, 96, 66, 34, true, 0, {{0, 30, 66}, {0, 33, 34}}},
  };
}

std::vector<Case> cases() {
  const auto packed = AttentionShape::packed;
  std::vector<Case> all = {
      {"one token", packed(1, 1, 1, 8, true, 0), 1, 1, true},
      {"causal", packed(2, 2, 2, 8, true, 0), 5, 5, true},
      {"both ways", packed(2, 2, 2, 8, false, 0), 5, 5, true},
      {"grouped", packed(1, 7, 1, 64, true, 0), 33, 33, true},
      {"head size 80", packed(1, 2, 2, 80, true, 0), 67, 67, true},
      {"dropout", packed(2, 2, 1, 16, true, 0.25f), 19, 19, true},
      {"large heads", packed(1, 1, 1, 256, true, 0), 35, 35, true},
      {"grouped dropout both ways", packed(1, 7, 1, 8, false, 0.1f), 37, 37, true},
      {"dropout in documents", packed(2, 2, 1, 16, true, 0.25f), 42, 42, true,
       documents({0, 7, 42, 51, 84, 84})},
      {"small dropout", packed(2, 2, 1, 4, true, 0.25f), 3, 3, true},
      {"documents", packed(2, 2, 2, 16, true, 0), 20, 20, true, documents({0, 7, 20, 31, 40, 40})},
      {"few documents", packed(2, 1, 1, 4, true, 0), 4, 4, true, documents({0, 3, 4, 8, 8})},
  };
  // Sources of their own, with columns that hold no head.
  AttentionShape cross = packed(2, 4, 2, 8, true, 0);
  cross.q_column = 8;
  cross.k_column = 0;
  cross.v_column = 24;
  all.push_back({"more keys than queries", cross, 3, 6, false});
  all.push_back({"more queries than keys", cross, 6, 3, false});
  cross.causal = false;
  all.push_back({"across", cross, 6, 3, false});
  // Segments: 3 queries of 2 keys, 1 of none, none of 1, 2 of 1 (small enough for finite differences); rows in none.
  cross.batch = 1;
  const Segments few{{1, 4, 5, 5, 7, 7}, {0, 2, 2, 3, 4, 4}};
  all.push_back({"across in segments", cross, 7, 5, false, few});
  cross.causal = true;
  all.push_back({"across in causal segments", cross, 7, 5, false, few});
  for (const Awkward& a : awkward()) {
    AttentionShape shape = packed(a.batch, a.heads, a.kv_heads, a.head_size, a.causal, a.dropout);
    shape.k_column = 0;
    shape.v_column = static_cast<std::int64_t>(a.kv_heads) * a.head_size;
    all.push_back({"across", shape, a.queries, a.keys, false, a.segments});
  }
  return all;
}

void add_case(std::vector<Row>& rows, const Case& c, DType type) {
  const AttentionShape& s = c.shape;
  const std::int64_t size = s.head_size, tokens = s.batch * c.queries, kv_tokens = s.batch * c.keys;
  const std::int64_t q_columns =
      c.same_source ? (s.heads + 2 * s.kv_heads) * size : s.q_column + s.heads * size;
  const std::int64_t kv_columns = c.same_source ? q_columns : s.v_column + s.kv_heads * size + 8;
  const TensorType q_type = matrix(tokens, q_columns, type), kv_type = matrix(kv_tokens, kv_columns, type);
  const TensorType o_type = matrix(tokens, s.heads * size, type);
  const auto starts_of = [](const Values& starts) {
    return starts.empty() ? absent() : vector(static_cast<std::int64_t>(starts.size()), DType::i32);
  };
  const TensorType query_starts = starts_of(c.segments.queries), key_starts = starts_of(c.segments.keys);
  const Values q = reference::rounded(reference::random_values(q_type.elements(), 1), type);
  const Values kv =
      c.same_source ? q : reference::rounded(reference::random_values(kv_type.elements(), 2), type);
  const Values d_o = reference::rounded(reference::random_values(o_type.elements(), 3), type);
  RunOptions options;
  options.scalars = {0xfeedfacecafebeefull, 5, 9};
  options.random_key = 99;
  const AttentionProblem problem(s, static_cast<std::size_t>(c.queries), static_cast<std::size_t>(c.keys),
                                 static_cast<std::size_t>(q_columns), static_cast<std::size_t>(kv_columns),
                                 c.segments, options.scalars, options.random_key);
  const double chain = static_cast<double>(size + c.keys) + 16;
  const bool bf16 = type == DType::bf16;

  Row forward{c.what,
              std::make_shared<Attention>(s),
              {q_type, kv_type, query_starts, key_starts},
              {q, kv, c.segments.queries, c.segments.keys},
              [=](const Tensors& in) { return problem.forward(in[0], in[1]); },
              // P is rounded to bf16 for its product with the values.
              {{chain, bf16 ? 1.0 : 0}, {chain}},
              options};
  rows.push_back(forward);

  Tensors out = problem.forward(q, kv);
  Row gradient{
      c.what,
      std::make_shared<AttentionGradient>(s, c.same_source),
      {o_type, q_type, kv_type, o_type, forward.op->infer(forward.inputs)[1], query_starts, key_starts},
      {d_o, q, kv, out[0], out[1], c.segments.queries, c.segments.keys},
      [=](const Tensors& in) {
        Tensors d = problem.gradient(in[0], in[1], in[2]);
        if (c.same_source) {
          for (std::size_t i = 0; i < d[0].size(); ++i) d[0][i] += d[1][i];
          d.pop_back();
        }
        return d;
      },
      // P, dS and the o behind delta are rounded to bf16.
      {},
      options};
  const Roundings roundings{2 * chain + static_cast<double>(c.queries), bf16 ? 3.0 : 0};
  gradient.roundings.assign(c.same_source ? 1 : 2, roundings);
  if (q_type.elements() + kv_type.elements() <= 900) {
    gradient.differences = Differences{
        c.same_source ? Tensors{q} : Tensors{q, kv}, [=](const Tensors& variables) {
          return reference::dot(d_o, problem.forward(variables[0], variables[c.same_source ? 0 : 1])[0]);
        }};
  }
  rows.push_back(gradient);
}

// The cache already holds `before` positions; those behind the new ones must stay as they were.
Row cached(std::int64_t batch, int heads, int kv_heads, int size, std::int64_t queries, std::int64_t before,
           std::int64_t room, DType type) {
  const AttentionShape shape = AttentionShape::packed(batch, heads, kv_heads, size, true, 0);
  const std::int64_t columns = (heads + 2 * kv_heads) * size, keys = before + queries;
  const std::int64_t kv_columns = 2 * kv_heads * size;
  AttentionShape inner = shape;
  inner.k_column = 0;
  inner.v_column = kv_heads * size;
  const AttentionProblem problem(inner, static_cast<std::size_t>(queries), static_cast<std::size_t>(keys),
                                 static_cast<std::size_t>(columns), static_cast<std::size_t>(kv_columns), {},
                                 {}, 0, static_cast<std::size_t>(before));
  const auto at = [=](std::int64_t b, std::int64_t position, std::int64_t rows) {
    return static_cast<std::size_t>((b * rows + position) * kv_columns);
  };
  Row row{"with " + std::to_string(before) + " cached",
          std::make_shared<CachedAttention>(shape),
          {matrix(batch * queries, columns, type), {{batch, room, kv_columns}, type}},
          {reference::random_values(batch * queries * columns, 1),
           reference::random_values(batch * room * kv_columns, 2)},
          [=](const Tensors& in) -> Tensors {
            Values cache = in[1], seen(static_cast<std::size_t>(batch * keys * kv_columns));
            for (std::int64_t b = 0; b < batch; ++b) {
              for (std::int64_t i = 0; i < queries; ++i)
                for (std::int64_t c = 0; c < kv_columns; ++c)
                  cache[at(b, before + i, room) + static_cast<std::size_t>(c)] =
                      in[0][static_cast<std::size_t>((b * queries + i) * columns + heads * size + c)];
              std::copy_n(cache.begin() + static_cast<std::ptrdiff_t>(at(b, 0, room)), keys * kv_columns,
                          seen.begin() + static_cast<std::ptrdiff_t>(at(b, 0, keys)));
            }
            return {problem.forward(in[0], seen)[0], cache};
          },
          {{static_cast<double>(size + keys) + 16, type == DType::bf16 ? 1.0 : 0}, exact}};
  row.options.scalars.kv_length = static_cast<std::uint32_t>(before);
  row.options.changed_input = 1;
  return row;
}

}  // namespace

std::vector<Row> attention_rows() {
  std::vector<Row> rows;
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const Case& c : cases()) add_case(rows, c, type);
    rows.push_back(cached(1, 2, 2, 8, 5, 0, 5, type));
    rows.push_back(cached(2, 4, 2, 16, 1, 6, 9, type));
    rows.push_back(cached(2, 7, 1, 64, 3, 30, 40, type));
    rows.push_back(cached(1, 2, 1, 80, 1, 0, 1, type));
    rows.push_back(cached(2, 7, 1, 64, 1, 300, 310, type));
    rows.push_back(cached(1, 18, 2, 20, 1, 128, 129, type));
    rows.push_back(cached(1, 2, 1, 256, 4, 66, 70, type));
  }
  return rows;
}

}  // namespace muster::testing
