// Generates text: the prompt goes through the model once, then a token at a time over the KV cache.
//
// When the model's context is full, its second half is read again as a prompt and generation goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/memory.hpp"
#include "model/executor.hpp"
#include "trainer/config/config.hpp"
#include "trainer/run/sampling.hpp"
#include "trainer/run/trained_model.hpp"

namespace muster {

class Generator {
 public:
  Generator(const Config& config, std::optional<std::int64_t> checkpoint, MemoryAccount& account);

  const TrainedModel& model() const { return model_; }

  // Appends up to `count` tokens to `tokens` (at least one), calling `token` for each; ends early when that
  // returns false.
  void generate(std::vector<std::int32_t>& tokens, std::int64_t count, const Sampling& sampling,
                const std::function<bool(std::int32_t)>& token);

  // Logits of the token after `tokens`, which follow `cached` positions that the cache holds.
  std::span<const float> logits(std::span<const std::int32_t> tokens, std::int64_t cached);

 private:
  const Plan& plan_for(std::int64_t length);

  Config config_;
  MemoryAccount& account_;
  Plan decode_;                 // one token
  std::optional<Plan> prompt_;  // the prompt last read
  Plan longest_;                // a whole context; sizes the arena
  TrainedModel model_;
  Buffer cache_;
  std::vector<float> logits_;
};

}  // namespace muster
