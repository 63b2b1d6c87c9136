// muster checkpoint: which checkpoints a run has, and whether they are intact.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace muster {

int checkpoint_list_command(const std::string& run);

// Of one step, or of all complete ones.
int checkpoint_verify_command(const std::string& run, std::optional<std::int64_t> step);

}  // namespace muster
