#include "trainer/run/ranks_alike.hpp"

#include <fmt/format.h>
#include <string>
#include <string_view>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
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
