#include "trainer/cli/launcher.hpp"

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>

#include "core/text.hpp"

namespace muster {

std::optional<int> launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return parse_number<int>(rank);
  return std::nullopt;
}

bool works_alone(const char* command) {
  if (launched_rank() == 1)
    fmt::print(stderr, "muster {} runs on one rank: the first does it, the others leave it alone\n", command);
  return speaks_for_all_ranks();
}

}  // namespace muster
