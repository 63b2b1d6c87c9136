// Tables with a row for each token, which families share.
#pragma once

#include <string>

#include "model/families/config.hpp"
#include "model/graph/builder.hpp"

namespace muster {

// Vocabularies are padded to a multiple of this in storage; the padding takes no part in the softmax.
inline constexpr std::int64_t vocabulary_multiple = 128;

// [V padded, C]
inline ValueId vocabulary_table(Builder& b, const ModelConfig& config, const std::string& name) {
  const std::int64_t rows =
      (config.vocabulary + vocabulary_multiple - 1) / vocabulary_multiple * vocabulary_multiple;
  return b.parameter(name, {rows, config.width}, {}, config.vocabulary);
}

inline ValueId token_table(Builder& b, const ModelConfig& config) {
  return vocabulary_table(b, config, "embedding.token.weight");
}

}  // namespace muster
