// Attention with the whole matrix of probabilities in memory, as model/ops/attention.hpp states it.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "core/philox.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/kernel.hpp"
#include "tests/reference/values.hpp"

namespace muster::reference {

// Both sides of the segments; without any, a sample is one.
struct Segments {
  Values queries = {}, keys = {};
};

// One call: where things lie and what may be seen. Causal queries see `before` keys more than their own place tells.
class AttentionProblem {
 public:
  AttentionProblem(const AttentionShape& shape, std::size_t queries, std::size_t keys, std::size_t q_columns,
                   std::size_t kv_columns, Segments segments = {}, StepScalars scalars = {},
                   std::uint32_t random_key = 0, std::size_t before = 0)
      : shape_(shape),
        queries_(queries),
        keys_(keys),
        before_(before),
        q_columns_(q_columns),
        kv_columns_(kv_columns),
        scalars_(scalars),
        random_key_(random_key),
        query_places_(places(segments.queries, queries)),
        key_places_(places(segments.keys, keys)) {}

  // o, lse.
  Tensors forward(const Values& q_source, const Values& kv_source) const {
    const std::size_t size = shape_.head_size, heads = shape_.heads;
    Values o(batch() * queries_ * heads * size), lse(batch() * heads * queries_);
    each_query([&](std::size_t b, std::size_t h, std::size_t i) {
      double row_lse = 0;
      const Values p = probabilities(q_source, kv_source, b, h, i, row_lse);
      lse[(b * heads + h) * queries_ + i] = row_lse;
      for (std::size_t j = 0; j < keys_; ++j)
        for (std::size_t d = 0; d < size; ++d)
          o[((b * queries_ + i) * heads + h) * size + d] +=
              p[j] * drop(b, h, i, j) * kv_source[value_at(b, h, j) + d];
    });
    return {o, lse};
  }

  // d q_source, d kv_source.
  Tensors gradient(const Values& d_o, const Values& q_source, const Values& kv_source) const {
    const std::size_t size = shape_.head_size, heads = shape_.heads;
    Values dq(q_source.size()), dkv(kv_source.size());
    each_query([&](std::size_t b, std::size_t h, std::size_t i) {
      double row_lse = 0;
      const Values p = probabilities(q_source, kv_source, b, h, i, row_lse);
      const double* out = d_o.data() + ((b * queries_ + i) * heads + h) * size;
      Values dp(keys_);
      double delta = 0;
      for (std::size_t j = 0; j < keys_; ++j) {
        for (std::size_t d = 0; d < size; ++d) {
          dp[j] += drop(b, h, i, j) * out[d] * kv_source[value_at(b, h, j) + d];
          dkv[value_at(b, h, j) + d] += p[j] * drop(b, h, i, j) * out[d];
        }
        delta += p[j] * dp[j];
      }
      for (std::size_t j = 0; j < keys_; ++j)
        for (std::size_t d = 0; d < size; ++d) {
          const double ds = p[j] * (dp[j] - delta) * scale();
          dq[query_at(b, h, i) + d] += ds * kv_source[key_at(b, h, j) + d];
          dkv[key_at(b, h, j) + d] += ds * q_source[query_at(b, h, i) + d];
        }
    });
    return {dq, dkv};
  }

 private:
  std::size_t batch() const { return static_cast<std::size_t>(shape_.batch); }
  double scale() const { return 1 / std::sqrt(static_cast<double>(shape_.head_size)); }
  template <class Body>
  void each_query(Body&& body) const {
    for (std::size_t b = 0; b < batch(); ++b)
      for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.heads); ++h)
        for (std::size_t i = 0; i < queries_; ++i) body(b, h, i);
  }
  std::size_t query_at(std::size_t b, std::size_t h, std::size_t i) const {
    return (b * queries_ + i) * q_columns_ + shape_.q_column + h * shape_.head_size;
  }
  std::size_t kv_head(std::size_t h) const { return h / (shape_.heads / shape_.kv_heads); }
  std::size_t key_at(std::size_t b, std::size_t h, std::size_t j) const {
    return (b * keys_ + j) * kv_columns_ + shape_.k_column + kv_head(h) * shape_.head_size;
  }
  std::size_t value_at(std::size_t b, std::size_t h, std::size_t j) const {
    return (b * keys_ + j) * kv_columns_ + shape_.v_column + kv_head(h) * shape_.head_size;
  }
  // The segment of a row, and its place there; -1: it is in none.
  struct Place {
    std::ptrdiff_t segment = 0;
    std::size_t index = 0;
  };
  std::vector<Place> places(const Values& starts, std::size_t rows) const {
    std::vector<Place> places(batch() * rows);
    for (std::size_t row = 0; row < places.size(); ++row) {
      places[row] = {starts.empty() ? 0 : -1, row % rows};
      for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
        const auto begin = static_cast<std::size_t>(starts[s]), end = static_cast<std::size_t>(starts[s + 1]);
        if (row >= begin && row < end) places[row] = {static_cast<std::ptrdiff_t>(s), row - begin};
      }
    }
    return places;
  }
  bool sees(std::size_t b, std::size_t i, std::size_t j) const {
    const Place &query = query_places_[b * queries_ + i], &key = key_places_[b * keys_ + j];
    if (query.segment < 0 || query.segment != key.segment) return false;
    return !shape_.causal || key.index <= query.index + before_;
  }
  double drop(std::size_t b, std::size_t h, std::size_t i, std::size_t j) const {
    if (shape_.dropout == 0) return 1;
    const auto e = static_cast<std::uint32_t>((h * queries_ + i) * keys_ + j);
    const Philox4 words =
        philox({e / 4, scalars_.first_slot + static_cast<std::uint32_t>(b), scalars_.step, random_key_},
               scalars_.seed);
    return uniform(words[e % 4]) >= shape_.dropout ? 1 / (1 - static_cast<double>(shape_.dropout)) : 0;
  }
  Values probabilities(const Values& q_source, const Values& kv_source, std::size_t b, std::size_t h,
                       std::size_t i, double& lse) const {
    Values scores(keys_, -std::numeric_limits<double>::infinity());
    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (std::size_t j = 0; j < keys_; ++j) {
      if (!sees(b, i, j)) continue;
      scores[j] = 0;
      for (int d = 0; d < shape_.head_size; ++d)
        scores[j] += scale() * q_source[query_at(b, h, i) + d] * kv_source[key_at(b, h, j) + d];
      largest = std::max(largest, scores[j]);
    }
    lse = largest;
    if (std::isinf(largest)) return Values(keys_);  // sees no key
    for (double& score : scores) total += std::exp(score - largest);
    lse = largest + std::log(total);
    for (double& score : scores) score = std::exp(score - lse);
    return scores;
  }

  AttentionShape shape_;
  std::size_t queries_, keys_, before_, q_columns_, kv_columns_;
  StepScalars scalars_;
  std::uint32_t random_key_;
  std::vector<Place> query_places_, key_places_;
};

}  // namespace muster::reference
