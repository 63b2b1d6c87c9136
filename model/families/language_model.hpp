// Decoder-only language models: the graphs of `gpt` and `llama` for training, evaluation and generation.
//
//   h = token_embedding[tokens] (+ position_embedding[positions] for gpt)
//   for each block: h = h + attention(norm(h));  h = h + feed_forward(norm(h))
//   loss = cross_entropy(norm(h) head^T, targets), head = token_embedding when tied
//
// gpt: LayerNorm, learned positions, GELU, biases, dropout (Radford et al. 2019). llama: RMSNorm, rotary
// positions, SwiGLU, no biases but, if asked for, those of qkv (Touvron et al. 2023; Qwen2.5 2024).
#pragma once

#include <cstdint>
#include <memory>

#include "model/config.hpp"
#include "model/graph/graph.hpp"

namespace muster {

// One micro-batch: B sequences of T tokens.
struct LanguageModelShape {
  std::int64_t batch = 1;
  std::int64_t sequence = 1;
  std::int64_t document_starts = 0;  // entries of the input document_starts; 0: no document masks
};

// Vocabularies are padded to a multiple of this in storage; the padding takes no part in the softmax.
inline constexpr std::int64_t vocabulary_multiple = 128;

// The parameters of one model, and the graphs that compute with them.
class LanguageModel {
 public:
  explicit LanguageModel(const ModelConfig& config);

  const ParameterSpace& parameters() const { return *space_; }

  // Inputs: tokens, targets, positions i32 [B T], document_starts. Result: loss, the sum over valid targets,
  // f64 [1].
  Graph training(const LanguageModelShape& shape, Precision precision, Recompute recompute) const;
  Graph evaluation(const LanguageModelShape& shape, Precision precision) const;

  // Inputs: tokens, positions i32 [B T], last i32 [B], the row of each sequence whose logits are wanted.
  // States: block.I.cache. Result: logits f32 or bf16 [B, V padded].
  Graph generation(const LanguageModelShape& shape, Precision precision, std::int64_t cache_length) const;

 private:
  ModelConfig config_;
  std::shared_ptr<const ParameterSpace> space_;
};

}  // namespace muster
