#include "trainer/launcher.hpp"

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <string>

#include "comm/agree.hpp"
#include "core/text.hpp"
#include "trainer/build_info.hpp"

namespace muster {
namespace {

// The innermost launcher comes first: an mpirun inside a job step of Slurm has the variables of both.
constexpr const char* counts[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};

std::string remedy() {
  if (std::getenv("SLURM_STEP_ID") != nullptr)
    return "start them with srun --mpi=pmix (srun --mpi=list tells what there is), or with mpirun inside the "
           "job";
  return fmt::format("start them with the mpirun of {}, which this program was built with", mpi_version());
}

}  // namespace

std::optional<int> launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return parse_number<int>(rank);
  return std::nullopt;
}

bool speaks_for_all_ranks() { return launched_rank().value_or(0) == 0; }

bool works_alone(const char* command) {
  if (launched_rank() == 1)
    fmt::print(stderr, "muster {} runs on one rank: the first does it, the others leave it alone\n", command);
  return speaks_for_all_ranks();
}

Launcher::Launcher() : speaks_(speaks_for_all_ranks()) {
  for (const char* name : counts) {
    const char* count = std::getenv(name);
    if (count == nullptr) continue;
    variable_ = name;
    processes_ = parse_number<int>(count).value_or(1);
    return;
  }
}

void Launcher::refuse_if_foreign(int ranks) const {
  if (ranks > 1 || processes_ <= 1) return;
  throw AgreedError(
      fmt::format("a launcher started {} processes ({} is set), but MPI joins none of them, so each "
                  "would train alone: {}; for runs apart, unset {}",
                  processes_, variable_, remedy(), variable_),
      speaks_);
}

}  // namespace muster
