#include "trainer/run/ranks_alike.hpp"

#include <fmt/format.h>
#include <string>
#include <string_view>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "trainer/build_info.hpp"
#include "trainer/config/read.hpp"

namespace muster {
namespace {

// The data's contents and weights, wherever they lie.
std::string content(const Config& config, const RunData& data) {
  std::string all = data.validation_content();
  for (const SourceIdentity& source : data.identities(config))
    all += fmt::format(" {} {}", source.content, source.weight);
  return all;
}

bool is_a_ranks_own(std::string_view key) {
  return key == "data.path" || key == "data.source" || key == "run.threads";
}

}  // namespace

std::string agree_on_fingerprint(Communicator& comm, const Config& config, const Machine& machine) {
  const std::string mine = fingerprint(machine.fingerprint());
  const std::vector<std::string> all = gather_strings(comm, mine, "fingerprints");
  agree(comm, "comparing fingerprints", [&] {
    if (config.train.reduction == Reduction::invariant && mine != all[0])
      throw UserError(
          "rank {} on {} runs another binary, libraries or instruction set than rank 0 ({} instead of {}), "
          "and "
          "train.reduction = \"invariant\" wants them alike: start all ranks alike "
          "(MUSTER_INSTRUCTION_SET=avx2 "
          "on all of them, say, where their processors differ), or a new run with \"fast\"",
          comm.rank(), host_name(), mine, all[0]);
  });
  return mine;
}

void refuse_unlike_ranks(Communicator& comm, const Config& config, const RunData& data) {
  const std::vector<std::string> contents =
      gather_strings(comm, content(config, data), "contents of the data");
  const std::vector<std::string> configs = gather_strings(comm, to_toml(config), "configurations");
  agree(comm, "comparing the ranks", [&] {
    if (contents[static_cast<std::size_t>(comm.rank())] != contents[0])
      throw UserError(
          "rank {} on {}: {} holds other data than that of rank 0, or has another weight: give all ranks the "
          "same data",
          comm.rank(), host_name(), config.data.sources().front().path);
    for (const Key* key : changed_keys(parse_config(configs[0], "rank 0"), config))
      if (!is_a_ranks_own(key->name))
        throw UserError(
            "rank {} on {} has another {} than rank 0: start all ranks with the same configuration",
            comm.rank(), host_name(), key->name);
  });
}

}  // namespace muster
