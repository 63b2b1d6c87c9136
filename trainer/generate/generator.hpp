// Generates text: the prompt goes through the model in pieces, then a token at a time, over the KV cache.
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
#include "trainer/checkpoint/trained_model.hpp"
#include "trainer/config/config.hpp"
#include "trainer/generate/sampling.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

class Generator {
 public:
  // Throws UserError when there is no such checkpoint (trained_model.hpp), or not the memory.
  Generator(const Config& config, std::optional<std::int64_t> checkpoint, Machine& machine);

  const TrainedModel& model() const { return model_; }
  // What it takes.
  const MemoryByKind& memory() const { return memory_; }

  // Appends up to `count` tokens to `tokens` (at least one), calling `token` for each; ends early when that
  // returns false.
  void generate(std::vector<std::int32_t>& tokens, std::int64_t count, const Sampling& sampling,
                const std::function<bool(std::int32_t)>& token);

  // Logits of the token after `tokens`, which follow `cached` positions that the cache holds.
  std::span<const float> logits(std::span<const std::int32_t> tokens, std::int64_t cached);

 private:
  // Runs a plan over as many of its rows as there are tokens.
  void run(const Executor& executor, std::span<const std::int32_t> tokens, std::int64_t cached);

  Config config_;
  Machine& machine_;
  std::int64_t piece_;  // tokens of a prompt read at once
  Plan decode_;         // one token
  Plan prompt_;         // a piece
  std::uint64_t arena_bytes_;
  MemoryByKind memory_;
  TrainedModel model_;
  Buffer cache_;
  Executor decoder_, prompter_;
  std::vector<std::byte> read_;
  std::vector<float> logits_;
};

}  // namespace muster
