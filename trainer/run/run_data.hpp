// The data of a run: its datasets, open and checked, and the loaders of both splits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/memory.hpp"
#include "data/dataset.hpp"
#include "data/loader.hpp"
#include "trainer/checkpoint/run_state.hpp"
#include "trainer/config/config.hpp"

namespace muster {

class RunData {
 public:
  // Opens the datasets of `config`. Throws UserError when none is named, or one cannot be read.
  explicit RunData(const Config& config);

  const DatasetInfo& info() const { return datasets_.front()->info(); }
  std::vector<SourceIdentity> identities(const Config& config) const;
  // How a source's data are known to be what was written (Dataset::describe_checks).
  std::string describe_checks(std::size_t source) const { return datasets_[source]->describe_checks(); }
  // Tells the text that the first source holds out apart from any other.
  std::string validation_content() const;
  // Whether the first source holds out text enough for an evaluation.
  bool has_validation(const Config& config) const;

  // Throws UserError where documents are apart and none of them has a second token, which the first could predict.
  void refuse_single_tokens(const Config& config, Split split) const;

  Loader training(const Config& config, MemoryAccount& account) const;
  // Of the first source.
  Loader validation(const Config& config, MemoryAccount& account) const;

  // What the loader and the prefetch ring of a split take; for the
  // validation split this includes what its Evaluation takes.
  std::uint64_t memory(const Config& config, Split split) const;
  // The same of a whole training run, which has those of the validation split if it evaluates.
  std::uint64_t memory(const Config& config) const;

 private:
  std::vector<Loader::Source> sources(const Config& config) const;
  std::vector<std::unique_ptr<Dataset>> datasets_;
};

// With what 0 stands for where it follows the data: model.vocabulary.
Config for_data(Config config, const RunData& data);

}  // namespace muster
