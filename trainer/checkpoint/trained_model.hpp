// The parameters of a run's checkpoint in memory, ready for plans that only read them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/error.hpp"
#include "core/memory.hpp"
#include "model/executor.hpp"
#include "trainer/config/config.hpp"
#include "trainer/plan/memory_check.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

class TrainedModel {
 public:
  // Of the checkpoint of `step` of the run in config.run.dir; nothing: none was found. `parameters` are the model's;
  // `arena_bytes` is what the largest plan to run needs. Throws UserError when there is no such checkpoint.
  TrainedModel(const Config& config, std::optional<std::int64_t> step, const ParameterSpace& parameters,
               std::uint64_t arena_bytes, Machine& machine);

  // What it takes.
  static MemoryByKind memory(const Config& config, const ParameterSpace& parameters,
                             std::uint64_t arena_bytes);

  Bindings bindings() const { return {arena_.data(), master_.data(), compute_.data(), nullptr, nullptr}; }
  const std::string& path() const { return path_; }
  // The whole description of the tokenizer that the model was trained with.
  const std::string& tokenizer() const { return tokenizer_; }

 private:
  std::string path_;
  std::string tokenizer_;
  Buffer master_, compute_, arena_;
};

// What `load` makes of the checkpoint that was asked for, or else of the newest. A run that saves meanwhile removes the
// older ones, also one that is being read: then there is another newest, and that is read.
template <class Newest, class Load>
auto load_asked_or_newest(std::optional<std::int64_t> asked, const Newest& newest, const Load& load) {
  if (asked) return load(asked);
  std::optional<std::int64_t> step = newest();
  while (true) {
    try {
      return load(step);
    } catch (const UserError&) {
      const std::optional<std::int64_t> now = newest();
      if (now == step) throw;
      step = now;
    }
  }
}

}  // namespace muster
